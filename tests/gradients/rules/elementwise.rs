//! Cases of arithmetic, activations and reductions.

use super::case::{Case, REDUCTIONS, case};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(binary());
    cases.extend(unary());
    cases.extend(activations());
    cases.extend(variadic());
    cases.extend(reductions());
    cases
}

fn binary() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in ["Add", "Sub", "Mul", "Div"] {
        cases.push(case(op).x(&[2, 3]).x(&[2, 3]));
        cases.push(case(op).x(&[4, 2, 3]).x(&[3]));
        cases.push(case(op).x(&[2, 1]).x(&[4, 1, 3]));
        cases.push(case(op).x(&[1]).x(&[]));
        cases.push(case(op).x(&[]).x(&[1, 1, 1]));
        cases.push(case(op).x(&[2, 3]).again(0));
        cases.push(case(op).x(&[0, 3]).x(&[1, 3]));
    }
    let pow = |shape: &[usize]| case("Pow").positive(0.5, 1.5).x(shape);
    for exponent in [0.0, 0.5, 1.0, 2.0, 3.0, -1.5] {
        cases.push(pow(&[2, 3]).fixed(&[], &[exponent]));
    }
    cases.push(pow(&[2, 3]).x(&[2, 3]));
    cases.push(pow(&[2, 3]).x(&[3]));
    cases.push(pow(&[3]).again(0));
    cases.push(case("Pow").values(&[3], &[-1.0, 0.0, 2.0]).ints(&[2]));
    cases.push(case("Mod").int("fmod", 1).x(&[4]).fixed(&[1], &[5.0]));
    let (many, few) = ([2.3, -1.7, 0.4, -3.1, 5.2, 1.1], [0.7, -0.9, 1.3]);
    cases.push(case("Mod").int("fmod", 1).values(&[2, 3], &many).values(&[3], &few));
    cases.push(case("Mod").int("fmod", 1).values(&[3], &few).again(0));
    let mask = [1, 0, 1, 1, 0, 0];
    cases.push(case("Where").bools(&[2, 3], &mask).x(&[2, 3]).x(&[2, 3]));
    cases.push(case("Where").bools(&[2, 1], &[0, 1]).x(&[3]).x(&[]));
    cases.push(case("Where").bools(&[2, 3], &mask).x(&[1, 3]).again(1));
    cases.push(case("Where").bools(&[0, 3], &[]).x(&[0, 3]).x(&[3]));
    cases
}

fn unary() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in [
        "Abs",
        "Asinh",
        "Atan",
        "Cos",
        "Cosh",
        "Erf",
        "Exp",
        "Identity",
        "Neg",
        "Reciprocal",
        "Sin",
        "Sinh",
        "Tan",
    ] {
        let narrow = |shape: &[usize]| case(op).either(0.3, 1.2).x(shape);
        cases.extend([narrow(&[2, 3]), narrow(&[]), narrow(&[1, 1]), narrow(&[0, 2])]);
    }
    for op in ["Acos", "Asin", "Atanh"] {
        cases.push(case(op).either(0.1, 0.7).x(&[2, 3]));
    }
    cases.push(case("Acosh").positive(1.5, 2.5).x(&[2, 3]));
    for op in ["Log", "Sqrt"] {
        cases.extend([case(op).positive(0.5, 2.0).x(&[2, 3]), case(op).positive(0.5, 2.0).x(&[])]);
    }
    cases.push(case("Cast").int("to", 1).x(&[2, 3]).narrow());
    cases.push(case("CastLike").x(&[2, 3]).fixed(&[1], &[0.0]).opset(19));
    cases.push(case("CastLike").x(&[2, 3]).x(&[4]).opset(19));
    cases.push(case("CastLike").x(&[2, 3]).again(0).opset(19));
    let edges = [-2.0, -0.4, 0.3, 0.8, 1.9, 0.1];
    let clip = || case("Clip").values(&[2, 3], &edges);
    cases.push(clip().fixed(&[], &[-1.0]).fixed(&[], &[1.0]));
    cases.push(clip().fixed(&[], &[-1.0]));
    cases.push(clip().none().fixed(&[], &[1.0]));
    cases.push(clip().values(&[], &[-1.0]).values(&[], &[1.0]));
    cases.push(clip().values(&[], &[0.5]).values(&[], &[-0.5]));
    cases.push(clip());
    cases
}

