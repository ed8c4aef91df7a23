//! What a host of gradient mode may hand over, and what it is told when it goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::Kind;
use mmopt::optim::{
    Buffers, ModelSpec, Optimizer, Options, ParamSpec, StridedBuffer, StridedBuffers,
};
use mmopt::tensor::DType;

fn plain() -> Options {
    Options { n_threads: 1, ..Options::adamw() }
}

fn one(name: &str, shape: &[usize]) -> ModelSpec {
    ModelSpec::new(name, vec![ParamSpec::new("w", shape)])
}

fn give(o: &mut Optimizer, model: usize, g: f32) {
    o.gradient_mut(model, 0).unwrap().as_mut_slice::<f32>().unwrap().fill(g);
}

/// Only models that take part in a step count as updated.
#[test]
fn updated_models_are_counted() {
    let mut o = Optimizer::new(plain(), vec![one("a", &[2]), one("b", &[2])]).unwrap();
    o.bind_owned(0, DType::F32).unwrap();
    o.bind_owned(1, DType::F32).unwrap();
    give(&mut o, 0, 1.0);
    o.accumulate(0, 1.0).unwrap();
    assert_eq!(o.step().unwrap().updated, 1);
    o.set_trainable("*", "*", false).unwrap();
    o.accumulate(1, 1.0).unwrap();
    assert_eq!(o.step().unwrap().updated, 0);
}

/// A parameter without elements may have null pointers.
#[test]
fn a_parameter_without_elements_needs_no_memory() {
    let params = vec![ParamSpec::new("empty", &[0, 3]), ParamSpec::new("w", &[2])];
    let mut o = Optimizer::new(plain(), vec![ModelSpec::new("m", params)]).unwrap();
    let (mut p, mut g) = ([1.0f32; 2], [1.0f32; 2]);
    let none = std::ptr::null_mut();
    let buffers = vec![Buffers::new(none, none), Buffers::new(p.as_mut_ptr(), g.as_mut_ptr())];
    // SAFETY: the arrays outlive the optimizer and lie still.
    unsafe { o.bind(0, buffers) }.unwrap();
    o.accumulate(0, 1.0).unwrap();
    assert_eq!(o.step().unwrap().updated, 1);
    drop(o);
    assert!(p[0] < 1.0);
}

/// Without accumulation the step reads one gradient: a second micro-batch would be lost.
#[test]
fn more_micro_batches_than_a_step_reads_are_refused() {
    let mut o = Optimizer::new(plain(), vec![one("m", &[2])]).unwrap();
    o.bind_owned(0, DType::F32).unwrap();
    give(&mut o, 0, 1.0);
    o.accumulate(0, 1.0).unwrap();
    let e = o.accumulate(0, 1.0).unwrap_err();
    assert_eq!(e.kind(), Kind::State);
    for word in ["'m'", "gradient_accumulation_steps"] {
        assert!(e.message().contains(word), "{e}");
    }
    o.step().unwrap();
    o.accumulate(0, 1.0).unwrap();
    o.zero_grad();
    o.accumulate(0, 1.0).unwrap();
}

/// An error of strides says whose they are.
#[test]
fn a_stride_error_names_value_or_gradient() {
    let (mut p, mut g) = ([1.0f32; 64], [1.0f32; 64]);
    let mut place = |strides: [Option<Vec<i64>>; 2]| {
        let [value, gradient] = strides;
        let of = |data: *mut f32, strides| StridedBuffer {
            strides,
            ..StridedBuffer::dense(data.cast(), DType::F32)
        };
        StridedBuffers { value: of(p.as_mut_ptr(), value), gradient: of(g.as_mut_ptr(), gradient) }
    };
    let mut check = |strides: [Option<Vec<i64>>; 2], words: &[&str]| {
        let mut o = Optimizer::new(plain(), vec![one("m", &[3, 4])]).unwrap();
        // SAFETY: refused, so nothing is used.
        let e = unsafe { o.bind_strided(0, vec![place(strides)]) }.unwrap_err();
        for word in ["'m'", "'w'"].iter().chain(words) {
            assert!(e.message().contains(word), "{word}: {e}");
        }
    };
    check([Some(vec![0, 1]), None], &["value", "broadcast"]);
    check([None, Some(vec![0, 1])], &["gradient", "broadcast"]);
    check([Some(vec![1]), None], &["value", "1 stride for 2 dimensions"]);
    check([None, Some(vec![1])], &["gradient", "1 stride for 2 dimensions"]);
}

/// A host that frees its gradients must name each again; one that does not promises to keep them.
#[test]
fn a_gradient_that_was_read_is_not_read_again() {
    for steps in [1, 2] {
        let options = Options { gradient_accumulation_steps: steps, ..plain() };
        let mut o = Optimizer::new(options, vec![one("m", &[2]), one("n", &[2])]).unwrap();
        o.bind_owned(0, DType::F32).unwrap();
        o.bind_owned(1, DType::F32).unwrap();
        give(&mut o, 0, 1.0);
        o.set_stable_gradients(0, false).unwrap();
        o.accumulate(0, 1.0).unwrap();
        let place = o.gradient_mut(0, 0).unwrap().bytes_mut().as_mut_ptr();
        if steps == 2 {
            assert_eq!(o.accumulate(0, 1.0).unwrap_err().kind(), Kind::State);
        }
        o.step().unwrap();
        let before = o.values(0, 0).unwrap().to_vec();
        let e = o.accumulate(0, 1.0).unwrap_err();
        assert_eq!(e.kind(), Kind::State);
        for word in ["'m'", "'w'", "stable_gradients"] {
            assert!(e.message().contains(word), "{e}");
        }
        // The other model's gradients stay where they are.
        o.accumulate(1, 1.0).unwrap();
        o.step().unwrap();
        // SAFETY: the tensor lives in the optimizer and does not move.
        unsafe { o.set_gradient(0, 0, place, DType::F32) }.unwrap();
        o.accumulate(0, 1.0).unwrap();
        o.step().unwrap();
        assert!(o.values(0, 0).unwrap()[0] < before[0]);
        // No gradient is nothing to be stale.
        // SAFETY: none is read.
        unsafe { o.set_gradient(0, 0, std::ptr::null_mut(), DType::F32) }.unwrap();
        o.accumulate(0, 1.0).unwrap();
        o.step().unwrap();
        o.accumulate(0, 1.0).unwrap();
        o.step().unwrap();
    }
}

