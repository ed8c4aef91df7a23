//! Every gradient rule against central differences in a random direction.
//!
//! A case is one operator with given inputs. Its loss is a random weighting of all float outputs;
//! the derivative of that loss along a random direction, from the rule, must agree with a
//! four-point difference. Cases run in f64 where the runtime has the kernel, else in f32.
//! The test walks the rule table: a row without a case fails.

#![allow(clippy::unwrap_used)]

mod bodies;
mod case;
mod data;
mod elementwise;
mod image;
mod layers;
mod losses;
mod lowered;
mod microsoft;

use std::collections::BTreeSet;

use case::Case;
use mmopt::autodiff::{Entry, rows};

fn all_cases() -> Vec<Case> {
    [elementwise::cases(), data::cases(), layers::cases(), image::cases()].concat()
}

/// Whether a runtime is there; says so where it is not.
pub fn runtime() -> bool {
    match mmopt::runtime::load(None) {
        Ok(_) => true,
        Err(e) => {
            eprintln!("not run: no ONNX Runtime ({e})");
            false
        }
    }
}

fn check(cases: &[Case]) {
    if !runtime() {
        return;
    }
    let mut failures = Vec::new();
    let mut narrow = BTreeSet::new();
    let mut newer = 0;
    // Older runtimes end the process when they divide empty tensors.
    let old = mmopt::runtime::load(None).is_ok_and(|l| l.version() < (1, 30, 0));
    for case in cases {
        if std::env::var_os("MMOPT_TRACE").is_some() {
            eprintln!("{case}");
        }
        if case.is_empty() && old {
            newer += 1;
            continue;
        }
        match case.check() {
            Err(e) if too_new(&e) => newer += 1,
            Ok(dtype) => {
                if dtype == mmopt::tensor::DType::F32 {
                    narrow.insert(case.op);
                }
            }
            Err(e) => failures.push(format!("{case}: {e}")),
        }
    }
    if newer > 0 {
        eprintln!("not run: {newer} cases that this runtime is too old for");
    }
    eprintln!("{} cases; in f32 only: {narrow:?}", cases.len());
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// Whether the runtime is older than the opset, or has no kernel of any float type at it.
fn too_new(e: &mmopt::error::Error) -> bool {
    let refused = ["ValidateOpsetForDomain", "Could not find an implementation"];
    refused.iter().any(|t| e.message().contains(t))
}

#[test]
fn every_row_has_a_case() {
    let cases: BTreeSet<_> = all_cases().iter().map(|c| (c.domain, c.op)).collect();
    let rules = rows().filter(|r| matches!(r.entry, Entry::Rule(_)));
    let missing: Vec<_> =
        rules.map(|r| (r.domain, r.op)).filter(|row| !cases.contains(row)).collect();
    assert!(missing.is_empty(), "rules without a case: {missing:?}");
}

#[test]
fn elementwise_rules() {
    check(&elementwise::cases());
}

#[test]
fn data_rules() {
    check(&data::cases());
}

#[test]
fn layer_rules() {
    check(&layers::cases());
}

#[test]
fn image_rules() {
    check(&image::cases());
}

#[test]
fn pools_with_steps_in_the_padding_are_refused() {
    if runtime() {
        for case in image::refused() {
            let e = case.check().unwrap_err();
            assert!(e.message().contains("lies in the padding"), "{case}: {e}");
        }
    }
}

#[test]
fn lowered_operators() {
    check(&lowered::cases());
    check(&image::rewritten());
}

#[test]
fn fused_operators() {
    check(&microsoft::cases());
}

/// Each operator's first case again, at every opset since which its form may differ.
#[test]
fn opset_variants() {
    let mut seen = BTreeSet::new();
    let first = all_cases().into_iter().filter(|c| seen.insert((c.domain, c.op)));
    let variants = first.flat_map(|case| {
        let since = rows()
            .find(|r| (r.domain, r.op) == (case.domain, case.op))
            .map_or(1, |r| r.since.max(13));
        // The runtime has no kernel for this one's newest form.
        let until = if case.op == "GlobalLpPool" { 21 } else { 23 };
        let opsets = [13, 15, 18, 20, 21, 23].into_iter();
        opsets.filter(move |o| (since..=until).contains(o)).map(move |o| {
            let mut case = case.clone();
            case.opset = o;
            case
        })
    });
    check(&variants.collect::<Vec<_>>());
}
