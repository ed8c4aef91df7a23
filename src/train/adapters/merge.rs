//! An adapter added to the matrix beside it.

use crate::error::Result;
use crate::memory::zeros;
use crate::optim::WeightLayout;
use crate::tensor::Tensor;

/// `W + scale · B A`, in W's layout: A is `[r, in]`, B `[out, r]`, W `[out, in]` or `[in, out]`.
/// Sums are in f64 and rounded once.
pub(super) fn merged(
    weight: &Tensor,
    a: &Tensor,
    b: &Tensor,
    scale: f64,
    layout: WeightLayout,
) -> Result<Tensor> {
    let mut merged = weight.copy()?;
    let (rank, n_in) = (a.shape()[0], a.shape()[1]);
    let n_out = b.shape()[0];
    let (a, b) = (a.as_slice::<f32>()?, b.as_slice::<f32>()?);
    let values = merged.as_mut_slice::<f32>()?;
    let mut row = zeros::<f64>(n_in)?;
    for o in 0..n_out {
        row.fill(0.0);
        for k in 0..rank {
            let factor = scale * f64::from(b[o * rank + k]);
            let a = &a[k * n_in..(k + 1) * n_in];
            row.iter_mut().zip(a).for_each(|(sum, &a)| *sum += factor * f64::from(a));
        }
        for (i, &change) in row.iter().enumerate() {
            let at = match layout {
                WeightLayout::OutIn => o * n_in + i,
                WeightLayout::InOut => i * n_out + o,
            };
            values[at] = (f64::from(values[at]) + change) as f32;
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_get_the_product() {
        let a = Tensor::from_slice(&[1, 3], &[1f32, 2.0, 3.0]).unwrap();
        let b = Tensor::from_slice(&[2, 1], &[1f32, -1.0]).unwrap();
        let out_in = Tensor::from_slice(&[2, 3], &[0f32, 0.0, 0.0, 1.0, 1.0, 1.0]).unwrap();
        let got = merged(&out_in, &a, &b, 2.0, WeightLayout::OutIn).unwrap();
        assert_eq!(got.as_slice::<f32>().unwrap(), [2.0, 4.0, 6.0, -1.0, -3.0, -5.0]);
        let in_out = Tensor::from_slice(&[3, 2], &[0f32, 1.0, 0.0, 1.0, 0.0, 1.0]).unwrap();
        let got = merged(&in_out, &a, &b, 2.0, WeightLayout::InOut).unwrap();
        assert_eq!(got.as_slice::<f32>().unwrap(), [2.0, -1.0, 4.0, -3.0, 6.0, -5.0]);
    }
}
