//! Cases of matrix products, shapes and indexing.

use super::case::{Case, case};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(products());
    cases.extend(shapes());
    cases.extend(cuts());
    cases.extend(indexing());
    cases
}

fn products() -> Vec<Case> {
    let mut cases = Vec::new();
    for (a, b) in [
        (&[2, 3][..], &[3, 4][..]),
        (&[5, 2, 3], &[3, 4]),
        (&[5, 2, 3], &[5, 3, 4]),
        (&[2, 3], &[5, 3, 4]),
        (&[5, 1, 2, 3], &[2, 3, 4]),
        (&[3], &[3]),
        (&[3], &[3, 4]),
        (&[3], &[5, 3, 4]),
        (&[2, 3], &[3]),
        (&[5, 2, 3], &[3]),
        (&[1, 1], &[1, 1]),
        (&[0, 3], &[3, 4]),
    ] {
        cases.push(case("MatMul").x(a).x(b));
    }
    cases.push(case("MatMul").x(&[3, 3]).again(0));
    for (ta, tb) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let a: &[usize] = if ta == 1 { &[3, 2] } else { &[2, 3] };
        let b: &[usize] = if tb == 1 { &[4, 3] } else { &[3, 4] };
        let gemm = || case("Gemm").int("transA", ta).int("transB", tb);
        cases.push(gemm().x(a).x(b).x(&[2, 4]));
        cases.push(gemm().float("alpha", 0.7).float("beta", 1.3).x(a).x(b).x(&[4]));
        cases.push(gemm().float("alpha", -0.5).x(a).x(b));
        cases.push(gemm().float("beta", 0.5).x(a).x(b).x(&[2, 1]));
        cases.push(gemm().x(a).x(b).x(&[]));
    }
    cases.push(case("Gemm").x(&[3, 3]).again(0).again(0));
    cases
}

fn shapes() -> Vec<Case> {
    let mut cases = vec![
        case("Reshape").x(&[2, 3, 4]).ints(&[4, -1]),
        case("Reshape").x(&[2, 3, 4]).ints(&[0, 12]),
        case("Reshape").x(&[1]).ints(&[]),
        case("Reshape").x(&[0, 3]).ints(&[3, 0]).int("allowzero", 1),
        case("Flatten").x(&[2, 3, 4]),
        case("Flatten").x(&[2, 3, 4]).int("axis", -1),
        case("Squeeze").x(&[1, 3, 1]),
        case("Squeeze").x(&[1, 3, 1]).ints(&[-1]),
        case("Unsqueeze").x(&[3, 2]).ints(&[0, -1]),
        case("Expand").x(&[3, 1]).ints(&[2, 3, 4]),
        case("Expand").x(&[3, 4]).ints(&[1, 1]),
        case("Expand").x(&[]).ints(&[2, 0]),
        case("Transpose").x(&[2, 3, 4]),
        case("Transpose").x(&[2, 3, 4]).list("perm", &[1, 2, 0]),
        case("Transpose").x(&[0, 3]),
        case("Tile").x(&[2, 3]).ints(&[2, 3]),
        case("Tile").x(&[2, 1]).ints(&[1, 4]),
        case("Trilu").x(&[3, 4]),
        case("Trilu").x(&[2, 3, 3]).ints_of(&[], &[-1]).int("upper", 0),
    ];
    for mode in ["DCR", "CRD"] {
        let d2s = case("DepthToSpace").int("blocksize", 2).text("mode", mode);
        cases.push(d2s.x(&[2, 8, 2, 3]));
    }
    cases.push(case("SpaceToDepth").int("blocksize", 2).x(&[2, 3, 4, 6]));
    cases
}

