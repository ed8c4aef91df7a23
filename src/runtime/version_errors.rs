//! Explains errors of a runtime that is too old for a model, with the way out.

use crate::error::Error;

/// An error of the runtime of that version about a model: where the runtime is too old, the message
/// names the version and what to do, and the original error becomes the source. Any other error is
/// returned unchanged.
pub(super) fn explain(error: Error, (major, minor, patch): (u32, u32, u32)) -> Error {
    let runtime = format!("ONNX Runtime {major}.{minor}.{patch}");
    match reason(error.message(), &runtime) {
        Some(text) => Error::unsupported(text).with_source(error),
        None => error,
    }
}

fn reason(text: &str, runtime: &str) -> Option<String> {
    opset(text, runtime)
        .or_else(|| format_version(text, runtime))
        .or_else(|| no_kernel(text, runtime))
        .or_else(|| no_f64(text, runtime))
        .or_else(|| no_operator(text, runtime))
}

/// `… Opset 23 is under development … support for domain ai.onnx is till opset 21.`
fn opset(text: &str, runtime: &str) -> Option<String> {
    let (_, rest) = text.split_once("Current official support for domain ")?;
    let (domain, newest) = rest.split_once(" is till opset ")?;
    let newest = number(newest)?;
    let own = number(text.split_once("Opset ")?.1)?;
    Some(format!(
        "opset {own} of {domain} is newer than {runtime} knows ({newest}); export the model at \
         opset {newest} or older, or load a newer ONNX Runtime"
    ))
}

/// `Unsupported model IR version: 12, max supported IR version: 10`
fn format_version(text: &str, runtime: &str) -> Option<String> {
    let (own, newest) = text
        .split_once("Unsupported model IR version: ")?
        .1
        .split_once(", max supported IR version: ")?;
    Some(format!(
        "the ONNX format version {} is newer than {runtime} knows ({}); write the model with an \
         older version of its exporter, or load a newer ONNX Runtime",
        number(own)?,
        number(newest)?
    ))
}

/// `Could not find an implementation for Mish(18) node with name 'act'`
fn no_kernel(text: &str, runtime: &str) -> Option<String> {
    let (_, rest) = text.split_once("Could not find an implementation for ")?;
    let (op, rest) = rest.split_once('(')?;
    let node = rest.split_once("name '").and_then(|(_, r)| r.split_once('\'')).map_or("", |n| n.0);
    Some(format!(
        "node '{node}' ({op}, opset {}): {runtime} has no kernel for this form of it and its \
         element types; load a newer ONNX Runtime, or export the model at another opset or in f32",
        number(rest)?
    ))
}

/// `Exception during initialization: GRU operator does not support double yet`
fn no_f64(text: &str, runtime: &str) -> Option<String> {
    let (before, _) = text.split_once(" operator does not support double yet")?;
    let op = before.rsplit(char::is_whitespace).next()?;
    Some(format!(
        "{op}: {runtime} has no kernel for this form of it and its element types; load a newer \
         ONNX Runtime, or export the model in f32"
    ))
}

/// `com.microsoft:Foo(-1) is not a registered function/op`, or
/// `No Op registered for Foo with domain_version of 17`
fn no_operator(text: &str, runtime: &str) -> Option<String> {
    let known = |op: &str, opset: &str| {
        format!(
            "{runtime} does not know the operator {op}{opset}; load a newer ONNX Runtime, or \
             export the model without it"
        )
    };
    if let Some((before, _)) = text.split_once(" is not a registered function/op") {
        let name = before.rsplit(char::is_whitespace).next()?;
        let (op, _) = name.rsplit_once('(')?;
        return Some(known(&op.replace(':', "."), ""));
    }
    let (op, rest) =
        text.split_once("No Op registered for ")?.1.split_once(" with domain_version of ")?;
    Some(known(op, &format!(" at opset {}", number(rest)?)))
}

/// The number that a text begins with.
fn number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn check(text: &str, parts: &[&str]) {
        let e = Error::new(Kind::Runtime, format!("ONNX Runtime: {text}"));
        let e = explain(e, (1, 19, 2));
        assert_eq!(e.kind(), Kind::Unsupported);
        for part in parts.iter().chain(&["ONNX Runtime 1.19.2", "load a newer ONNX Runtime"]) {
            assert!(e.message().contains(part), "{part}: {e}");
        }
        assert!(std::error::Error::source(&e).is_some());
    }

    #[test]
    fn what_a_runtime_is_too_old_for_is_named() {
        check(
            "Failed to load model with error: model_load_utils.h:46 ValidateOpsetForDomain(…) \
             ONNX Runtime only *guarantees* support for models stamped with official released \
             onnx opset versions. Opset 23 is under development and support for this is limited. \
             Current official support for domain ai.onnx is till opset 21.",
            &["opset 23 of ai.onnx is newer", "knows (21)", "export the model at opset 21"],
        );
        check(
            "Unsupported model IR version: 12, max supported IR version: 10",
            &["format version 12", "(10)"],
        );
        check(
            "Could not find an implementation for Mish(18) node with name 'act'",
            &["node 'act' (Mish, opset 18)"],
        );
        check(
            "Exception during initialization: GRU operator does not support double yet",
            &["GRU: ", "no kernel", "in f32"],
        );
        check(
            "Fatal error: com.microsoft:Foo(-1) is not a registered function/op",
            &["the operator com.microsoft.Foo;"],
        );
        check(
            "This is an invalid model. No Op registered for Bar with domain_version of 17",
            &["the operator Bar at opset 17"],
        );
    }

    #[test]
    fn other_errors_stay() {
        let e = Error::new(Kind::Runtime, "ONNX Runtime: Opset of nothing");
        let e = explain(e, (1, 19, 2));
        assert_eq!((e.kind(), e.message()), (Kind::Runtime, "ONNX Runtime: Opset of nothing"));
    }
}
