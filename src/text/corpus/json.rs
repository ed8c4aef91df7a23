//! JSON objects in files: one on each line, or the elements of one array; and their fields.
//!
//! *path*: names and positions with dots between them: `answers.0.text` is the `text` of the first
//! element of `answers`. A key that is the whole path wins.

use crate::error::{Error, Result};
use crate::memory::push;
use crate::text::text_file::{at, lines};
use serde_json::Value;
use std::path::Path;

/// Most keys that an error lists.
const LISTED: usize = 12;

/// Calls `each` with every object of a file and the line where it begins.
///
/// Errors name file and line: bad JSON, an array that is not closed; those of `each` get them.
pub(super) fn for_each_object(
    path: &Path,
    text: &str,
    mut each: impl FnMut(usize, &Value) -> Result<()>,
) -> Result<()> {
    let mut one = |line: usize, content: &str, how: &str| {
        let value = parse(path, line, content, how)?;
        each(line, &value).map_err(|e| e.context(format!("{}:{line}", path.display())))
    };
    if !text.trim_start().starts_with('[') {
        let rows = lines(text).filter(|(_, content)| !content.trim().is_empty());
        let how = "; each line must be one JSON object, or the file one array of them";
        return rows.into_iter().try_for_each(|(line, content)| one(line, content, how));
    }
    for (line, content) in elements(path, text)? {
        one(line, content, "")?;
    }
    Ok(())
}

/// Parses what begins in a line of a file.
pub(super) fn parse(path: &Path, line: usize, content: &str, how: &str) -> Result<Value> {
    let start = content.trim_start();
    if !start.starts_with('{') {
        let begin: String = start.chars().take(20).collect();
        let what = format!("'{begin}' is no JSON object{how}");
        return Err(at(path, line, what));
    }
    serde_json::from_str(content).map_err(|e| {
        let (row, column) = (e.line().max(1), e.column());
        let what = match e.is_eof() {
            true => format!("the JSON object ends too early{how}"),
            false => format!("not JSON at column {column}"),
        };
        at(path, line + row - 1, what).with_source(e)
    })
}

/// The elements of an array that is a whole file, with the line where each begins.
fn elements<'a>(path: &Path, text: &'a str) -> Result<Vec<(usize, &'a str)>> {
    let mut all = Vec::new();
    let (mut line, mut depth, mut quoted, mut escaped) = (1, 0usize, false, false);
    // A line counts from the first byte of the element that is no white space.
    // The element that is being read: its first byte, and its line once it has begun.
    let (mut start, mut begins, mut opened, mut end) = (0, None, 0, None);
    for (i, byte) in text.bytes().enumerate() {
        let ends_element = depth == 1 && !quoted && (byte == b',' || byte == b']');
        if depth == 1 && begins.is_none() && !ends_element && !byte.is_ascii_whitespace() {
            begins = Some(line);
        }
        match byte {
            b'\n' => line += 1,
            _ if quoted && escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' if depth == 0 => (depth, start, opened) = (1, i + 1, line),
            b'[' | b'{' => depth += 1,
            b',' | b']' if depth == 1 => {
                match begins.take() {
                    Some(line) => push(&mut all, (line, text[start..i].trim_start()))?,
                    // Nothing is allowed between the brackets of an empty array alone.
                    None if byte == b']' && all.is_empty() => {}
                    None => return Err(at(path, line, "an element of the array is missing")),
                }
                start = i + 1;
                if byte == b']' {
                    end = Some(i + 1);
                    break;
                }
            }
            b'}' if depth == 1 => return Err(at(path, line, "a '}' that closes nothing")),
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    let end = end.ok_or_else(|| {
        at(path, opened.max(1), "the array that opens here is not closed; is the file cut off?")
    })?;
    if !text[end..].trim().is_empty() {
        return Err(at(path, line, "something follows the array"));
    }
    Ok(all)
}

fn step<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key),
        Value::Array(all) => key.parse::<usize>().ok().and_then(|i| all.get(i)),
        _ => None,
    }
}

fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    step(value, path).or_else(|| {
        let mut dots = path.match_indices('.');
        dots.find_map(|(dot, _)| find(step(value, &path[..dot])?, &path[dot + 1..]))
    })
}

/// The value at a path; `option` is what chooses the path, for the error.
pub(super) fn lookup<'a>(value: &'a Value, path: &str, option: &str) -> Result<&'a Value> {
    find(value, path).ok_or_else(|| missing(value, path, option))
}

/// Says where a path ends, and what is there.
fn missing(value: &Value, path: &str, option: &str) -> Error {
    let (mut here, mut done) = (value, String::new());
    let mut lacking = path;
    while let Some((key, rest)) = lacking.split_once('.') {
        let Some(next) = step(here, key) else { break };
        (here, lacking) = (next, rest);
        done = if done.is_empty() { key.to_owned() } else { format!("{done}.{key}") };
    }
    let key = lacking.split_once('.').map_or(lacking, |(key, _)| key);
    let inside = if done.is_empty() { String::new() } else { format!(" in '{done}'") };
    let option = if option.is_empty() { String::new() } else { format!("; set {option}") };
    Error::data(format!("no key '{key}'{inside}; {}{option}", content(here)))
}