fn activations() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in [
        "Celu",
        "Elu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Tanh",
    ] {
        cases.extend([case(op).x(&[2, 3]), case(op).x(&[]), case(op).x(&[1])]);
    }
    cases.push(case("HardSwish").either(3.5, 5.0).x(&[8]));
    cases.push(case("HardSigmoid").float("alpha", 0.9).float("beta", 0.4).x(&[8]));
    cases.push(case("Elu").float("alpha", 0.3).x(&[6]));
    cases.push(case("Celu").float("alpha", 0.6).x(&[6]));
    cases.push(case("Selu").float("alpha", 0.7).float("gamma", 1.3).x(&[6]));
    cases.push(case("LeakyRelu").float("alpha", 0.2).x(&[6]));
    cases.push(case("Mish").opset(18).x(&[2, 3]));
    cases.push(case("Swish").opset(24).x(&[2, 3]));
    cases.push(case("Swish").opset(24).float("alpha", 1.7).x(&[2, 3]));
    for form in ["none", "tanh"] {
        cases.push(case("Gelu").opset(20).text("approximate", form).x(&[2, 3]));
        cases.push(case("Gelu").opset(20).text("approximate", form).either(0.0, 4.0).x(&[20]));
    }
    cases.push(case("PRelu").x(&[2, 3]).x(&[2, 3]));
    cases.push(case("PRelu").x(&[2, 3]).x(&[3]));
    cases.push(case("PRelu").x(&[4, 2, 3]).x(&[2, 1]));
    cases.push(
        case("Shrink")
            .narrow()
            .float("lambd", 0.9)
            .float("bias", 0.2)
            .values(&[5], &[-2.0, -0.5, 0.1, 0.6, 1.4]),
    );
    cases.push(case("ThresholdedRelu").float("alpha", 0.2).x(&[8]));
    for op in ["Softmax", "LogSoftmax"] {
        cases.extend([case(op).x(&[2, 3, 4]), case(op).x(&[5]), case(op).x(&[3, 1])]);
        for axis in [0, 1, -2] {
            cases.push(case(op).int("axis", axis).x(&[2, 3, 4]));
        }
    }
    cases
}

fn variadic() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in ["Max", "Min", "Sum", "Mean"] {
        cases.push(case(op).x(&[2, 3]).x(&[2, 3]).x(&[2, 3]));
        cases.push(case(op).x(&[2, 3]).x(&[3]).x(&[]));
        cases.push(case(op).x(&[2, 1]).x(&[4, 1, 3]));
        cases.push(case(op).x(&[2, 3]));
        cases.push(case(op).x(&[2, 3]).again(0));
        cases.push(case(op).x(&[0]).x(&[1]));
    }
    cases
}

fn reductions() -> Vec<Case> {
    let mut cases = Vec::new();
    for op in REDUCTIONS {
        let x = |shape: &[usize]| case(op).positive(0.4, 1.6).x(shape);
        cases.push(x(&[2, 3, 4]).axes(&[1]));
        for opset in [17, 18] {
            cases.push(x(&[2, 3, 4]).opset(opset).axes(&[-1]));
            cases.push(x(&[2, 3, 4]).opset(opset).axes(&[-1, 0]).int("keepdims", 0));
            cases.push(x(&[2, 3]).opset(opset));
            cases.push(x(&[2, 3]).opset(opset).int("keepdims", 0));
        }
        cases.push(x(&[2, 3]).opset(18).int("noop_with_empty_axes", 1).axes(&[]));
        cases.push(x(&[1, 1]).axes(&[0]));
    }
    for op in ["ReduceL1", "ReduceL2", "ReduceMax", "ReduceSumSquare", "ReduceProd"] {
        cases.push(case(op).x(&[2, 3]).axes(&[1]));
    }
    let zeros = [0.0, 2.0, 3.0, 0.0, 0.0, 1.5, 1.2, -0.7, 0.4];
    cases.push(case("ReduceProd").values(&[3, 3], &zeros).axes(&[1]));
    cases.push(case("ReduceSum").x(&[0, 3]).axes(&[1]));
    for (exclusive, reverse) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let cumsum = case("CumSum").int("exclusive", exclusive).int("reverse", reverse);
        cases.push(cumsum.x(&[2, 4]).ints_of(&[], &[-1]));
    }
    cases
}
