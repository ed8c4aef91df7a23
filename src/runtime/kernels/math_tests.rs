//! The loops of the kernels against f64, and their builds against each other.

use super::*;

#[test]
fn exp_is_close_everywhere() {
    let mut worst = 0f64;
    for i in -8730..=8830 {
        let x = i as f32 * 0.01;
        let exact = f64::from(x).exp();
        worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
    }
    assert!(worst < 2e-7, "{worst}");
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-100.0), 0.0);
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(exp(89.0), f32::INFINITY);
    assert!(exp(f32::NAN).is_nan());
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_build_gives_the_same_bits() {
    let value = |i: usize, k: usize| ((i * 7919 + k * 104_729) % 2001) as f32 * 0.004 - 4.0;
    let series = |k: usize| (0..1003).map(|i| value(i, k)).collect::<Vec<_>>();
    let (a, b, gamma) = (series(1), series(2), series(3)[..59].to_vec());
    let run = || {
        let mut out = vec![vec![0f32; 1003]; 9];
        let [o0, o1, o2, o3, o4, o5, o6, o7, o8] = &mut out[..] else { unreachable!() };
        masked(o8, &a, (1 << 31) - 300, 1 << 29, 1.25);
        gelu_grad(o0, &a, &b);
        gelu_tanh_grad(o1, &a, &b);
        gelu(o6, &a);
        gelu_tanh(o7, &a);
        softmax_grad(o2, &a, &b, 59);
        scaled_softmax(o3, &a, 1.5, 0.3, 0.01);
        let (dgamma, dbeta) = o5.split_at_mut(500);
        layer_norm_grad(o4, &mut dgamma[..59], &mut dbeta[..59], &a, &b, &gamma, &a, &b);
        add(&mut o5[200..], &a);
        let (lse, sum) = log_sum_exp(&a);
        out.push(vec![lse, sum as f32]);
        out.concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    let native = isa();
    let expected = run();
    for forced in [Isa::Base, Isa::Avx2] {
        if forced == Isa::Avx2 && native == Isa::Base {
            println!("not run: no AVX2");
            continue;
        }
        FORCED.with(|f| f.set(Some(forced)));
        assert_eq!(run(), expected, "{forced:?}");
    }
    FORCED.with(|f| f.set(None));
}