fn cuts() -> Vec<Case> {
    let slice = |starts: &[i64], ends: &[i64]| case("Slice").x(&[4, 5]).ints(starts).ints(ends);
    let mut cases = vec![
        slice(&[1, 0], &[3, 4]),
        slice(&[-2], &[i64::MAX]).ints(&[-1]),
        slice(&[0, 4], &[4, 0]).ints(&[0, 1]).ints(&[2, -2]),
        slice(&[-1], &[i64::MIN]).ints(&[1]).ints(&[-1]),
        slice(&[2], &[2]).ints(&[0]),
        slice(&[3, 1], &[4, 4]).ints(&[0, 1]).ints(&[1, 2]),
        case("Concat").int("axis", 1).x(&[2, 3]).x(&[2, 1]).x(&[2, 2]),
        case("Concat").int("axis", -2).x(&[2, 3]).again(0),
        case("Concat").int("axis", 0).x(&[0, 3]).x(&[2, 3]),
        case("Split").int("axis", 1).x(&[2, 6]).ints(&[1, 3, 2]).outputs(3, &[0, 1, 2]),
        case("Split").int("axis", -1).x(&[2, 6]).ints(&[1, 3, 2]).outputs(3, &[1]),
        case("Split").opset(18).int("num_outputs", 2).x(&[5, 2]).outputs(2, &[0, 1]),
        case("Split").x(&[4, 2]).outputs(2, &[1, 0]),
        case("Pad").x(&[2, 3]).ints(&[1, 0, 0, 2]),
        case("Pad").x(&[2, 3]).ints(&[-1, 2, 0, -1]),
        case("Pad").opset(18).x(&[2, 3]).ints(&[1, 2]).fixed(&[], &[0.5]).ints(&[-1]),
    ];
    cases.push(case("Pad").x(&[2, 3]).ints(&[1, 0, 0, 2]).values(&[], &[0.7]));
    cases
}

fn indexing() -> Vec<Case> {
    let nd =
        |indices: &[i64], shape: &[usize]| case("GatherND").x(&[3, 4, 2]).ints_of(shape, indices);
    let rows = [0, 2, -1, 2];
    vec![
        case("Gather").x(&[3, 4]).ints(&rows),
        case("Gather").x(&[3, 4]).ints_of(&[2, 2], &rows),
        case("Gather").x(&[2, 3, 4]).int("axis", 1).ints_of(&[2, 2], &rows),
        case("Gather").x(&[2, 3]).int("axis", -1).ints(&rows),
        case("Gather").x(&[3, 4]).ints_of(&[], &[-2]),
        case("Gather").x(&[3, 4]).int("axis", 1).ints_of(&[], &[3]),
        case("Gather").x(&[3, 4]).ints_of(&[1, 1], &[1]),
        case("Gather").x(&[3, 4]).ints(&[]),
        case("Gather").x(&[5]).ints(&[4, 0, 4]),
        case("GatherElements").x(&[3, 3]).ints_of(&[2, 3], &[0, 2, 2, -1, 0, 2]),
        case("GatherElements").x(&[3, 3]).int("axis", -1).ints_of(&[3, 2], &[0, 0, 2, 1, 1, -2]),
        nd(&[0, 1, 2, 3, 0, 1], &[3, 2]),
        nd(&[0, -1, 0], &[3, 1]),
        nd(&[2, -1, 1], &[1, 3]),
        nd(&[3, 0, -1], &[3, 1]).int("batch_dims", 1),
        nd(&[1, 1, 0, 3, 3, 2], &[3, 2, 1]).int("batch_dims", 1),
        case("ScatterElements").x(&[3, 3]).ints_of(&[2, 3], &[1, 0, 2, 0, 2, 1]).x(&[2, 3]),
        case("ScatterElements")
            .opset(18)
            .text("reduction", "add")
            .int("axis", -1)
            .x(&[2, 5])
            .ints_of(&[2, 3], &[1, 1, -1, 0, 2, 0])
            .x(&[2, 3]),
        case("ScatterND").x(&[4, 2]).ints_of(&[2, 1], &[3, 0]).x(&[2, 2]),
        case("ScatterND").x(&[4, 2]).ints_of(&[2, 2], &[3, 0, 1, 1]).x(&[2]),
        case("ScatterND").text("reduction", "add").x(&[4]).ints_of(&[3, 1], &[2, 2, 0]).x(&[3]),
        case("TopK")
            .values(&[2, 4], &[1., 4., 3., 2., 0.5, -2., 7., 3.])
            .ints(&[2])
            .outputs(2, &[0]),
        case("TopK")
            .values(&[3, 2], &[1., 4., 3., 2., 0.5, -2.])
            .ints(&[1])
            .int("axis", 0)
            .int("largest", 0)
            .outputs(2, &[0]),
    ]
}
