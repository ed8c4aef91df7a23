//! Every option key: refused when misspelt, merged over structs, held to its range, on the page.

use mmopt::optim::{Options, RoleOverride, options_markdown, options_schema};
use serde_json::{Map, Value, json};

/// A key of the schema: where it stands (`param_groups[0].pattern`), and its own schema.
struct Key {
    path: Vec<String>,
    node: Value,
}

fn resolved<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    if let Some(name) = node["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
        return resolved(root, &root["$defs"][name]);
    }
    match node["anyOf"].as_array() {
        Some(branches) => resolved(root, branches.iter().find(|b| b["type"] != "null").unwrap()),
        None => node,
    }
}

/// All keys of an object at every depth; an array's elements are entered at index 0.
fn keys(root: &Value, object: &Value, path: &[String], all: &mut Vec<Key>) {
    for (name, node) in object["properties"].as_object().into_iter().flatten() {
        let mut here = [path, std::slice::from_ref(name)].concat();
        all.push(Key { path: here.clone(), node: node.clone() });
        let mut inner = resolved(root, node);
        while let Some(items) = inner.get("items") {
            here.push("0".into());
            inner = resolved(root, items);
        }
        keys(root, inner, &here, all);
    }
}

fn all_keys() -> Vec<Key> {
    let (root, mut all) = (options_schema(), Vec::new());
    keys(root, root, &[], &mut all);
    all
}

/// A valid value for every key, those in arrays included, at least one element in each.
fn full() -> Value {
    let member = |param: &str| json!({ "model": "m", "param": param, "slice": [0, 1, 2] });
    let mut all = serde_json::to_value(Options::paper()).unwrap();
    let Value::Object(more) = json!({
        "lr_schedule": "linear",
        "total_steps": 9,
        "param_groups": [{ "pattern": "*bias", "lr_scale": 0.5 }],
        "share_policy": "custom",
        "share_groups": [{ "name": "g", "members": [member("a"), member("b")] }],
        "share_rule": "influence",
        "share_influence": [{ "to": "a", "from": "b", "amount": 0.5 }],
        "max_loss_increase": 0.1,
        "mutual": mmopt::optim::Mutual::default(),
        "start": "pretrained",
        "start_from": "m",
    }) else {
        panic!()
    };
    all.as_object_mut().unwrap().extend(more);
    all
}

fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Value {
    path.iter().fold(value, |value, step| match value {
        Value::Array(list) => &mut list[step.parse::<usize>().unwrap()],
        value => &mut value[step.as_str()],
    })
}

/// `share_groups[0].name` of a path.
fn shown(path: &[String]) -> String {
    path.iter().fold(String::new(), |text, step| match step.parse::<usize>() {
        Ok(i) => format!("{text}[{i}]"),
        Err(_) if text.is_empty() => step.clone(),
        Err(_) => format!("{text}.{step}"),
    })
}

/// The message with which a text over the defaults is refused.
fn refusal(json: &Value) -> String {
    match Options::default().with_json(&json.to_string()) {
        Ok(_) => panic!("{json} was taken"),
        Err(e) => e.message().to_owned(),
    }
}

#[test]
fn a_misspelt_key_is_refused_at_every_depth() {
    Options::default().with_json(&full().to_string()).unwrap();
    let all = all_keys();
    assert!(all.len() > 60, "{}", all.len());
    for key in &all {
        let (name, parent) = key.path.split_last().unwrap();
        let mut json = full();
        let object = at(&mut json, parent).as_object_mut().unwrap();
        // A letter twice: the misspelling is nearer to this key than to any other.
        let middle = name.len() / 2;
        let wrong = format!("{}{}", &name[..=middle], &name[middle..]);
        object.insert(wrong.clone(), json!(1));
        let place =
            if parent.is_empty() { String::new() } else { format!(" in {}", shown(parent)) };
        assert_eq!(
            refusal(&json),
            format!("unknown key '{wrong}'{place}; the nearest known one is '{name}'")
        );
    }
}

#[test]
fn a_value_of_another_type_is_refused_with_its_place() {
    let root = options_schema();
    for key in all_keys() {
        let node = resolved(root, &key.node);
        let text_or_null = json!(["string", "null"]);
        let is_text = (node["type"] == "string" || node["type"] == text_or_null)
            && node.get("oneOf").is_none();
        for wrong in [json!("no such"), json!({ "a": 1 }), json!([[]]), json!(-1)] {
            let is_map = node["additionalProperties"].is_object();
            if is_text && wrong.is_string() || is_map && wrong.is_object() {
                continue;
            }
            let mut json = full();
            *at(&mut json, &key.path) = wrong.clone();
            let message = refusal(&json);
            let (place, wrong) = (shown(&key.path), wrong.to_string());
            let names = message.starts_with(&format!("{place} must be "))
                && message.ends_with(&format!(", not {wrong}"));
            let below = message.contains(&format!(" in {place};"))
                || message.starts_with(&format!("{place}[0] must be "));
            assert!(names || below, "{place} = {wrong}: {message}");
            for word in ["expected", "invalid", "variant", "serde", "u64", "f64", "column"] {
                assert!(!message.contains(word), "{message}");
            }
        }
    }
}

#[test]
fn an_enumeration_lists_what_there_is() {
    let json = json!({ "share_rule": "gatet" });
    assert_eq!(
        refusal(&json),
        "share_rule must be one of none, mean, sum, gated, project, influence, not \"gatet\""
    );
}

