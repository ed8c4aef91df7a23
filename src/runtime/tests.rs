//! Sessions and bindings against the stock runtime.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::error::Kind;
use crate::tensor::{DType, Tensor};

#[path = "../../tests/common/tiny_onnx.rs"]
mod tiny_onnx;

use tiny_onnx::{Dim, F32, I64, attr_int, model, node, untyped, value};

/// y = a · b + a over `[batch, 2]`, and n = shape of y.
fn affine() -> Vec<u8> {
    let rows = [Dim::Free("batch"), Dim::Fixed(2)];
    model(
        17,
        &[
            node("Mul", "", &["a", "b"], &["ab"], &[]),
            node("Add", "", &["ab", "a"], &["y"], &[]),
            node("Shape", "", &["y"], &["n"], &[]),
        ],
        &[value("a", F32, &rows), value("b", F32, &rows)],
        &[value("y", F32, &rows), value("n", I64, &[Dim::Fixed(2)])],
        &[],
    )
}

fn session(model: &[u8]) -> Session {
    Session::from_bytes(model, &SessionOptions { name: "tiny".into(), ..Default::default() })
        .unwrap()
}

fn rows(data: &[f32]) -> Tensor {
    Tensor::from_slice(&[data.len() / 2, 2], data).unwrap()
}

#[test]
fn describes_inputs_and_outputs() {
    let session = session(&affine());
    let a = &session.inputs()[0];
    assert_eq!((a.name.as_str(), a.dtype), ("a", Some(DType::F32)));
    assert_eq!(a.shape, [None, Some(2)]);
    assert_eq!(a.symbols, [Some("batch".to_string()), None]);
    assert_eq!(a.dims(), "[batch, 2]");
    assert_eq!(session.outputs()[1].dtype, Some(DType::I64));
}

#[test]
fn fixes_named_dimensions() {
    let options = SessionOptions { dimensions: vec![("batch".into(), 5)], ..Default::default() };
    let session = Session::from_bytes(&affine(), &options).unwrap();
    assert_eq!(session.inputs()[0].shape, [Some(5), Some(2)]);
}

#[test]
fn runs_and_copies_out() {
    let session = session(&affine());
    let (a, b) = (rows(&[1., 2., 3., 4.]), rows(&[10., 20., 30., 40.]));
    let out = session.run(&[("b", &b), ("a", &a)], &["n", "y"]).unwrap();
    assert_eq!(out[0].as_slice::<i64>().unwrap(), [2, 2]);
    assert_eq!(out[1].as_slice::<f32>().unwrap(), [11., 42., 93., 164.]);
    assert_eq!(out[1].shape(), [2, 2]);
    let empty = Tensor::zeros(DType::F32, &[0, 2]).unwrap();
    let out = session.run(&[("a", &empty), ("b", &empty)], &["y"]).unwrap();
    assert_eq!(out[0].shape(), [0, 2]);
}

#[test]
fn wrong_inputs_are_told_by_name() {
    let session = session(&affine());
    let (a, odd) = (rows(&[1., 2.]), Tensor::zeros(DType::F32, &[1, 3]).unwrap());
    let ints = Tensor::zeros(DType::I64, &[1, 2]).unwrap();
    let check = |inputs: &[(&str, &Tensor)], outputs: &[&str], kind, part: &str| {
        let error = session.run(inputs, outputs).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().starts_with("session 'tiny': "), "{error}");
        assert!(error.message().contains(part), "{error}");
    };
    check(&[("a", &a)], &["y"], Kind::InvalidArgument, "without a value: 'b'");
    check(&[("a", &a), ("c", &a)], &["y"], Kind::NotFound, "no input 'c'; the model has 'a', 'b'");
    check(&[("a", &a), ("b", &a)], &["z"], Kind::NotFound, "no output 'z'");
    check(&[("a", &odd), ("b", &a)], &["y"], Kind::Shape, "input 'a': given with shape [1, 3]");
    check(&[("a", &ints), ("b", &a)], &["y"], Kind::InvalidArgument, "given as i64");
    let two = rows(&[1., 2., 3., 4.]);
    let three = Tensor::zeros(DType::F32, &[3, 2]).unwrap();
    check(&[("a", &two), ("b", &three)], &["y"], Kind::Runtime, "ONNX Runtime: ");
}

