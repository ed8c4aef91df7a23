//! Cases of transforms, of sampling at a grid, and of what cuts from the middle or by a condition.

use super::case::{Case, case};

/// Cases of `DFT`, which has a rule.
pub fn transforms() -> Vec<Case> {
    let mut cases = Vec::new();
    for (inverse, onesided) in [(0, 0), (1, 0), (0, 1)] {
        for parts in [1, 2] {
            // One side is told of real numbers alone.
            if (onesided, parts) == (1, 2) {
                continue;
            }
            let of = |c: Case| c.int("inverse", inverse).int("onesided", onesided).loose(20.0);
            cases.push(of(case("DFT").x(&[2, 5, parts])));
            cases.push(of(case("DFT").x(&[2, 3, 4, parts]).int("axis", 2)));
            for length in [3, 7] {
                cases.push(of(case("DFT").x(&[2, 5, parts]).ints_of(&[], &[length])));
            }
            let newer = || case("DFT").opset(20).x(&[2, 4, 3, parts]);
            cases.push(of(newer()));
            cases.push(of(newer().none().ints_of(&[], &[1])));
            cases.push(of(newer().ints_of(&[], &[6]).ints_of(&[], &[-3])));
        }
    }
    cases.push(case("DFT").x(&[1, 1, 1]));
    cases.push(case("DFT").x(&[0, 4, 1]));
    cases
}

/// Cases of operators that are rewritten.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let signal = || case("STFT").x(&[2, 9, 1]).ints_of(&[], &[2]);
    for onesided in [0, 1] {
        cases.push(signal().x(&[4]).int("onesided", onesided));
        cases.push(signal().none().ints_of(&[], &[5]).int("onesided", onesided));
        cases.push(signal().x(&[3]).ints_of(&[], &[3]).int("onesided", onesided));
    }
    cases.push(case("STFT").x(&[1, 6, 2]).ints_of(&[], &[3]).x(&[4]).int("onesided", 0));
    let mut cases: Vec<Case> = cases.into_iter().map(|c| c.rewritten().loose(20.0)).collect();
    let crop = || case("CenterCropPad").opset(18).x(&[2, 5, 4]).rewritten();
    cases.push(crop().ints(&[2, 3, 7]));
    cases.push(crop().ints(&[5, 2, 1]));
    cases.push(crop().ints(&[8, 3]).list("axes", &[-2, 2]));
    let pick = || case("Compress").x(&[3, 4]).rewritten();
    cases.push(pick().bools(&[3], &[1, 0, 1]).int("axis", 0));
    cases.push(pick().bools(&[2], &[0, 1]).int("axis", -1));
    cases.push(pick().bools(&[9], &[0, 1, 1, 0, 0, 1, 0, 0, 1]));
    cases.extend(grids());
    cases
}

fn grids() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in ["linear", "nearest", "cubic"] {
        for padding in ["zeros", "border", "reflection"] {
            for aligned in [0, 1] {
                let of = |c: Case| {
                    let c = c.opset(20).text("mode", mode).text("padding_mode", padding);
                    c.int("align_corners", aligned).rewritten().fine()
                };
                cases.push(of(case("GridSample").x(&[2, 3, 4, 5]).x(&[2, 3, 2, 2])));
                if mode != "cubic" {
                    cases.push(of(case("GridSample").x(&[1, 2, 3, 2, 4]).x(&[1, 2, 3, 2, 3])));
                }
            }
        }
    }
    let old = |mode| case("GridSample").x(&[1, 1, 3, 3]).x(&[1, 2, 2, 2]).text("mode", mode);
    cases.push(old("bilinear").rewritten().result_only());
    cases.push(old("bicubic").rewritten().result_only());
    cases
}
