//! docs/operators.md is what the rule table says. `MMOPT_UPDATE_OPERATORS=1` writes it again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::autodiff::operators_markdown;

#[test]
fn operators_page_is_fresh() {
    let path = "docs/operators.md";
    let page = operators_markdown();
    if std::env::var_os("MMOPT_UPDATE_OPERATORS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == page,
        "{path} is stale; run `MMOPT_UPDATE_OPERATORS=1 cargo test --test gradients operators`"
    );
}