/// What a value has: its keys, or its length, or what it is.
fn content(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "the object is empty".to_owned(),
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().take(LISTED).map(|k| format!("'{k}'")).collect();
            let more = if map.len() > LISTED { ", ..." } else { "" };
            format!("the keys are {}{more}", keys.join(", "))
        }
        Value::Array(all) => format!("there is a list of {}", all.len()),
        other => format!("there is {}", kind(other)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A string at a path.
pub(super) fn string<'a>(value: &'a Value, path: &str, option: &str) -> Result<&'a str> {
    let found = lookup(value, path, option)?;
    found.as_str().ok_or_else(|| Error::data(format!("'{path}' is {}, not a string", kind(found))))
}

/// A class at a path: a number, a name, or true or false.
pub(super) fn scalar(value: &Value, path: &str, option: &str) -> Result<String> {
    match lookup(value, path, option)? {
        Value::String(text) if text.trim().is_empty() => {
            Err(Error::data(format!("'{path}' is empty")))
        }
        Value::String(text) => Ok(text.clone()),
        Value::Number(n) => Ok(match n.as_f64() {
            Some(f) if n.as_i64().is_none() && f.fract() == 0.0 => format!("{f:.0}"),
            _ => n.to_string(),
        }),
        Value::Bool(b) => Ok(b.to_string()),
        other => {
            Err(Error::data(format!("'{path}' is {}, neither a number nor a name", kind(other))))
        }
    }
}

/// A list at a path.
pub(super) fn list<'a>(value: &'a Value, path: &str) -> Result<&'a Vec<Value>> {
    let found = lookup(value, path, "")?;
    found.as_array().ok_or_else(|| Error::data(format!("'{path}' is {}, not a list", kind(found))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects(text: &str) -> Result<Vec<(usize, Value)>> {
        let mut all = Vec::new();
        for_each_object(Path::new("a.json"), text, |line, value| {
            all.push((line, value.clone()));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn lines_and_arrays() {
        let expect = [(1, json!({"a": "]\"}"})), (3, json!({"b": [1, {"c": 2}]}))];
        assert_eq!(objects("{\"a\":\"]\\\"}\"}\n\n{\"b\":[1,{\"c\":2}]}\n").unwrap(), expect);
        let array = "[{\"a\":\"]\\\"}\"},\n\n {\"b\":[1,\n{\"c\":2}]} ]\n\n";
        assert_eq!(objects(array).unwrap(), expect);
        assert_eq!(objects(" [ ]").unwrap(), []);
        assert_eq!(objects("").unwrap(), []);
    }

    #[test]
    fn errors_say_where() {
        let check = |text: &str, expect: &str| {
            let e = objects(text).unwrap_err();
            assert!(e.message().starts_with(expect), "{e}");
        };
        check("{}\n{", "a.json:2: the JSON object ends too early");
        check("{\n\"a\": 1\n}", "a.json:1: the JSON object ends too early");
        assert!(objects("{\n}").unwrap_err().message().contains("or the file one array of them"));
        check("text\tlabel\n", "a.json:1: 'text\tlabel' is no JSON object; each line must be");
        check("[{},\n{\"a\":\n1,}]", "a.json:3: not JSON at column 3");
        check("[{}\n,\n,{}]", "a.json:3: an element of the array is missing");
        check("[{},\n]", "a.json:2: an element of the array is missing");
        check("\n[{}\n", "a.json:2: the array that opens here is not closed");
        check("[{}]\nx", "a.json:1: something follows the array");
        check("[{}\n,7]", "a.json:2: '7' is no JSON object");
        check("[{}\n}[{}]", "a.json:2: a '}' that closes nothing");
    }

    #[test]
    fn fields_by_path() {
        let value = json!({
            "data": {"text": "in"}, "answers": [{"text": "first"}], "a.b": "whole", "a": {"b": 1}
        });
        assert_eq!(string(&value, "data.text", "").unwrap(), "in");
        assert_eq!(string(&value, "answers.0.text", "").unwrap(), "first");
        assert_eq!(string(&value, "a.b", "").unwrap(), "whole");
        let e = |path: &str| string(&value, path, "text_column").unwrap_err().message().to_owned();
        assert_eq!(
            e("body"),
            "no key 'body'; the keys are 'a', 'a.b', 'answers', 'data'; set text_column"
        );
        assert_eq!(e("data.body"), "no key 'body' in 'data'; the keys are 'text'; set text_column");
        assert_eq!(
            e("answers.1.text"),
            "no key '1' in 'answers'; there is a list of 1; set text_column"
        );
        assert_eq!(
            e("data.text.x"),
            "no key 'x' in 'data.text'; there is a string; set text_column"
        );
        assert_eq!(e("answers"), "'answers' is a list, not a string");
    }
}
