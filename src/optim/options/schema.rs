//! The options as JSON: one schema, made from the types, decides what keys, types and ranges there
//! are, for JSON texts and for structs alike.

use super::Options;
use crate::error::{Error, Result};
use crate::optim::plan::role::RoleOverride;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// docs/options.schema.json: the schema of [`Options`], in JSON Schema's draft 2020-12; that of
/// [`RoleOverride`] is one of its definitions.
pub fn options_schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        generator.subschema_for::<RoleOverride>();
        generator.into_root_schema_for::<Options>().to_value()
    });
    &SCHEMA
}

impl Options {
    /// These options with the keys of a JSON object over them: objects are merged key by key,
    /// anything else is replaced, what is not named stays. The result is checked as by
    /// [`Options::validate`]. The error names the key, where it stands and what is allowed.
    pub fn with_json(&self, json: &str) -> Result<Self> {
        self.check_fields()?;
        let over = object(json)?;
        let mut all = serde_json::to_value(self).map_err(unreadable)?;
        merge(&mut all, over);
        Schema::root(options_schema()).check(&all).map_err(Error::invalid)?;
        let options: Self = serde_json::from_value(all).map_err(unreadable)?;
        options.validate()?;
        Ok(options)
    }
}

impl RoleOverride {
    /// A role from a JSON object. The error names the key, where it stands and what is allowed.
    pub fn from_json(json: &str) -> Result<Self> {
        let (root, role) = (options_schema(), object(json)?);
        let schema = Schema { node: &root["$defs"]["RoleOverride"], root };
        schema.check(&role).map_err(Error::invalid)?;
        serde_json::from_value(role).map_err(unreadable)
    }
}

/// What the schema lets through and the types do not: a number that no machine integer holds.
fn unreadable(e: serde_json::Error) -> Error {
    Error::invalid("a number is out of its type's range").with_source(e)
}

fn object(json: &str) -> Result<Value> {
    let value: Value = serde_json::from_str(json).map_err(|e| {
        let text = format!("not JSON: line {}, column {}", e.line(), e.column());
        Error::invalid(text).with_source(e)
    })?;
    if value.is_object() {
        return Ok(value);
    }
    Err(Error::invalid(format!("must be a JSON object, not {}", shown(&value))))
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// A JSON value for a message: one line of at most about 60 characters.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A node of a schema, in the part of JSON Schema that schemars makes of our types.
#[derive(Clone, Copy)]
pub(super) struct Schema<'a> {
    node: &'a Value,
    root: &'a Value,
}

impl<'a> Schema<'a> {
    pub fn root(root: &'a Value) -> Self {
        Self { node: root, root }
    }

    fn at(self, node: &'a Value) -> Self {
        Self { node, ..self }
    }

    pub fn definition(self, name: &str) -> Self {
        self.at(&self.root["$defs"][name])
    }

