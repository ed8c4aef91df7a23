//! A C function for every exported one: it makes good arguments, spoils one of them if told to,
//! calls, and tidies up.

use super::header::{Function, Header, Struct, Variable};
use super::recipes::Recipe;
use std::fmt::Write as _;

/// A number that is refused wherever not every number is legal.
pub fn poison(ctype: &str) -> Option<&'static str> {
    match ctype {
        "uint32_t" => Some("UINT32_MAX"),
        "size_t" => Some("SIZE_MAX"),
        "double" => Some("(double)NAN"),
        _ => None,
    }
}

/// The first object that a function works on.
pub fn handle<'a>(header: &Header, f: &'a Function) -> Option<&'a Variable> {
    f.parameters.iter().find(|p| p.depth() == 1 && is_handle(header, p))
}

/// Whether two threads may call a function at the same time with the same object.
pub fn is_shared(header: &Header, f: &Function) -> bool {
    handle(header, f).is_none_or(Variable::is_const)
}

fn is_handle(header: &Header, p: &Variable) -> bool {
    p.noun().is_some_and(|n| header.handles.iter().any(|h| h == n))
}

fn short(noun: &str) -> &str {
    noun.trim_start_matches("mmopt_")
}

/// The options struct that a function takes, if any.
pub fn options<'a>(header: &'a Header, f: &Function) -> Option<(usize, &'a Struct)> {
    let find = |(i, p): (usize, &Variable)| {
        let s = header.structure(p.noun()?).filter(|s| s.is_options())?;
        (p.is_const() && p.depth() == 1).then_some((i, s))
    };
    f.parameters.iter().enumerate().find_map(find)
}

/// Whether `world.h` has a function of that name.
fn has(name: &str) -> bool {
    include_str!("world.h").contains(&format!(" {name}("))
}

/// What a parameter needs around the call: lines before, the argument, lines after.
struct Argument {
    before: String,
    value: String,
    after: String,
}

fn plain(value: impl Into<String>) -> Argument {
    Argument { before: String::new(), value: value.into(), after: String::new() }
}

/// A place for a result.
fn place(p: &Variable, after: String) -> Argument {
    let target = p.ctype.strip_suffix('*').expect("an output is a pointer").trim_end();
    let before =
        format!("    {target} made_{0};\n    memset(&made_{0}, 0, sizeof made_{0});\n", p.name);
    Argument { before, value: format!("&made_{}", p.name), after }
}

fn argument(header: &Header, f: &Function, p: &Variable, recipe: &Recipe) -> Argument {
    if let Some(value) = recipe.good(p) {
        return plain(value);
    }
    let noun = p.noun().unwrap_or_default();
    if p.ctype.ends_with("_fn") {
        let name = format!("on_{}", short(&p.ctype).trim_end_matches("_fn"));
        return plain(if has(&name) { &name } else { "NULL" });
    }
    if is_handle(header, p) {
        let noun = short(noun);
        return match (p.depth(), p.is_const()) {
            (1, _) if f.is_free() => plain(format!("take_{noun}(w)")),
            (1, _) => plain(format!("w->{noun}")),
            (_, true) => plain(format!("({})w->{noun}s", p.ctype)),
            _ => place(p, format!("    keep_{noun}(w, made_{});\n", p.name)),
        };
    }
    if let Some(s) = header.structure(noun).filter(|_| p.depth() == 1) {
        if !p.is_const() {
            return place(p, String::new());
        }
        if s.is_options() {
            let (kind, name) = (short(noun), &p.name);
            let before = format!("    {noun} o_{name};\n    make_{kind}(w, &o_{name}, t.field);\n");
            return Argument { before, value: format!("&o_{name}"), after: String::new() };
        }
    }
    let frees = |text: &str| format!("    {text}(made_{});\n", p.name);
    match p.ctype.as_str() {
        "char **" => place(p, frees("mmopt_string_free")),
        "const char *" => plain("text(w, \"x\")"),
        "void *" => plain("w"),
        "size_t" => plain("at(w, 0)"),
        "uint64_t" => plain("at(w, 1)"),
        "uint32_t" => plain("1"),
        "double" => plain("0.25"),
        t if t.ends_with("**") || !t.starts_with("const ") && t.ends_with('*') => {
            place(p, String::new())
        }
        _ => panic!("tests/abi/recipes.txt needs a line '{} {} = ...'", f.name, p.name),
    }
}

