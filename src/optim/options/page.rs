//! docs/options.md, written from the schema of the options.

use std::fmt::Write;

use super::Options;
use super::schema::{Schema, options_schema};
use serde_json::{Map, Value, json};

/// docs/options.md: every key with its type, range, defaults and an example.
pub fn options_markdown() -> String {
    let root = options_schema();
    let options = Schema::root(root);
    let presets = [Options::default(), Options::paper()];
    let [default, paper] = presets.map(|p| serde_json::to_value(p).unwrap_or_default());
    let mut keys = Vec::new();
    list(options, "", &[&default, &paper], &mut keys);
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n| key | value | default | paper |\n|---|---|---|---|\n");
    for key in &keys {
        let [default, paper] = &key.defaults;
        let _ = writeln!(page, "| `{}` | {} | {default} | {paper} |", key.path, key.value);
    }
    page.push_str("\n## Meaning and an example of each\n");
    for key in &keys {
        key.describe(&mut page, |example| with(&key.path, example));
    }
    page.push_str(ROLES);
    let mut keys = Vec::new();
    list(options.definition("RoleOverride"), "", &[], &mut keys);
    for key in &keys {
        key.describe(&mut page, |example| {
            let mut role = json!({ "role": "attention_query", "part": "weight" });
            role[&key.path] = example;
            role
        });
    }
    page
}

/// The JSON object that sets the option at `path` (`param_groups[].pattern`) to `example`,
/// together with what it needs.
fn with(path: &str, example: Value) -> Value {
    let mut whole = nested(path, example);
    let (top, _) = path.split_once(['.', '[']).unwrap_or((path, ""));
    let needs = match top {
        "lr_schedule" => json!({ "total_steps": 10000 }),
        "max_grad_value" => json!({ "max_grad_norm": 0 }),
        "share_groups" => json!({ "share_policy": "custom" }),
        "share_influence" => json!({ "share_rule": "influence" }),
        _ => json!({}),
    };
    if let (Value::Object(whole), Value::Object(needs)) = (&mut whole, needs) {
        whole.extend(needs);
    }
    whole
}

fn nested(path: &str, example: Value) -> Value {
    let Some((outer, key)) = path.rsplit_once('.') else {
        return Value::Object(Map::from_iter([(path.to_owned(), example)]));
    };
    let object = json!({ key: example });
    match outer.strip_suffix("[]") {
        Some(outer) => nested(outer, json!([object])),
        None => nested(outer, object),
    }
}

/// One key of the page.
struct Key<'a> {
    path: String,
    schema: Schema<'a>,
    value: String,
    defaults: [String; 2],
    example: Option<&'a Value>,
}

impl Key<'_> {
    fn describe(&self, page: &mut String, example: impl Fn(Value) -> Value) {
        let _ = write!(page, "\n### `{}`\n\n", self.path);
        page.push_str(&prose(self.schema.keyword("description")));
        let (node, _) = self.schema.resolved();
        let meanings = node.names().into_iter().filter(|(_, meaning)| !meaning.is_empty());
        for (i, (name, meaning)) in meanings.enumerate() {
            page.push_str(if i == 0 { "\n" } else { "" });
            let _ = writeln!(page, "* `{name}`: {}", prose(&meaning.into()).trim_end());
        }
        if let Some(value) = self.example {
            let _ = write!(page, "\n```json\n{}\n```\n", example(value.clone()));
        }
    }
}

/// The keys of an object and, below each, those of the objects in it.
fn list<'a>(object: Schema<'a>, path: &str, presets: &[&Value], keys: &mut Vec<Key<'a>>) {
    let properties: Vec<_> = object.properties().collect();
    for (name, schema) in properties {
        let required = object.requires(name);
        let plain = schema.keyword("default");
        // What a preset without the whole object has is nothing.
        let of = |i: usize| match presets.get(i) {
            Some(Value::Null) => None,
            preset => Some(preset.and_then(|p| p.get(name)).unwrap_or(plain)),
        };
        let text = |value: Option<&Value>| match value {
            _ if required => "required".to_owned(),
            None => "–".to_owned(),
            Some(Value::Null) => "null".to_owned(),
            Some(Value::Object(_)) => "below".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let at = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        // A key that cannot stand without others is shown in the example of the whole.
        let stands = path.is_empty() || object.properties().all(|(name, _)| !object.requires(name));
        let examples = schema.keyword("examples").as_array().filter(|_| stands);
        let key = Key {
            example: examples.and_then(|e| e.first()),
            value: schema.expected().replace('|', "\\|"),
            defaults: [text(of(0)), text(of(1))],
            path: at.clone(),
            schema,
        };
        let below = [of(0), of(1)].map(|v| v.cloned().unwrap_or_default());
        keys.push(key);
        let (node, _) = schema.resolved();
        match node.items() {
            Some(items) => list(items.resolved().0, &format!("{at}[]"), &[], keys),
            None => list(node, &at, &[&below[0], &below[1]], keys),
        }
    }
}

/// A description as paragraphs.
fn prose(text: &Value) -> String {
    let mut prose = text.as_str().unwrap_or_default().replace('\n', " ");
    prose.push('\n');
    prose
}

const INTRODUCTION: &str = "\
# Options of the optimizer

This page is generated from the options' types (`src/optim`), as is `docs/options.schema.json`; a
test keeps both fresh. What the options do is in [optimizer.md](optimizer.md).

An option has one name everywhere: key of `options_json`, field of Rust's `Options` and, of many,
field of `mmopt_trainer_options`; C++ and Go spell it as they do. `options_json` takes any key of
this page; those that are no field of the struct in the header (`mutual`, `start`, `ema_decay`,
`metrics_every` and others) are set by it alone. It is merged over the struct: objects key by key,
anything else is replaced, and what it does not name stays. An unknown key, a value of another type
or out of its range is an error that names the key and what is allowed. `preset`, `device`,
`device_id`, `tf32`, `max_sessions` and `runtime_path` are fields of the struct alone. The columns
are the presets; what *paper* is, optimizer.md says. An object over a preset that has null there has
the type's own defaults in what it does not name: those of `mutual` are in
[optimizer.md](optimizer.md#mutual-learning).
";

const ROLES: &str = "
## The role of a parameter

`role_json` of `mmopt_parameter` overrides what the name says of a parameter; `role` and `part` are
required. Its forms:

```text
{\"role\": \"attention_query\", \"part\": \"weight\", \"block\": 3}
{\"role\": \"mlp_up\", \"part\": \"weight\", \"block\": 3, \"layout\": \"in_out\"}
{\"role\": \"attention_qkv\", \"part\": \"bias\", \"block\": 0}
{\"role\": null, \"part\": \"weight\"}
```

The first is one role of block 3. The second is stored `[in, out]`. `attention_qkv`, `cross_qkv` and
`mlp_gate_up` are parameters that hold query, key and value (or gate and up) one after the other:
each shares as its parts do. The last is in no group.
";