    /// A keyword of this very node: `description`, `default`, `examples`.
    pub fn keyword(self, name: &str) -> &'a Value {
        &self.node[name]
    }

    /// The node that says what a value other than null is, and whether null is one.
    pub fn resolved(self) -> (Self, bool) {
        if let Some(reference) = self.node["$ref"].as_str() {
            return self.definition(reference.rsplit('/').next().unwrap_or_default()).resolved();
        }
        let is_null = |s: &&Value| s["type"] == "null";
        if let Some(branches) = self.node["anyOf"].as_array() {
            let some = branches.iter().find(|s| !is_null(s)).unwrap_or(&Value::Null);
            return (self.at(some).resolved().0, branches.iter().any(|s| is_null(&s)));
        }
        let types = self.node["type"].as_array();
        (self, types.is_some_and(|t| t.iter().any(|t| t == "null")))
    }

    /// `object`, `array`, `string`, `boolean`, `integer` or `number`, of a resolved node.
    fn kind(self) -> &'a str {
        let kinds = &self.node["type"];
        let not_null = |t: &&Value| *t != "null";
        let kind = kinds.as_array().and_then(|t| t.iter().find(not_null)).unwrap_or(kinds);
        kind.as_str().unwrap_or_default()
    }

    /// The keys of an object.
    pub fn properties(self) -> impl Iterator<Item = (&'a str, Self)> {
        let properties = self.node["properties"].as_object();
        properties.into_iter().flatten().map(move |(key, node)| (key.as_str(), self.at(node)))
    }

    /// What each element of an array is.
    pub fn items(self) -> Option<Self> {
        self.node.get("items").map(|node| self.at(node))
    }

    pub fn requires(self, key: &str) -> bool {
        self.node["required"].as_array().is_some_and(|r| r.iter().any(|r| r == key))
    }

    /// The names of an enumeration, each with its meaning.
    pub fn names(self) -> Vec<(&'a str, &'a str)> {
        let described = |s: &'a Value| Some((s["const"].as_str()?, s["description"].as_str()?));
        let of = |list: &str| self.node[list].as_array().into_iter().flatten();
        let plain = of("enum").filter_map(|name| Some((name.as_str()?, "")));
        of("oneOf").filter_map(described).chain(plain).collect()
    }

    /// What a value may be: `a number in [0, 1)`, `one of mean, sum`.
    pub fn expected(self) -> String {
        let (node, null) = self.resolved();
        let or_null = if null { " or null" } else { "" };
        let names: Vec<&str> = node.names().into_iter().map(|(name, _)| name).collect();
        if !names.is_empty() {
            return format!("one of {}{or_null}", names.join(", "));
        }
        let kind = match node.kind() {
            "object" => "an object",
            "array" => "an array",
            "string" => "a string",
            "boolean" if null => return "true, false or null".to_owned(),
            "boolean" => "true or false",
            "integer" => "an integer",
            _ => "a number",
        };
        format!("{kind}{}{or_null}", node.range())
    }

    /// ` in [0, 1)`, ` > 0`, ` of at least 2 elements`, or nothing.
    fn range(self) -> String {
        let of = |keyword: &str| &self.node[keyword];
        let n = |v: &Value| v.as_f64().map_or_else(|| v.to_string(), |x| x.to_string());
        let low = [("minimum", "["), ("exclusiveMinimum", "(")];
        let high = [("maximum", "]"), ("exclusiveMaximum", ")")];
        let find = |ends: [(&'static str, &'static str); 2]| {
            ends.into_iter().find(|(k, _)| of(k).is_number()).map(|(k, b)| (n(of(k)), b))
        };
        match (find(low), find(high)) {
            (Some((a, open)), Some((b, close))) => return format!(" in {open}{a}, {b}{close}"),
            (Some((a, "[")), None) => return format!(" >= {a}"),
            (Some((a, _)), None) => return format!(" > {a}"),
            _ => {}
        }
        match (of("minItems").as_u64(), of("maxItems").as_u64()) {
            (Some(a), Some(b)) if a == b => format!(" of {a} elements"),
            (Some(a), _) => format!(" of at least {a} elements"),
            _ => String::new(),
        }
    }

    /// Fails where a value is not what the schema says.
    pub fn check(self, value: &Value) -> Result<(), String> {
        self.check_at(value, "", "null")
    }

    /// As `check`; `null` is what a message calls a null.
    pub fn check_at(self, value: &Value, path: &str, null: &str) -> Result<(), String> {
        let (node, nullable) = self.resolved();
        if value.is_null() && nullable {
            return Ok(());
        }
        let fits = match value {
            Value::String(text) if node.kind() == "string" || !node.names().is_empty() => {
                let names = node.names();
                names.is_empty() || names.iter().any(|(name, _)| name == text)
            }
            Value::Object(map) if node.kind() == "object" => {
                return node.check_object(map, path, null);
            }
            Value::Array(list) if node.kind() == "array" && node.has_length(list.len()) => {
                let Some(items) = node.items() else { return Ok(()) };
                let mut elements = list.iter().enumerate();
                return elements
                    .try_for_each(|(i, v)| items.check_at(v, &format!("{path}[{i}]"), null));
            }
            Value::Bool(_) => node.kind() == "boolean",
            Value::Number(n) => match node.kind() {
                "integer" => (n.is_u64() || n.is_i64()) && node.has_in_range(value),
                "number" => node.has_in_range(value),
                _ => false,
            },
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let found = if value.is_null() { null.to_owned() } else { shown(value) };
        Err(format!("{path} must be {}, not {found}", self.expected()))
    }

    fn check_object(self, map: &Map<String, Value>, path: &str, null: &str) -> Result<(), String> {
        let below = |key: &str| match path {
            "" => key.to_owned(),
            _ => format!("{path}.{key}"),
        };
        for (key, value) in map {
            if self.node["additionalProperties"].is_object() {
                self.at(&self.node["additionalProperties"]).check_at(value, &below(key), null)?;
                continue;
            }
            let Some((_, node)) = self.properties().find(|(known, _)| known == key) else {
                let place = if path.is_empty() { String::new() } else { format!(" in {path}") };
                let distance = |known: &&str| strsim::damerau_levenshtein(key, known);
                let known = self.properties().map(|(known, _)| known).min_by_key(distance);
                // One that looks like nothing here is no misspelling.
                let near = known.filter(|known| strsim::jaro_winkler(key, known) >= 0.7);
                return Err(match near {
                    Some(near) => {
                        format!("unknown key '{key}'{place}; the nearest known one is '{near}'")
                    }
                    None => format!("unknown key '{key}'{place}; docs/options.md lists the keys"),
                });
            };
            node.check_at(value, &below(key), null)?;
        }
        for (key, node) in self.properties() {
            if self.requires(key) && !map.contains_key(key) {
                let expected = node.expected();
                return Err(format!("{} is missing; it must be {expected}", below(key)));
            }
        }
        Ok(())
    }

    fn has_length(self, n: usize) -> bool {
        let bound = |keyword: &str| self.node[keyword].as_u64().map(|n| n as usize);
        bound("minItems").is_none_or(|least| n >= least)
            && bound("maxItems").is_none_or(|most| n <= most)
    }

    fn has_in_range(self, value: &Value) -> bool {
        let Some(x) = value.as_f64() else { return false };
        let holds = |keyword: &str, f: fn(f64, f64) -> bool| {
            self.node[keyword].as_f64().is_none_or(|bound| f(x, bound))
        };
        holds("minimum", |x, b| x >= b)
            && holds("maximum", |x, b| x <= b)
            && holds("exclusiveMinimum", |x, b| x > b)
            && holds("exclusiveMaximum", |x, b| x < b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(json: &str, message: &str) {
        assert_eq!(Options::default().with_json(json).unwrap_err().message(), message, "{json}");
    }

    #[test]
    fn the_error_names_key_place_and_what_is_allowed() {
        refuses(
            r#"{"param_groups": [{"patern": "*bias", "weight_decay": 0.5}]}"#,
            "unknown key 'patern' in param_groups[0]; the nearest known one is 'pattern'",
        );
        refuses(
            r#"{"warmpu_steps": 5}"#,
            "unknown key 'warmpu_steps'; the nearest known one is 'warmup_steps'",
        );
        refuses(
            r#"{"one_cycle": {"pct": 0.5}}"#,
            "unknown key 'pct' in one_cycle; the nearest known one is 'pct_start'",
        );
        refuses(r#"{"beta1": 1}"#, "beta1 must be a number in [0, 1), not 1");
        refuses(r#"{"beta1": null}"#, "beta1 must be a number in [0, 1), not null");
        refuses(r#"{"warmup_steps": 1.5}"#, "warmup_steps must be an integer >= 0, not 1.5");
        refuses(
            r#"{"gradient_accumulation": "avg"}"#,
            "gradient_accumulation must be one of weighted_mean, mean, sum, not \"avg\"",
        );
        refuses(
            r#"{"share_policy": "custom", "share_groups": [{"name": "x", "members": []}]}"#,
            "share_groups[0].members must be an array of at least 2 elements, not []",
        );
        refuses(
            r#"{"share_influence": [{"from": "a", "to": "b"}]}"#,
            "share_influence[0].amount is missing; it must be a number in [0, 1]",
        );
        refuses("[1]", "must be a JSON object, not [1]");
        refuses("{", "not JSON: line 1, column 1");
    }

    #[test]
    fn objects_are_merged_key_by_key() {
        let base = Options { published_multiplier: None, ..Options::default() };
        let one = base.with_json(r#"{"plateau": {"factor": 0.5}}"#).unwrap();
        let two = one.with_json(r#"{"plateau": {"patience": 3}, "eps": 1e-6}"#).unwrap();
        assert_eq!((two.plateau.factor, two.plateau.patience, two.eps), (0.5, 3, 1e-6));
        let three = two.with_json(r#"{"published_multiplier": {"cosine": true}}"#).unwrap();
        assert_eq!(three.published_multiplier.map(|m| (m.warmup_steps, m.cosine)), Some((0, true)));
        assert_eq!(three.plateau, two.plateau);
    }

    #[test]
    fn a_map_has_keys_of_its_own() {
        let options = Options::default().with_json(r#"{"placement": {"bert": 0, "a b": 1}}"#);
        let placement = options.unwrap().placement.unwrap();
        assert_eq!((placement["bert"], placement["a b"]), (0, 1));
        refuses(r#"{"placement": {"bert": -1}}"#, "placement.bert must be an integer >= 0, not -1");
        refuses(
            r#"{"placement": ["bert"]}"#,
            "placement must be an object or null, not [\"bert\"]",
        );
    }

    #[test]
    fn a_role_says_which_role() {
        let check = |json: &str, part: &str| {
            let e = RoleOverride::from_json(json).unwrap_err();
            assert!(e.message().contains(part), "{e}");
        };
        check(r#"{"role":"attention_query","part":"weight","blok":0}"#, "known one is 'block'");
        check(r#"{"part":"weight"}"#, "role is missing");
        check(r#"{"role":"attention_qury","part":"weight"}"#, "one of token_embedding,");
        RoleOverride::from_json(r#"{"role":null,"part":"weight"}"#).unwrap();
    }
}