#[test]
fn broken_models_are_told() {
    let open = |bytes: &[u8]| Session::from_bytes(bytes, &SessionOptions::default()).unwrap_err();
    assert_eq!(open(b"").kind(), Kind::InvalidData);
    assert_eq!(open(b"no model at all").kind(), Kind::InvalidData);
    let unknown = model(
        17,
        &[node("NoSuchOp", "", &["a"], &["y"], &[])],
        &[value("a", F32, &[])],
        &[value("y", F32, &[])],
        &[],
    );
    let error = open(&unknown);
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().starts_with("session 'model': ONNX Runtime "), "{error}");
    assert!(error.message().contains("NoSuchOp at opset 17"), "{error}");
}

#[test]
fn a_file_opens_and_a_missing_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let error = Session::from_file(&path, &SessionOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    std::fs::write(&path, affine()).unwrap();
    let session = Session::from_file(&path, &SessionOptions::default()).unwrap();
    assert_eq!(session.outputs().len(), 2);
}

#[test]
fn raw_memory_is_read_and_written_in_place() {
    let mut session = session(&affine());
    let mut binding = session.bind().unwrap();
    let (mut a, mut y) = ([1f32, 2.], [0f32; 2]);
    // SAFETY: both arrays outlive the runs below and are not touched during them.
    unsafe {
        binding.bind_input_raw("a", DType::F32, &[1, 2], a.as_ptr().cast()).unwrap();
        binding.bind_output_raw("y", DType::F32, &[1, 2], y.as_mut_ptr().cast()).unwrap();
    }
    binding.bind_input_owned("b", rows(&[5., 7.])).unwrap();
    binding.run(&mut session).unwrap();
    assert_eq!(y, [6., 16.]);
    a[1] = 3.;
    std::hint::black_box(&mut a);
    binding.input_mut("b").unwrap().as_mut_slice::<f32>().unwrap()[0] = 9.;
    binding.run(&mut session).unwrap();
    assert_eq!(y, [10., 24.]);
    // Another tensor in the place of the bound one is read too.
    *binding.input_mut("b").unwrap() = rows(&[0., 0.]);
    binding.run(&mut session).unwrap();
    assert_eq!(y, [1., 3.]);
}

#[test]
fn bindings_refuse_what_does_not_fit() {
    let mut first = session(&affine());
    let mut second = session(&affine());
    let mut binding = first.bind().unwrap();
    let kind = |r: crate::Result<()>| r.unwrap_err().kind();
    assert_eq!(kind(binding.run(&mut first)), Kind::InvalidArgument); // inputs unbound
    binding.bind_input_owned("a", rows(&[1., 2.])).unwrap();
    binding.bind_input_owned("b", rows(&[1., 2.])).unwrap();
    assert_eq!(kind(binding.run(&mut first)), Kind::InvalidArgument); // no output
    assert_eq!(kind(binding.bind_input_owned("q", rows(&[1., 2.]))), Kind::NotFound);
    let ints = Tensor::zeros(DType::I64, &[1, 2]).unwrap();
    assert_eq!(kind(binding.bind_output_owned("y", ints)), Kind::InvalidArgument);
    // SAFETY: NULL is refused before it is used.
    let null = unsafe { binding.bind_output_raw("y", DType::F32, &[1, 2], std::ptr::null_mut()) };
    assert_eq!(kind(null), Kind::InvalidArgument);
    binding.bind_output_owned("y", rows(&[0.; 4])).unwrap();
    assert_eq!(kind(binding.run(&mut first)), Kind::Runtime); // shape known only when run
    binding.bind_output_owned("y", rows(&[0.; 2])).unwrap();
    assert_eq!(kind(binding.run(&mut second)), Kind::State);
    *binding.input_mut("a").unwrap() = Tensor::zeros(DType::F32, &[1, 3]).unwrap();
    assert_eq!(kind(binding.run(&mut first)), Kind::Shape); // put in place of the bound one
    *binding.input_mut("a").unwrap() = rows(&[1., 2.]);
    binding.run(&mut first).unwrap();
    assert_eq!(binding.output("y").unwrap().as_slice::<f32>().unwrap(), [2., 6.]);
    assert_eq!(binding.output("n").unwrap_err().kind(), Kind::NotFound);
    assert!(binding.input_mut("y").is_err());
}

#[test]
fn a_binding_outlives_its_session() {
    let mut session = session(&affine());
    let mut binding = session.bind().unwrap();
    binding.bind_input_owned("a", rows(&[1., 2.])).unwrap();
    binding.bind_input_owned("b", rows(&[3., 4.])).unwrap();
    binding.bind_output_owned("y", rows(&[0., 0.])).unwrap();
    binding.run(&mut session).unwrap();
    drop(session);
    assert_eq!(binding.output("y").unwrap().as_slice::<f32>().unwrap(), [4., 10.]);
}

