//! Muon's second half: orthogonalising the momentum matrices and updating the parameters.
//!
//! U ← U/‖U‖, then five times X ← aX + (bA + cA²)X with A = XXᵀ (Newton and Schulz's iteration
//! with Jordan's coefficients), on the side with fewer rows; then
//! p ← p − η(λp + 0.2·√max(rows, cols)·s·X), which gives an update the size of AdamW's.

use crate::error::Result;
use crate::optim::kernel::simd::Build;
use crate::optim::kernel::transpose::Rectangle;
use crate::optim::kernel::{reduce, transpose};
use crate::optim::pool::Pool;
use crate::optim::sweep::buffers::ParamBuffers;
use crate::optim::sweep::product::{Extent, Packed, combine, grow};

const A: f32 = 3.4445;
const B: f32 = -4.7750;
const C: f32 = 2.0315;
const ROUNDS: usize = 5;

/// Memory for one matrix at a time, as large as the largest; only with Muon.
#[derive(Default)]
pub(in crate::optim) struct Orthogonaliser {
    x: Vec<f32>,
    square: Vec<f32>,
    poly: Vec<f32>,
    next: Vec<f32>,
    packed: Packed,
}

impl Orthogonaliser {
    /// Makes room for a matrix.
    pub fn reserve(&mut self, [rows, cols]: [usize; 2]) -> Result<()> {
        let (m, n) = (rows.min(cols), rows.max(cols));
        grow(&mut self.x, m * n)?;
        grow(&mut self.square, m * m)?;
        grow(&mut self.poly, m * m)?;
        grow(&mut self.next, m * n)?;
        self.packed.reserve([m, n])
    }

    /// Updates a matrix, after the sweep has put its momentum into v; s is the factor on the rate.
    ///
    /// # Safety
    /// Values and second moment must be valid for the matrix, and nobody else may use them.
    pub unsafe fn update(
        &mut self,
        pool: &mut Pool,
        build: Build,
        [rows, cols]: [usize; 2],
        buffers: &ParamBuffers,
        [rate, weight_decay, s]: [f64; 3],
    ) -> Result<()> {
        let (m, n) = (rows.min(cols), rows.max(cols));
        self.reserve([rows, cols])?;
        // SAFETY: the caller's promise.
        let u = unsafe { std::slice::from_raw_parts(buffers.v.cast::<f32>(), rows * cols) };
        if rows > cols {
            let to = &mut self.x[..rows * cols];
            transpose::transpose(build, u, Rectangle::dense(rows, cols), to, rows);
        } else {
            self.x[..rows * cols].copy_from_slice(u);
        }
        self.orthogonalise(pool, build, m, n)?;
        let size = 0.2 * (n as f64).sqrt() * s;
        let (step, decay) = ((rate * size) as f32, (rate * weight_decay) as f32);
        let x = if rows > cols {
            let to = &mut self.next[..m * n];
            transpose::transpose(build, &self.x[..m * n], Rectangle::dense(m, n), to, m);
            &self.next
        } else {
            &self.x
        };
        // SAFETY: the caller's promise.
        let values = unsafe { std::slice::from_raw_parts_mut(buffers.p, rows * cols) };
        values.iter_mut().zip(x).for_each(|(p, x)| *p -= decay * *p + step * x);
        Ok(())
    }

    /// Orthogonalises the m × n matrix in `x`, m ≤ n.
    fn orthogonalise(&mut self, pool: &mut Pool, build: Build, m: usize, n: usize) -> Result<()> {
        let Self { x, square, poly, next, packed } = self;
        let (x, next) = (&mut x[..m * n], &mut next[..m * n]);
        let (square, poly) = (&mut square[..m * m], &mut poly[..m * m]);
        let norm = reduce::dot(build, x, x).sqrt();
        let scale = (1.0 / (norm + 1e-7)) as f32;
        x.iter_mut().for_each(|x| *x *= scale);
        for _ in 0..ROUNDS {
            packed.gram(pool, build, [m, n], x, square)?;
            // The square of a symmetric matrix is symmetric to the bit.
            packed.product(pool, build, [m, m, m], [square, square], Extent::Symmetric, poly)?;
            combine(pool, poly, square, |p, s| B * s + C * p)?;
            packed.product(pool, build, [m, m, n], [poly, x], Extent::Full, next)?;
            combine(pool, x, next, |x, y| A * x + y)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::optim::{Method, ModelSpec, Optimizer, Options, ParamSpec};
    use crate::tensor::DType;

    /// With no decay the step itself must be a nearly orthogonal matrix of AdamW's size.
    #[test]
    fn steps_of_matrices_are_nearly_orthogonal() {
        for shape in [[24, 40], [40, 24]] {
            let name = "layer.0.intermediate.dense.weight";
            let specs = vec![ModelSpec::new("m", vec![ParamSpec::new(name, &shape)])];
            let options = Options {
                method: Method::Muon,
                weight_decay: 0.0,
                learning_rate: 0.5,
                n_threads: 2,
                ..Options::adamw()
            };
            let mut o = Optimizer::new(options, specs).unwrap();
            o.bind_owned(0, DType::F32).unwrap();
            let g = o.gradient_mut(0, 0).unwrap().as_mut_slice::<f32>().unwrap();
            for (i, g) in g.iter_mut().enumerate() {
                *g = ((i * 7919) % 101) as f32 - 50.0;
            }
            o.step().unwrap();
            let size = 0.5 * 0.2 * 40f32.sqrt();
            let x: Vec<f32> = o.values(0, 0).unwrap().iter().map(|p| -p / size).collect();
            let at = |i: usize, e: usize| {
                if shape[0] < shape[1] { x[i * 40 + e] } else { x[e * 24 + i] }
            };
            for i in 0..24 {
                let square: f32 = (0..40).map(|e| at(i, e) * at(i, e)).sum();
                assert!((0.4..1.5).contains(&square), "{square}");
                let off: f32 = (0..40).map(|e| at(i, e) * at((i + 1) % 24, e)).sum();
                assert!(off.abs() < 0.35, "{off}");
            }
        }
    }
}