/// `0` for text that says nothing, as C.
fn nothing(f: &Function) -> &'static str {
    match f.returns.as_str() {
        "const char *" => "result == NULL || result[0] == 0",
        "double" => "result == 0 || isnan(result)",
        "int64_t" => "result == -1",
        t if t.ends_with('*') => "result == NULL",
        _ => "result == 0",
    }
}

fn call(header: &Header, i: usize, f: &Function, recipe: &Recipe) -> String {
    let mut text = format!("static struct result call_{i}(struct world *w, struct twist t)\n{{\n");
    text.push_str("    struct result o = {0, 0, 0, 0};\n    (void)w, (void)t;\n");
    if let Some(before) = recipe.value("before") {
        writeln!(text, "    if (!w->fuzz && !w->is_thread) {{ {before} }}").unwrap();
    }
    let (mut names, mut after) = (Vec::new(), String::new());
    for (k, p) in f.parameters.iter().enumerate() {
        let a = argument(header, f, p, recipe);
        text.push_str(&a.before);
        let value = match poison(&p.ctype) {
            Some(bad) => format!("t.number == {k} ? {bad} : ({})({})", p.ctype, a.value),
            None if p.is_pointer() => format!("t.null == {k} ? NULL : {}", a.value),
            None => a.value,
        };
        writeln!(text, "    {} given_{} = {value};", p.ctype, p.name).unwrap();
        names.push(format!("given_{}", p.name));
        after.push_str(&a.after);
    }
    let list = names.join(", ");
    match f.returns.as_str() {
        "void" => writeln!(text, "    {}({list});\n    o.nothing = 1;", f.name),
        "mmopt_error *" => writeln!(text, "    judge(w, &o, {}({list}));", f.name),
        t => {
            writeln!(text, "    {t} result = {}({list});\n    o.nothing = {};", f.name, nothing(f))
        }
    }
    .unwrap();
    text.push_str(&after);
    if let Some(after) = recipe.value("after") {
        writeln!(text, "    {after}").unwrap();
    }
    text + "    return o;\n}\n\n"
}

/// Sets a field to what is refused; the fields count from 0.
fn options_maker(s: &Struct) -> String {
    let tweak = format!("tweak_{}", short(&s.name));
    let mut text = format!(
        "static inline void make_{0}(struct world *w, {1} *o, int field)\n{{\n    {1}_init(o{2});\n    \
         {3}switch (field) {{\n",
        short(&s.name),
        s.name,
        if s.name == "mmopt_trainer_options" { ", MMOPT_PRESET_DEFAULT" } else { "" },
        if has(&tweak) { format!("{tweak}(w, o);\n    ") } else { String::new() },
    );
    for (i, f) in s.fields.iter().enumerate() {
        let bad = if f.name == "struct_size" { Some("3") } else { poison(&f.ctype) };
        if let Some(bad) = bad.filter(|_| f.ctype != "size_t" || f.name == "struct_size") {
            writeln!(text, "    case {i}: o->{} = {bad}; break;", f.name).unwrap();
        }
    }
    text + "    default: break;\n    }\n    (void)w;\n}\n\n"
}

/// Slots for random calls: an object that is made goes into one, one that is freed leaves it.
fn keeper(noun: &str) -> String {
    let kind = short(noun);
    format!(
        "static void keep_{kind}(struct world *w, {noun} *made)\n{{\n    \
         if (made != NULL && w->slots != NULL) {{\n        {noun} **slot = \
         &w->slots->{kind}[below(w, N_SLOTS)];\n        {noun}_free(*slot);\n        \
         *slot = made;\n        replaced_{kind}(w, slot);\n    }} else {{\n        \
         {noun}_free(made);\n    }}\n}}\n\n\
         static {noun} *take_{kind}(struct world *w)\n{{\n    if (!w->fuzz)\n        \
         return fresh_{kind}(w);\n    if (w->slots == NULL)\n        return NULL;\n    \
         {noun} **slot = &w->slots->{kind}[below(w, N_SLOTS)], *taken = *slot;\n    \
         *slot = NULL;\n    replaced_{kind}(w, slot);\n    return taken;\n}}\n\n"
    )
}

/// The world's objects, as fields.
fn objects(header: &Header, dimensions: &str) -> String {
    let one = |h: &String| format!("    {h} *{}{dimensions};\n", short(h));
    header.handles.iter().map(one).collect()
}

