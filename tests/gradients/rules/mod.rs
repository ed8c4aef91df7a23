//! Every gradient rule against central differences in a random direction.
//!
//! A case is one operator with given inputs. Its loss is a random weighting of all float outputs;
//! the derivative of that loss along a random direction, from the rule, must agree with a
//! four-point difference. Cases run in f64 where the runtime has the kernel, else in f32.
//! The test walks the rule table: a row without a case fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
pub mod case;
pub mod data;
mod defects;
mod edges;
pub mod elementwise;
pub mod image;
pub mod layers;
mod losses;
pub mod lowered;
pub mod microsoft;
mod random;
pub mod recurrent;
mod scans;
pub mod signals;

use crate::runtime;
use std::collections::BTreeSet;
use std::path::Path;

use case::{Case, Checked};
use mmopt::autodiff::{Entry, rows};
use mmopt::error::{Error, Kind, Result};
use mmopt::runtime::Device;
use mmopt::tensor::{DType, Tensor};
use mmopt_tools::dump::Dump;

fn all_cases() -> Vec<Case> {
    let rules = [elementwise::cases(), data::cases(), layers::cases(), image::cases()].concat();
    [rules, signals::transforms(), edges::cases()].concat()
}

/// Checks cases and tells of each that was not run why. `MMOPT_GRADCHECK_DUMP` names a folder that
/// gets what the rules gave.
fn check(name: &str, cases: &[Case]) {
    if !runtime() {
        return;
    }
    let version = mmopt::runtime::load(None).unwrap().version();
    let (mut failures, mut skipped, mut narrow) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut dump = Dump::default();
    for case in cases {
        if std::env::var_os("MMOPT_TRACE").is_some() {
            eprintln!("{case}");
        }
        match check_on(case, version) {
            Ok(Verdict::Good(checked)) => {
                if checked.dtype == DType::F32 {
                    narrow.insert(case.op);
                }
                add(&mut dump, case, checked);
            }
            Ok(Verdict::Skipped(reason)) => skipped.push(format!("{case}: {reason}")),
            Err(e) => failures.push(format!("{case}: {e}")),
        }
    }
    skipped.iter().for_each(|line| eprintln!("gradcheck skip: {line}"));
    let (n, n_skipped, n_failed) = (cases.len(), skipped.len(), failures.len());
    eprintln!(
        "gradcheck {name}: {n} cases, {} passed, {n_skipped} skipped, {n_failed} failed; \
         in f32 only: {narrow:?}",
        n - n_skipped - n_failed
    );
    if let Some(folder) = std::env::var_os("MMOPT_GRADCHECK_DUMP") {
        dump.write(&Path::new(&folder).join(format!("{name}.safetensors"))).unwrap();
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(version < NEWEST || skipped.is_empty(), "skipped on {version:?}: {skipped:#?}");
}

/// Major, minor and patch version of a runtime.
type Version = (u32, u32, u32);

/// The runtime that knows every case.
const NEWEST: Version = (1, 32, 0);

enum Verdict {
    Good(Checked),
    Skipped(String),
}

/// What the CUDA provider refuses, by a part of its message.
const LACKS: [(&str, &str); 2] = [
    ("reduce on dim with value of 0", "the device sums over no elements"),
    ("Training mode does not support BN", "the device has no BatchNormalization in training"),
];

/// A case on a runtime of `version`, minding what that is known to do wrong.
fn check_on(case: &Case, version: Version) -> Result<Verdict> {
    let e = match case.check() {
        Ok(checked) => return Ok(Verdict::Good(checked)),
        Err(e) => e,
    };
    let on_device = LACKS.iter().find(|(text, _)| e.message().contains(text));
    if let (true, Some((_, reason))) = (case::device() != Device::Cpu, on_device) {
        return Ok(Verdict::Skipped((*reason).to_owned()));
    }
    if version < NEWEST && too_old(&e) {
        return Ok(Verdict::Skipped(first_line(e.message())));
    }
    let Some(defect) = defects::find(case, version) else { return Err(e) };
    eprintln!("gradcheck note: {case}: {}: {}", defect.what, first_line(e.message()));
    case.clone().narrow().check().map(Verdict::Good)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("").to_owned()
}

/// What a norm of 1e-2 means to gradients of losses of order 1: zero.
const FLOOR: f64 = 1e-2;

fn add(dump: &mut Dump, case: &Case, checked: Checked) {
    let label = format!("{case} {}", checked.dtype);
    let floats = |values: &[f64]| {
        let narrow: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        match checked.dtype {
            DType::F64 => Tensor::from_slice(&[values.len()], values).unwrap(),
            _ => Tensor::from_slice(&[values.len()], &narrow).unwrap(),
        }
    };
    // Losses are of order 1, those that cancel to less too.
    dump.add(format!("{label} forward"), floats(&[checked.forward]), Some(1.0));
    for (i, gradient) in checked.gradients.iter().enumerate() {
        dump.add(format!("{label} gradient {i}"), floats(gradient), Some(FLOOR));
    }
}

/// Whether the runtime is older than the opset, or has no kernel of any float type at it.
fn too_old(e: &Error) -> bool {
    e.kind() == Kind::Unsupported && e.message().contains("load a newer ONNX Runtime")
}

#[test]
fn every_row_has_a_case() {
    let cases: BTreeSet<_> = all_cases().iter().map(|c| (c.domain, c.op)).collect();
    let rules = rows().filter(|r| matches!(r.entry, Entry::Rule(_)));
    let missing: Vec<_> =
        rules.map(|r| (r.domain, r.op)).filter(|row| !cases.contains(row)).collect();
    assert!(missing.is_empty(), "rules without a case: {missing:?}");
}

/// Each rule meets broadcasting, repeated inputs, one element, none, and axes counted from the end
/// wherever the operator has such a thing.
#[test]
fn every_row_has_its_variants() {
    let cases = all_cases();
    let mut missing = Vec::new();
    for row in rows().filter(|r| matches!(r.entry, Entry::Rule(_))) {
        let is_own = |c: &&Case| (c.domain, c.op) == (row.domain, row.op);
        let own: Vec<&Case> = cases.iter().filter(is_own).collect();
        missing.extend(edges::missing(row.op, &own).into_iter().map(|v| (row.op, v)));
    }
    let unexpected: Vec<_> = missing.iter().filter(|m| !edges::ABSENT.contains(m)).collect();
    assert!(unexpected.is_empty(), "rules without a case of a variant: {unexpected:?}");
    let stale: Vec<_> = edges::ABSENT.iter().filter(|a| !missing.contains(a)).collect();
    assert!(stale.is_empty(), "said to have no such case, but have one: {stale:?}");
}

#[test]
fn edges_of_rules() {
    check("edges", &edges::cases());
}

#[test]
fn elementwise_rules() {
    check("elementwise", &elementwise::cases());
}

#[test]
fn data_rules() {
    check("data", &data::cases());
}

#[test]
fn layer_rules() {
    check("layers", &layers::cases());
}

#[test]
fn image_rules() {
    check("image", &image::cases());
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
    check("lowered", &[lowered::cases(), image::rewritten()].concat());
}

#[test]
fn signals() {
    check("signals", &[signals::transforms(), signals::cases()].concat());
}

#[test]
fn scans() {
    check("scans", &[scans::cases(), scans::loops()].concat());
}

#[test]
fn recurrent_layers() {
    let cases = recurrent::cases();
    check("recurrent", &[recurrent::batch_first(), cases.clone()].concat());
    let own = cases.into_iter().map(|c| c.result_only().narrow());
    check("recurrent results", &own.collect::<Vec<_>>());
}

#[test]
fn fused_operators() {
    check("fused", &microsoft::cases());
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
    check("opsets", &variants.collect::<Vec<_>>());
}
