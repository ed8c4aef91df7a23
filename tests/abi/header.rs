//! `include/mmopt.h` as data: functions, structs and enumerations. It reads what the build
//! script writes, no C at large.

/// A parameter or a field: its type as C writes it, and its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    pub ctype: String,
    pub name: String,
}

impl Variable {
    /// From `const char *const *texts` and the like.
    fn parse(text: &str) -> Self {
        let text = squeeze(text).replace("struct ", "");
        let text = text.split('[').next().unwrap_or_default().trim();
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let start = text.rfind(|c| !is_word(c)).map_or(0, |i| i + 1);
        Self { ctype: text[..start].trim().to_owned(), name: text[start..].to_owned() }
    }

    /// Callbacks count as pointers: C may give NULL for them.
    pub fn is_pointer(&self) -> bool {
        self.ctype.contains('*') || self.ctype.ends_with("_fn")
    }

    /// The `mmopt_x` behind the pointers, if it is one.
    pub fn noun(&self) -> Option<&str> {
        let base = self.ctype.trim_start_matches("const ");
        let base = base.split([' ', '*']).next().unwrap_or_default();
        (base.starts_with("mmopt_") && !base.ends_with("_fn")).then_some(base)
    }

    /// How many stars.
    pub fn depth(&self) -> usize {
        self.ctype.matches('*').count()
    }

    /// A pointer that the callee only reads through.
    pub fn is_const(&self) -> bool {
        self.ctype.starts_with("const ")
    }
}

/// An exported function.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub returns: String,
    pub parameters: Vec<Variable>,
    pub doc: String,
}

impl Function {
    /// Whether it returns an error.
    pub fn can_fail(&self) -> bool {
        self.returns == "mmopt_error *"
    }

    pub fn is_free(&self) -> bool {
        self.name.ends_with("_free")
    }
}

/// A struct whose fields C sees.
#[derive(Clone, Debug)]
pub struct Struct {
    pub name: String,
    pub fields: Vec<Variable>,
}

impl Struct {
    /// Whether it may grow: it begins with its size.
    pub fn is_options(&self) -> bool {
        self.fields.first().is_some_and(|f| f.name == "struct_size")
    }
}

/// An enumeration and its numbers.
#[derive(Clone, Debug)]
pub struct Enumeration {
    pub name: String,
    pub values: Vec<(String, String)>,
}

/// All of a header.
pub struct Header {
    pub functions: Vec<Function>,
    pub structs: Vec<Struct>,
    pub enumerations: Vec<Enumeration>,
    /// Opaque objects.
    pub handles: Vec<String>,
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The comment that ends right before `at`, without its stars.
fn comment_before(text: &str, at: usize) -> String {
    let before = text[..at].trim_end();
    let Some(body) = before.strip_suffix("*/") else { return String::new() };
    let body = body.rsplit("/**").next().unwrap_or_default();
    let lines = body.lines().map(|l| l.trim().trim_start_matches('*').trim());
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn without_comments(text: &str) -> String {
    let parts = text.split("/*");
    let code = parts.map(|p| p.split_once("*/").map_or(p, |(_, rest)| rest));
    code.collect::<String>().lines().filter(|l| !l.starts_with('#')).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    )
}

/// The text between `open` and the next `};` or `}` after it.
fn body(text: &str) -> &str {
    let open = text.find('{').map_or(0, |i| i + 1);
    &text[open..open + text[open..].find("\n}").unwrap_or(0)]
}

impl Header {
    pub fn parse(text: &str) -> Self {
        let starts = |word: &str| {
            let pattern = format!("\n{word}");
            text.match_indices(&pattern).map(|(i, _)| i + 1).collect::<Vec<_>>()
        };
        let functions = starts("MMOPT_API").into_iter().map(|at| function(text, at)).collect();
        let structs = starts("typedef struct ").into_iter().filter_map(|at| structure(text, at));
        let enums = starts("MMOPT_ENUM(").into_iter().map(|at| enumeration(text, at));
        let handles = starts("typedef struct ").into_iter().filter_map(|at| {
            let line = text[at..].lines().next()?.strip_suffix(';')?;
            Some(line.split_whitespace().last()?.to_owned())
        });
        Self {
            functions,
            structs: structs.collect(),
            enumerations: enums.collect(),
            handles: handles.collect(),
        }
    }

    pub fn structure(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|s| s.name == name)
    }
}

fn function(text: &str, at: usize) -> Function {
    let end = at + text[at..].find(';').expect("a declaration ends");
    let flat = text[at..end].replace("MMOPT_API", "").replace("MMOPT_MUST_USE", "");
    let (head, parameters) = flat.split_once('(').expect("a function has parameters");
    let head = Variable::parse(head);
    let parameters = parameters.trim_end().trim_end_matches(')');
    let parameters = match parameters.trim() {
        "void" => Vec::new(),
        list => list.split(',').map(Variable::parse).collect(),
    };
    let doc = comment_before(text, at);
    Function { name: head.name, returns: head.ctype, parameters, doc }
}

fn structure(text: &str, at: usize) -> Option<Struct> {
    let name = text[at..].lines().next()?.strip_suffix(" {")?.split_whitespace().last()?;
    let fields = without_comments(body(&text[at..]));
    let fields = fields.split(';').map(str::trim).filter(|f| !f.is_empty());
    Some(Struct { name: name.to_owned(), fields: fields.map(Variable::parse).collect() })
}

fn enumeration(text: &str, at: usize) -> Enumeration {
    let name = text[at..].split(['(', ')']).nth(1).unwrap_or_default();
    let values = without_comments(body(&text[at..]));
    let pair = |v: &str| {
        let (name, number) = v.split_once('=')?;
        Some((name.trim().to_owned(), number.trim().to_owned()))
    };
    Enumeration { name: name.to_owned(), values: values.split(',').filter_map(pair).collect() }
}