/// Draws every object of the world from the slots.
fn draw(header: &Header) -> String {
    let one = |h: &String| {
        let kind = short(h);
        format!("    w->{kind} = w->slots->{kind}[w->slot_of_{kind} = below(w, N_SLOTS)];\n")
    };
    let all: String = header.handles.iter().map(one).collect();
    format!("static inline void draw_objects(struct world *w)\n{{\n{all}}}\n\n")
}

fn free_all(header: &Header) -> String {
    let one = |h: &String| format!("        {h}_free(slots->{}[i]);\n", short(h));
    let all: String = header.handles.iter().map(one).collect();
    format!(
        "static inline void free_slots(struct slots *slots)\n{{\n    \
         for (int i = 0; i < N_SLOTS; i++) {{\n{all}    }}\n}}\n\n"
    )
}

fn parameter_row(f: &Function, k: usize, recipe: &Recipe) -> String {
    let p = &f.parameters[k];
    let null = match (p.is_pointer(), recipe.may_be_null(f, p)) {
        (false, _) => "NONE",
        (true, true) => "ALLOWED",
        (true, false) => "REFUSED",
    };
    let number = match (poison(&p.ctype), recipe.takes_any(&p.name)) {
        (None, _) => "NONE",
        (Some(_), true) => "ALLOWED",
        (Some(_), false) => "REFUSED",
    };
    format!("{{\"{}\", {null}, {number}}}", p.name)
}

fn table(header: &Header, recipes: &str) -> String {
    let mut rows = String::new();
    for (i, f) in header.functions.iter().enumerate() {
        let recipe = Recipe::of(recipes, &f.name);
        let parameters: Vec<_> =
            (0..f.parameters.len()).map(|k| parameter_row(f, k, &recipe)).collect();
        let mut fields = Vec::new();
        if let Some((k, s)) = options(header, f) {
            let what = &f.parameters[k].name;
            for (j, field) in s.fields.iter().enumerate() {
                let is_size = field.name == "struct_size";
                let bad = is_size || field.ctype != "size_t" && poison(&field.ctype).is_some();
                if bad && !recipe.takes_any(&format!("{what}.{}", field.name)) {
                    fields.push(format!("{{\"{}\", {j}}}", field.name));
                }
            }
        }
        let empty = |list: Vec<String>, none: &str| {
            if list.is_empty() { none.to_owned() } else { list.join(", ") }
        };
        writeln!(
            rows,
            "    {{\"{}\", call_{i}, {}, {}, {}, {}, {{{}}}, {}, {{{}}}}},",
            f.name,
            u8::from(f.can_fail()),
            u8::from(is_shared(header, f)),
            u8::from(f.is_free()),
            f.parameters.len(),
            empty(parameters, "{NULL, NONE, NONE}"),
            fields.len(),
            empty(fields, "{NULL, 0}"),
        )
        .unwrap();
    }
    format!(
        "static const struct function functions[] = {{\n{rows}}};\n\
         enum {{ N_FUNCTIONS = {} }};\n",
        header.functions.len()
    )
}

/// The whole: types, what the world needs, calls, the table of them.
pub fn source(header: &Header, recipes: &str) -> String {
    let slot_numbers: String =
        header.handles.iter().map(|h| format!("    unsigned slot_of_{};\n", short(h))).collect();
    let hooks: String = header
        .handles
        .iter()
        .map(|h| {
            let kind = short(h);
            format!(
                "static {h} *fresh_{kind}(struct world *w);\n\
             static void replaced_{kind}(struct world *w, {h} **slot);\n"
            )
        })
        .collect();
    let mut text = format!(
        "struct slots {{\n{}}};\n#define WORLD_OBJECTS \\\n{}{}\n\n#include \"world.h\"\n\n{hooks}\n",
        objects(header, "[N_SLOTS]"),
        objects(header, "").replace('\n', " \\\n"),
        slot_numbers.replace('\n', " \\\n"),
    );
    text = format!("#include <mmopt.h>\n\nenum {{ N_SLOTS = 4 }};\n{text}");
    for s in header.structs.iter().filter(|s| s.is_options()) {
        text.push_str(&options_maker(s));
    }
    for h in &header.handles {
        text.push_str(&keeper(h));
    }
    text.push_str(&draw(header));
    text.push_str(&free_all(header));
    for (i, f) in header.functions.iter().enumerate() {
        text.push_str(&call(header, i, f, &Recipe::of(recipes, &f.name)));
    }
    text + &table(header, recipes)
}
