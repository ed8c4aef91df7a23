//! The first page says what is so: its program is the one that is built, its links lead somewhere.

use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_program_is_the_one_that_is_built() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let program = fs::read_to_string(root().join("examples/c/two_models.c")).unwrap();
    let block = readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next());
    let main = program.find("int main(").map(|at| &program[at..]);
    assert!(main.is_some());
    assert_eq!(block, main);
    assert!(main.unwrap().lines().count() <= 45);
}

#[test]
fn links_lead_somewhere() {
    let of = |folder: &str| fs::read_dir(root().join(folder)).unwrap().map(|e| e.unwrap().path());
    let pages = [".", "docs", "docs/design", "tests"].into_iter().flat_map(of);
    for page in pages.filter(|p| p.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(&page).unwrap();
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let place = page.parent().unwrap().join(target);
            assert!(place.exists(), "{}: {link}", page.display());
        }
    }
}