/// Values that moved train on as if they had not, masters and strides included.
#[test]
fn values_can_move() {
    for dtype in [DType::F32, DType::BF16] {
        let spec = || ModelSpec {
            params: vec![ParamSpec { dtype, ..ParamSpec::new("w", &[2, 3]) }],
            ..one("m", &[])
        };
        let bits = |x: f32| match dtype {
            DType::F32 => x.to_bits(),
            _ => half::bf16::from_f32(x).to_bits().into(),
        };
        // Room for one matrix, two elements apart in every place.
        let mut rooms = [[0u32; 16]; 3];
        let mut gradient = [0.3f32, -0.2, 0.1, 0.7, -0.4, 0.9];
        let element = |i: usize, spread: bool| if spread { 2 * i + 1 } else { i };
        let at = |room: &[u32; 16], i: usize| match dtype {
            DType::F32 => room[i],
            _ => bytemuck::cast_slice::<u32, u16>(room)[i].into(),
        };
        let set = |room: &mut [u32; 16], i: usize, x: u32| match dtype {
            DType::F32 => room[i] = x,
            _ => bytemuck::cast_slice_mut::<u32, u16>(room)[i] = x as u16,
        };
        for i in 0..6 {
            set(&mut rooms[0], i, bits(1.0 + i as f32));
            set(&mut rooms[1], i, bits(1.0 + i as f32));
        }
        let [still, moving, third] = &mut rooms;
        let place = |room: &mut [u32; 16], spread: bool| StridedBuffer {
            strides: spread.then(|| vec![6, 2]),
            ..StridedBuffer::dense(
                room.as_mut_ptr().cast::<u8>().wrapping_add(if spread { dtype.size() } else { 0 }),
                dtype,
            )
        };
        let options = Options { learning_rate: 1e-3, ..plain() };
        let mut make = |room: &mut [u32; 16]| {
            let mut o = Optimizer::new(options.clone(), vec![spec()]).unwrap();
            let gradient = StridedBuffer::dense(gradient.as_mut_ptr().cast(), DType::F32);
            let buffers = StridedBuffers { value: place(room, false), gradient };
            // SAFETY: the arrays outlive the optimizers and lie still.
            unsafe { o.bind_strided(0, vec![buffers]) }.unwrap();
            o
        };
        let (mut a, mut b) = (make(still), make(moving));
        let step = |o: &mut Optimizer| {
            o.accumulate(0, 1.0).unwrap();
            o.step().unwrap();
        };
        (0..5).for_each(|_| step(&mut a));
        (0..5).for_each(|_| step(&mut b));
        for i in 0..6 {
            set(third, element(i, true), at(moving, i));
        }
        let before = *moving;
        // SAFETY: as above.
        unsafe { b.set_value(0, 0, &place(third, true)) }.unwrap();
        (0..5).for_each(|_| step(&mut a));
        (0..5).for_each(|_| step(&mut b));
        for i in 0..6 {
            assert_eq!(at(third, element(i, true)), at(still, i), "{dtype}");
        }
        assert_eq!(*moving, before);
        assert!((0..7).all(|i| at(third, 2 * i) == 0), "{dtype}: {third:?}");
    }
}

#[test]
fn values_move_to_memory_of_their_own_only() {
    let mut o = Optimizer::new(plain(), vec![one("a", &[2]), one("b", &[2])]).unwrap();
    let (mut p, mut g) = ([1.0f32; 8], [1.0f32; 4]);
    let (p, g) = (p.as_mut_ptr(), g.as_mut_ptr());
    // SAFETY: the arrays outlive the optimizer and lie still.
    unsafe {
        o.bind(0, vec![Buffers::new(p, g)]).unwrap();
        o.bind(1, vec![Buffers::new(p.add(2), g.add(2))]).unwrap();
        let at = |p: *mut f32| StridedBuffer::dense(p.cast(), DType::F32);
        for (bad, word) in [
            (at(p.add(1)), "also that of"),
            (at(g), "gradient of"),
            (at(std::ptr::null_mut()), "null"),
            (StridedBuffer { dtype: DType::BF16, ..at(p.add(4)) }, "bf16"),
            (StridedBuffer { strides: Some(vec![0]), ..at(p.add(4)) }, "broadcast"),
        ] {
            let e = o.set_value(1, 0, &bad).unwrap_err();
            assert!(e.message().contains(word), "{word}: {e}");
        }
        o.step().unwrap();
        let values = std::slice::from_raw_parts(p, 8);
        assert!(values[..4].iter().all(|x| *x < 1.0) && values[4..].iter().all(|x| *x == 1.0));
        o.set_value(1, 0, &at(p.add(4))).unwrap();
        o.step().unwrap();
        let values = std::slice::from_raw_parts(p, 8);
        assert!(values[4] < 1.0 && values[2] > values[0]);
    }
}
