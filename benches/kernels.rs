//! Each fused kernel against its form in standard operators, in one session each with as many
//! threads, run in turn; medians. The sizes are those of a base-size model at batch 8, sequence
//! 128. `cargo bench --bench kernels [-- THREADS]`, two threads unless told.

use std::time::Instant;

use mmopt::Result;
use mmopt::onnx::{Attribute, Graph, Node, ValueType};
use mmopt::runtime::{Binding, Optimize, Session, SessionOptions, kernels};
use mmopt::tensor::{DType, Tensor};

const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let threads = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(2);
    println!("{:<18} {:>22} {:>10} {:>10} {:>7}", "", "size", "kernel", "standard", "ratio");
    let f = |shape: &[usize]| Tensor::zeros(DType::F32, shape);
    let tokens = 1024;
    let shapes: [&[usize]; 5] =
        [&[tokens, 768], &[tokens, 768], &[768], &[tokens, 1], &[tokens, 1]];
    let inputs = shapes.into_iter().map(noise).collect::<Result<_>>()?;
    bench("LayerNormGrad", inputs, &[&[tokens, 768], &[768], &[768]], threads)?;
    for op in ["GeluGrad", "GeluTanhGrad"] {
        let inputs = vec![noise(&[tokens, 3072])?, noise(&[tokens, 3072])?];
        bench(op, inputs, &[&[tokens, 3072]], threads)?;
    }
    let heads = [8, 12, 128, 128];
    bench("SoftmaxGrad", vec![noise(&heads)?, noise(&heads)?], &[&heads], threads)?;
    for vocabulary in [2, 30_522] {
        let logits = [tokens, vocabulary];
        let labels = whole(tokens, vocabulary)?;
        let inputs = vec![noise(&logits)?, labels.copy()?];
        bench("CrossEntropy", inputs, &[&[tokens], &[tokens]], threads)?;
        let inputs = vec![noise(&[tokens])?, noise(&logits)?, labels, f(&[tokens])?];
        bench("CrossEntropyGrad", inputs, &[&logits], threads)?;
    }
    // A product of a block's first matrix and of its gradients; 'standard' is in f32.
    for [m, n, k] in [[tokens, 3072, 768], [tokens, 768, 3072], [768, 3072, tokens]] {
        let inputs = vec![noise(&[m, k])?, noise(&[k, n])?];
        bench("MatMulBf16", inputs, &[&[m, n]], threads)?;
    }
    // Of a large model, and of a small one.
    let sizes = [[tokens, 3072, 768], [tokens, 128, 128], [tokens, 512, 128], [tokens, 128, 512]];
    for [m, n, k] in sizes {
        bench("MatMulF32", vec![noise(&[m, k])?, noise(&[k, n])?], &[&[m, n]], threads)?;
    }
    for vocabulary in [30_522, 50_257] {
        let table = [vocabulary, 768];
        let inputs = vec![whole(tokens, vocabulary)?, noise(&[tokens, 768])?, f(&table)?];
        bench("EmbeddingGrad", inputs, &[&table], threads)?;
    }
    Ok(())
}

fn noise(shape: &[usize]) -> Result<Tensor> {
    let n = shape.iter().product();
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    Tensor::from_slice(shape, &(0..n).map(|_| next()).collect::<Vec<f32>>())
}

fn whole(n: usize, below: usize) -> Result<Tensor> {
    Tensor::from_slice(&[n], &(0..n).map(|i| (i * 7919 % below) as i64).collect::<Vec<_>>())
}

fn bench(op: &str, inputs: Vec<Tensor>, outputs: &[&[usize]], threads: usize) -> Result<()> {
    let graph = graph(op, &inputs, outputs)?;
    let size =
        format!("{:?}", inputs.iter().max_by_key(|t| t.len()).map_or(&[][..], Tensor::shape));
    let mut sides = Vec::new();
    for kernels in [true, false] {
        let optimize = Optimize::All;
        let options = SessionOptions { threads, kernels, optimize, ..Default::default() };
        let session = Session::from_bytes(&graph, &options)?;
        let binding = bound(&session, &inputs, outputs)?;
        sides.push((session, binding, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (session, binding, times) in &mut sides {
            binding.run(session)?;
            let clock = Instant::now();
            binding.run(session)?;
            times.push(clock.elapsed().as_secs_f64() * 1e3);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (kernel, standard) = (median(&mut sides[0].2), median(&mut sides[1].2));
    let ratio = standard / kernel;
    println!("{op:<18} {size:>22} {kernel:>8.2}ms {standard:>8.2}ms {ratio:>6.1}x");
    Ok(())
}

fn bound(session: &Session, inputs: &[Tensor], outputs: &[&[usize]]) -> Result<Binding> {
    let mut binding = session.bind()?;
    for (i, tensor) in inputs.iter().enumerate() {
        binding.bind_input_owned(&format!("i{i}"), tensor.copy()?)?;
    }
    for (i, shape) in outputs.iter().enumerate() {
        binding.bind_output_owned(&format!("o{i}"), Tensor::zeros(DType::F32, shape)?)?;
    }
    Ok(binding)
}

fn graph(op: &str, inputs: &[Tensor], outputs: &[&[usize]]) -> Result<Vec<u8>> {
    let mut graph = Graph::new(op, 17);
    let mut from = Vec::new();
    for (i, t) in inputs.iter().enumerate() {
        let ty = ValueType::known(t.dtype(), t.shape());
        from.push(Some(graph.add_input(&format!("i{i}"), ty)?));
    }
    let mut to = Vec::new();
    for i in 0..outputs.len() {
        let output = graph.add_value(&format!("o{i}"))?;
        graph.add_output(output);
        to.push(Some(output));
    }
    let attributes = match op {
        "CrossEntropy" | "CrossEntropyGrad" => {
            vec![("ignore_index", Attribute::Int(-100)), ("label_smoothing", Attribute::Float(0.0))]
        }
        "MatMulBf16" | "MatMulF32" => vec![
            ("transA", Attribute::Int(0)),
            ("transB", Attribute::Int(0)),
            ("alpha", Attribute::Float(1.0)),
        ],
        _ => Vec::new(),
    };
    graph.push_node(Node {
        name: String::new(),
        op: op.into(),
        domain: mmopt::onnx::MMOPT_DOMAIN.into(),
        inputs: from,
        outputs: to,
        attributes: attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
    });
    kernels::attach(&mut graph)?;
    graph.to_bytes()
}
