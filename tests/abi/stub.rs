//! A shared library in C with the header's functions, structs and enumerations and no code behind
//! them. Its debug information is the ABI as a C program sees it: exact layouts, no Rust names,
//! small, and built in a second.

use super::header::{Function, Header};
use std::fmt::Write as _;

/// The C source; the header is included by name.
pub fn source(header: &Header) -> String {
    let mut text = String::from("#include <mmopt.h>\n");
    // Enumerations pass as uint32_t, so no function leads to them: variables do.
    for e in &header.enumerations {
        let (first, _) = &e.values[0];
        writeln!(text, "MMOPT_API enum {} numbers_of_{0};", e.name).unwrap();
        writeln!(text, "enum {} numbers_of_{0} = {first};", e.name).unwrap();
    }
    for f in &header.functions {
        text.push_str(&function(f));
    }
    text
}

fn function(f: &Function) -> String {
    let list: Vec<_> = f.parameters.iter().map(|p| format!("{} {}", p.ctype, p.name)).collect();
    let list = if list.is_empty() { "void".to_owned() } else { list.join(", ") };
    let unused: String = f.parameters.iter().map(|p| format!("(void){};", p.name)).collect();
    let result = if f.returns == "void" { "" } else { "return 0;" };
    format!("{} {}({list}) {{ {unused}{result} }}\n", f.returns, f.name)
}

/// The header with its structs of options as long as the dump `old` knows them: what a later
/// version adds at their end is no break, as each begins with its size.
pub fn as_long_as(text: &str, header: &Header, old: &str) -> String {
    let mut text = text.to_owned();
    for s in header.structs.iter().filter(|s| s.is_options()) {
        let known = old.split(&format!("<class-decl name='{}' ", s.name)).nth(1);
        let known = known.and_then(|rest| rest.split("</class-decl>").next()).unwrap_or_default();
        let n = known.matches("<data-member ").count();
        let open = format!("typedef struct {} {{", s.name);
        let (Some(start), true) = (text.find(&open), n > 0) else { continue };
        let end = start + text[start..].find("\n}").expect("a struct ends");
        let fields = s.fields.iter().take(n).map(|f| format!("{} {};", f.ctype, f.name));
        text.replace_range(start + open.len()..end, &fields.collect::<String>());
    }
    text
}