#[test]
fn types_of_inner_values_are_found() {
    let nodes = [
        node("Transpose", "", &["a"], &["t"], &[]),
        node("MatMul", "", &["a", "t"], &["m"], &[]),
        node("ArgMax", "", &["m"], &["i"], &[attr_int("axis", 1), attr_int("keepdims", 0)]),
        node("SequenceConstruct", "", &["m", "m"], &["s"], &[]),
    ];
    let outputs = ["t", "m", "i", "s"].map(untyped);
    let inputs = [value("a", F32, &[Dim::Fixed(3), Dim::Fixed(4)])];
    let found = Session::probe_types(&model(17, &nodes, &inputs, &outputs, &[])).unwrap();
    let described = |i: usize| (found[i].name.as_str(), found[i].dtype, found[i].dims());
    assert_eq!(described(0), ("t", Some(DType::F32), "[4, 3]".into()));
    assert_eq!(described(1), ("m", Some(DType::F32), "[3, 3]".into()));
    assert_eq!(described(2), ("i", Some(DType::I64), "[3]".into()));
    assert_eq!(described(3), ("s", None, "[]".into()));
}

/// Square matrix products one after another: long enough to be stopped half-way.
fn slow() -> Vec<u8> {
    let side = [Dim::Fixed(768), Dim::Fixed(768)];
    let names: Vec<String> = (0..=200).map(|i| format!("x{i}")).collect();
    let nodes: Vec<_> =
        (0..200).map(|i| node("MatMul", "", &[&names[i], "x0"], &[&names[i + 1]], &[])).collect();
    model(17, &nodes, &[value("x0", F32, &side)], &[value("x200", F32, &side)], &[])
}

#[test]
fn a_run_is_cancelled_from_another_thread() {
    let session = session(&slow());
    let switch = session.cancel_token();
    let x = Tensor::zeros(DType::F32, &[768, 768]).unwrap();
    let (started, begun) = mpsc::channel();
    let elapsed = std::thread::scope(|scope| {
        let thrower = switch.clone();
        scope.spawn(move || {
            begun.recv().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            thrower.cancel();
        });
        started.send(()).unwrap();
        let clock = Instant::now();
        let error = session.run(&[("x0", &x)], &["x200"]).unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled, "{error}");
        clock.elapsed()
    });
    assert!(switch.is_cancelled());
    assert_eq!(session.run(&[("x0", &x)], &["x200"]).unwrap_err().kind(), Kind::Cancelled);
    switch.reset().unwrap();
    let clock = Instant::now();
    session.run(&[("x0", &x)], &["x200"]).unwrap();
    assert!(elapsed < clock.elapsed(), "the cancelled run took {elapsed:?}");
}

#[test]
fn sessions_run_side_by_side() {
    let expected = |k: f32| vec![k + k * k, 2. * k + 4. * k * k];
    std::thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || {
                let session = session(&affine());
                for i in 0..50 {
                    let k = (worker * 50 + i) as f32;
                    let x = rows(&[k, 2. * k]);
                    let out = session.run(&[("a", &x), ("b", &x)], &["y"]).unwrap();
                    assert_eq!(out[0].as_slice::<f32>().unwrap(), expected(k));
                }
            });
        }
    });
}

#[test]
fn cuda_is_used_or_its_lack_is_told() {
    let options = SessionOptions { device: Device::Cuda { id: 0 }, ..Default::default() };
    let a = rows(&[1., 2.]);
    match Session::from_bytes(&affine(), &options) {
        Ok(session) => {
            let out = session.run(&[("a", &a), ("b", &a)], &["y"]).unwrap();
            assert_eq!(out[0].as_slice::<f32>().unwrap(), [2., 6.]);
        }
        Err(error) => {
            println!("cuda not run: {error}");
            assert_eq!(error.kind(), Kind::RuntimeUnavailable, "{error}");
            assert!(error.message().contains("CUDAExecutionProvider"), "{error}");
        }
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let open = |o: SessionOptions| Session::from_bytes(&affine(), &o).unwrap_err().kind();
    let threads = SessionOptions { threads: usize::MAX, ..Default::default() };
    assert_eq!(open(threads), Kind::InvalidArgument);
    let name = SessionOptions { name: "a\0b".into(), ..Default::default() };
    assert_eq!(open(name), Kind::InvalidArgument);
}
