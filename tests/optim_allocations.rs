//! A step allocates nothing after the first, and sharing needs no buffer of a parameter's size.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/small_optimizer.rs"]
mod small_optimizer;

use mmopt::optim::{Options, SharePolicy, ShareRule};
use small_optimizer::{give_gradients, models, optimizer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn check(name: &str, options: Options) {
    let specs = models();
    let mut o = optimizer(Options { n_threads: 2, ..options }, &specs);
    let smallest_matrix = 72 * 72 * 4;
    give_gradients(&mut o, &specs, 1);
    let bytes = BYTES.load(Ordering::Relaxed);
    o.step().unwrap();
    let first = BYTES.load(Ordering::Relaxed) - bytes;
    assert!(first < smallest_matrix, "{name}: the first step allocated {first} bytes");
    for step in 2..14 {
        give_gradients(&mut o, &specs, step);
        (0..3).for_each(|m| o.log_loss(m, 1.0 / step as f64).unwrap());
        let calls = CALLS.load(Ordering::Relaxed);
        o.step().unwrap();
        let calls = CALLS.load(Ordering::Relaxed) - calls;
        assert_eq!(calls, 0, "{name}: step {step} allocated");
    }
}

/// One test, because the counter is the process's.
#[test]
fn steps_do_not_allocate() {
    let aligned = Options::default();
    check("default", aligned.clone());
    check("gated", Options { share_rule: ShareRule::Gated, ..aligned.clone() });
    check("plain", Options::adamw());
    check("paper", Options { max_grad_norm: 1.0, ..Options::paper() });
    check(
        "mean and sync",
        Options { share_rule: ShareRule::Mean, sync_every: 1, ..aligned.clone() },
    );
    check(
        "project",
        Options { share_rule: ShareRule::Project, share_policy: SharePolicy::Aligned, ..aligned },
    );
}
