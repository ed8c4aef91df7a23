//! A shared library that stands between a test program and libmmopt (`LD_PRELOAD`): it forwards
//! every call and notes what kind of call it was. At the end it adds a line for each function to
//! the file that `MMOPT_TRACE` names.

use super::generate::{handle, is_shared, poison};
use super::header::{Function, Header};
use super::recipes::Recipe;
use std::fmt::Write as _;

/// What was seen of one function.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    /// Worked, with everything that must be given.
    pub worked: bool,
    /// Parameters, as bits, of which NULL alone was given and had the documented effect.
    pub null: u64,
    /// Parameters, as bits, of which an illegal number alone was given and was refused.
    pub number: u64,
    /// Worked on an object on which a call had failed; without one, after it had failed itself.
    pub after: bool,
    /// Two threads were inside at once, with the same object.
    pub threads: bool,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.worked |= other.worked;
        self.null |= other.null;
        self.number |= other.number;
        self.after |= other.after;
        self.threads |= other.threads;
    }
}

/// What a trace file says of each function, in the header's order.
pub fn read(text: &str, header: &Header) -> Vec<Seen> {
    let mut all = vec![Seen::default(); header.functions.len()];
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, numbers @ ..] = &words[..] else { continue };
        let n: Vec<u64> = numbers.iter().filter_map(|w| w.parse().ok()).collect();
        let place = header.functions.iter().position(|f| f.name == *name);
        if let (Some(i), [worked, null, number, after, threads]) = (place, &n[..]) {
            all[i].add(Seen {
                worked: *worked > 0,
                null: *null,
                number: *number,
                after: *after > 0,
                threads: *threads > 0,
            });
        }
    }
    all
}

/// Bits of the parameters that a test must give NULL or an illegal number.
pub fn required(f: &Function, recipe: &Recipe) -> (u64, u64) {
    let bits = |wanted: &dyn Fn(usize) -> bool| {
        (0..f.parameters.len()).filter(|&k| wanted(k)).map(|k| 1 << k).sum()
    };
    let p = &f.parameters;
    let number = |k: usize| poison(&p[k].ctype).is_some() && !recipe.takes_any(&p[k].name);
    (bits(&|k| p[k].is_pointer()), bits(&number))
}

fn wrapper(header: &Header, i: usize, f: &Function, recipe: &Recipe) -> String {
    let list: Vec<_> = f.parameters.iter().map(|p| format!("{} {}", p.ctype, p.name)).collect();
    let names: Vec<_> = f.parameters.iter().map(|p| p.name.as_str()).collect();
    let list = if list.is_empty() { "void".to_owned() } else { list.join(", ") };
    let (mut notes, mut must) = (String::new(), 0u64);
    for (k, p) in f.parameters.iter().enumerate() {
        let name = &p.name;
        if p.is_pointer() {
            writeln!(notes, "    nulls |= (uint64_t)({name} == NULL) << {k};").unwrap();
            must |= u64::from(!recipe.may_be_null(f, p)) << k;
        } else if let Some(bad) = poison(&p.ctype).filter(|_| !recipe.takes_any(name)) {
            let is = match p.ctype.as_str() {
                "double" => format!("isnan({name})"),
                _ => format!("{name} == {bad}"),
            };
            writeln!(notes, "    numbers |= (uint64_t)({is}) << {k};").unwrap();
        }
    }
    let object = handle(header, f).map_or("NULL", |p| &p.name);
    let (set, back) = match f.returns.as_str() {
        "void" => (String::new(), ""),
        t => (format!("{t} returned = "), "    return returned;\n"),
    };
    let code = if f.can_fail() { "code_of(returned)" } else { "0" };
    let meet =
        if is_shared(header, f) { format!("    meet({i}, object);\n") } else { String::new() };
    format!(
        "{returns} {name}({list})\n{{\n    static {returns} (*real)({list});\n    \
         uint64_t nulls = 0, numbers = 0;\n    const void *object = {object};\n    \
         find((void **)(void *)&real, \"{name}\");\n{notes}{meet}    \
         {set}real({given});\n    \
         note({i}, {fails}, object, nulls, {must}u, numbers, {code});\n{back}}}\n\n",
        returns = f.returns,
        name = f.name,
        given = names.join(", "),
        fails = u8::from(f.can_fail()),
    )
}

/// The C source.
pub fn source(header: &Header, recipes: &str) -> String {
    let names: String = header.functions.iter().map(|f| format!("    \"{}\",\n", f.name)).collect();
    let mut text = format!(
        "enum {{ N_FUNCTIONS = {} }};\nstatic const char *const names[N_FUNCTIONS] = \
         {{\n{names}}};\n#include \"trace.h\"\n\n",
        header.functions.len()
    );
    for (i, f) in header.functions.iter().enumerate() {
        text.push_str(&wrapper(header, i, f, &Recipe::of(recipes, &f.name)));
    }
    text
}