/// Each number of the schema is refused just outside its range and taken at its end.
#[test]
fn ranges_are_held() {
    let root = options_schema();
    let mut n_bounds = 0;
    for key in all_keys() {
        let node = if key.node["$ref"].is_null() { &key.node } else { resolved(root, &key.node) };
        let types = node["type"].as_array().map_or(std::slice::from_ref(&node["type"]), |t| t);
        let is_integer = types.contains(&json!("integer"));
        let step = if is_integer { 1.0 } else { 1e-9 };
        let number = |x: f64| if is_integer { json!(x as i64) } else { json!(x) };
        let bounds = [
            ("minimum", -step, 0.0),
            ("maximum", step, 0.0),
            ("exclusiveMinimum", 0.0, step),
            ("exclusiveMaximum", 0.0, -step),
        ];
        for (keyword, outside, inside) in bounds {
            let Some(bound) = node[keyword].as_f64() else { continue };
            n_bounds += 1;
            let mut json = full();
            *at(&mut json, &key.path) = number(bound + outside);
            assert!(refusal(&json).starts_with(&format!("{} must be", shown(&key.path))));
            *at(&mut json, &key.path) = number(bound + inside);
            if let Err(e) = Options::default().with_json(&json.to_string()) {
                // In its range, but not beside the others: at most 0 steps of a schedule, ….
                assert!(!e.message().contains(" must be a number"), "{e}");
                assert!(!e.message().contains(" must be an integer"), "{e}");
            }
        }
    }
    assert!(n_bounds > 40, "{n_bounds}");
}

/// JSON over a struct that differs from every preset changes what it names and nothing else.
#[test]
fn json_leaves_the_other_fields() {
    let base = Options::default().with_json(&full().to_string()).unwrap();
    let before = serde_json::to_value(&base).unwrap();
    for key in all_keys().iter().filter(|k| k.path.iter().all(|step| step != "0")) {
        let Some(value) = key.node["examples"].as_array().and_then(|e| e.first()) else { continue };
        let mut over = value.clone();
        for step in key.path.iter().rev() {
            over = Value::Object(Map::from_iter([(step.clone(), over)]));
        }
        // Others that only go together with it.
        let needs = match key.path[0].as_str() {
            "max_grad_value" => json!({ "max_grad_norm": 0 }),
            "warmup_steps" => json!({ "total_steps": 10000 }),
            "share_policy" => json!({ "share_groups": [] }),
            "share_rule" => json!({ "share_influence": [] }),
            "share_influence" => json!({ "share_rule": "influence" }),
            _ => json!({}),
        };
        over.as_object_mut().unwrap().extend(needs.as_object().unwrap().clone());
        let after = base.with_json(&over.to_string()).unwrap_or_else(|e| panic!("{over}: {e}"));
        let mut expected = before.clone();
        merge(&mut expected, &over);
        assert_eq!(numbers(serde_json::to_value(&after).unwrap()), numbers(expected), "{over}");
    }
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            over.iter().for_each(|(k, v)| merge(base.entry(k).or_insert(Value::Null), v));
        }
        (base, over) => *base = over.clone(),
    }
}

/// 1 and 1.0 are one number; keys that a struct fills in are as good as named.
fn numbers(value: Value) -> Value {
    match value {
        Value::Number(n) => json!(n.as_f64()),
        Value::Array(list) => list.into_iter().map(numbers).collect(),
        Value::Object(map) => {
            let full = [("slice", Value::Null), ("transpose", json!(false))];
            let is_member = map.contains_key("param");
            let mut map: Map<String, Value> =
                map.into_iter().map(|(k, v)| (k, numbers(v))).collect();
            for (key, value) in full.into_iter().filter(|_| is_member) {
                map.entry(key).or_insert(value);
            }
            Value::Object(map)
        }
        value => value,
    }
}

#[test]
fn roles_are_refused_likewise() {
    let whole = json!({ "role": "attention_query", "part": "weight", "block": 0 });
    RoleOverride::from_json(&whole.to_string()).unwrap();
    for name in ["role", "part", "block", "layout"] {
        let mut json = whole.clone();
        json[format!("{name}x")] = json!(0);
        let e = RoleOverride::from_json(&json.to_string()).unwrap_err();
        assert!(e.message().ends_with(&format!("known one is '{name}'")), "{e}");
    }
}

#[test]
fn options_survive_json_of_their_own() {
    for options in [Options::default(), Options::paper(), Options::independent()] {
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(Options::adamw().with_json(&text).unwrap(), options);
    }
    // Nothing passes by the checks, either.
    assert!(serde_json::from_value::<Options>(json!({ "warmpu_steps": 5 })).is_err());
}

/// docs/options.md and docs/options.schema.json are what the types say. `MMOPT_UPDATE_OPTIONS=1` writes
/// them again. Each example on the page is taken.
#[test]
fn the_page_is_fresh() {
    let page = options_markdown();
    let schema = format!("{}\n", serde_json::to_string_pretty(options_schema()).unwrap());
    for (path, text) in [("docs/options.md", &page), ("docs/options.schema.json", &schema)] {
        if std::env::var_os("MMOPT_UPDATE_OPTIONS").is_some() {
            std::fs::write(path, text).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == *text,
            "{path} is stale; run `MMOPT_UPDATE_OPTIONS=1 cargo test --test optimizer options`"
        );
    }
    let (options, roles) = page.split_once("## The role of a parameter").unwrap();
    let examples = |text: &str| -> Vec<String> {
        let blocks = text.split("```json\n").skip(1);
        blocks.map(|block| block.split("\n```").next().unwrap().to_owned()).collect()
    };
    assert!(examples(options).len() > 55);
    for example in examples(options) {
        Options::default().with_json(&example).unwrap_or_else(|e| panic!("{example}: {e}"));
    }
    for example in examples(roles) {
        RoleOverride::from_json(&example).unwrap();
    }
}
