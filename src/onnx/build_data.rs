//! More builders: reductions, and moving data (concatenate, slice, gather, scatter, pad).

use super::build::{Build, broadcast, check_constant, positive_axis};
use super::graph::{Attribute, ValueId};
use crate::error::{Error, Result};
use crate::tensor::{DType, element_count};

impl Build<'_> {
    /// `op` (`ReduceSum`, `ReduceMean`, …) over `axes`; no axes leave x as it is.
    pub fn reduce(&mut self, op: &str, x: ValueId, axes: &[usize], keep: bool) -> Result<ValueId> {
        if axes.is_empty() {
            return Ok(x);
        }
        let (dtype, shape) = (self.dtype(x)?, self.shape(x)?);
        let kept = shape.iter().enumerate().filter_map(|(i, &d)| match axes.contains(&i) {
            true => keep.then_some(1),
            false => Some(d),
        });
        let out: Vec<usize> = kept.collect();
        let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
        let keep = ("keepdims", Attribute::Int(keep.into()));
        if op == "ReduceSum" || self.graph().opset() >= 18 {
            let axes = self.ints(&axes)?;
            return Ok(self.emit(op, &[x, axes], (dtype, &out), [keep]));
        }
        Ok(self.emit(op, &[x], (dtype, &out), [keep, ("axes", Attribute::Ints(axes))]))
    }

    /// Sum over `axes`, kept with size 1.
    pub fn sum_keep(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        self.reduce("ReduceSum", x, axes, true)
    }

    /// Mean over `axes`, kept with size 1.
    pub fn mean_keep(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId> {
        self.reduce("ReduceMean", x, axes, true)
    }

    /// Undoes broadcasting: sums x over what was repeated from `shape`, and repeats where x
    /// itself is still smaller. The result has exactly `shape`.
    pub fn sum_to(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId> {
        let from = self.shape(x)?;
        if from == shape {
            return Ok(x);
        }
        let lead = from.len().saturating_sub(shape.len());
        let repeated = |i: usize| i < lead || (shape[i - lead] == 1 && from[i] != 1);
        let rank_ok = from.len() >= shape.len();
        let axes: Vec<usize> =
            if rank_ok { (0..from.len()).filter(|&i| repeated(i)).collect() } else { Vec::new() };
        let summed = self.sum_keep(x, &axes)?;
        let now = self.shape(summed)?;
        let trimmed = if rank_ok { &now[lead..] } else { &now[..] }.to_vec();
        let trimmed = self.reshape(summed, &trimmed)?;
        self.expand(trimmed, shape)
    }

    /// Softmax or LogSoftmax along `axis`.
    pub fn softmax(&mut self, op: &str, x: ValueId, axis: usize) -> Result<ValueId> {
        let (dtype, shape) = (self.dtype(x)?, self.shape(x)?);
        Ok(self.emit(op, &[x], (dtype, &shape), [("axis", Attribute::Int(axis as i64))]))
    }

    /// Tensors joined along `axis`.
    pub fn concat(&mut self, xs: &[ValueId], axis: usize) -> Result<ValueId> {
        let &[first, ..] = xs else { return Err(Error::shape("nothing to join")) };
        if xs.len() == 1 {
            return Ok(first);
        }
        let (dtype, mut shape) = (self.dtype(first)?, self.shape(first)?);
        let mut total = 0;
        for &x in xs {
            total += self.shape(x)?.get(axis).copied().unwrap_or(0);
        }
        *shape.get_mut(axis).ok_or_else(|| Error::shape(format!("no axis {axis}")))? = total;
        Ok(self.emit("Concat", xs, (dtype, &shape), [("axis", Attribute::Int(axis as i64))]))
    }

    /// x cut along `axis` into pieces of the given sizes.
    pub fn split(&mut self, x: ValueId, axis: usize, sizes: &[usize]) -> Result<Vec<ValueId>> {
        let (dtype, shape) = (self.dtype(x)?, self.shape(x)?);
        if shape.get(axis) != Some(&sizes.iter().sum()) {
            return Err(Error::shape(format!("{shape:?} split into {sizes:?} along {axis}")));
        }
        let piece = |&n: &usize| {
            let mut piece = shape.clone();
            piece[axis] = n;
            (dtype, piece)
        };
        let types: Vec<_> = sizes.iter().map(piece).collect();
        let sizes = self.ints(&sizes.iter().map(|&n| n as i64).collect::<Vec<_>>())?;
        let axis = [("axis", Attribute::Int(axis as i64))];
        Ok(self.emit_n("Split", &[Some(x), Some(sizes)], &types, axis))
    }

    /// `x[.., start..end, ..]` along `axis`.
    pub fn slice(
        &mut self,
        x: ValueId,
        axis: usize,
        (start, end): (usize, usize),
    ) -> Result<ValueId> {
        let (dtype, mut shape) = (self.dtype(x)?, self.shape(x)?);
        if axis >= shape.len() || start > end || end > shape[axis] {
            return Err(Error::shape(format!("{start}..{end} of {shape:?} along {axis}")));
        }
        if end - start == shape[axis] {
            return Ok(x);
        }
        shape[axis] = end - start;
        let starts = self.ints(&[start as i64])?;
        let ends = self.ints(&[end as i64])?;
        let axes = self.ints(&[axis as i64])?;
        Ok(self.emit("Slice", &[x, starts, ends, axes], (dtype, &shape), []))
    }

    /// Zeros put before and after along each axis; negative counts cut off.
    pub fn pad(&mut self, x: ValueId, before: &[i64], after: &[i64]) -> Result<ValueId> {
        let (dtype, shape) = (self.dtype(x)?, self.shape(x)?);
        if before.len() != shape.len() || after.len() != shape.len() {
            let n = before.len();
            return Err(Error::shape(format!("{shape:?} padded along {n} axes")));
        }
        let dims = shape.iter().zip(before).zip(after);
        let out = dims
            .map(|((&d, &b), &a)| usize::try_from((d as i64).saturating_add(b).saturating_add(a)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::shape(format!("{shape:?} padded by {before:?}, {after:?}")))?;
        if before.iter().chain(after).all(|&p| p == 0) {
            return Ok(x);
        }
        let pads = self.ints(&[before, after].concat())?;
        Ok(self.emit("Pad", &[x, pads], (dtype, &out), []))
    }

    /// Rows (along `axis`) of x at `indices`.
    pub fn gather(&mut self, x: ValueId, indices: ValueId, axis: usize) -> Result<ValueId> {
        let (dtype, shape) = (self.dtype(x)?, self.shape(x)?);
        if axis >= shape.len() {
            return Err(Error::shape(format!("axis {axis} of {shape:?}")));
        }
        let out = [&shape[..axis], &self.shape(indices)?, &shape[axis + 1..]].concat();
        let axis = [("axis", Attribute::Int(axis as i64))];
        Ok(self.emit("Gather", &[x, indices], (dtype, &out), axis))
    }

    /// Elements of x at `indices` along `axis`.
    pub fn gather_elements(
        &mut self,
        x: ValueId,
        indices: ValueId,
        axis: usize,
    ) -> Result<ValueId> {
        let (dtype, shape) = (self.dtype(x)?, self.shape(indices)?);
        let axis = [("axis", Attribute::Int(axis as i64))];
        Ok(self.emit("GatherElements", &[x, indices], (dtype, &shape), axis))
    }

    /// `base` with `updates` put (or, with `add`, added) at `indices` along `axis`.
    pub fn scatter(
        &mut self,
        base: ValueId,
        (indices, updates): (ValueId, ValueId),
        axis: usize,
        add: bool,
    ) -> Result<ValueId> {
        let (dtype, shape) = (self.dtype(base)?, self.shape(base)?);
        let how = if add { "add" } else { "none" };
        let attributes = [
            ("axis", Attribute::Int(axis as i64)),
            ("reduction", Attribute::String(how.to_owned())),
        ];
        Ok(self.emit("ScatterElements", &[base, indices, updates], (dtype, &shape), attributes))
    }

    /// Zeros of `[rows, width]` with row i of `updates` `[n, width]` added at row `indices[i]`.
    pub fn add_rows(&mut self, rows: usize, indices: ValueId, updates: ValueId) -> Result<ValueId> {
        let (dtype, shape) = (self.dtype(updates)?, self.shape(updates)?);
        let &[n, width] = &shape[..] else {
            return Err(Error::shape(format!("rows of {shape:?}")));
        };
        let base = self.zeros(dtype, &[rows, width])?;
        let indices = self.reshape(indices, &[n, 1])?;
        let indices = self.expand(indices, &[n, width])?;
        self.scatter(base, (indices, updates), 0, true)
    }

    /// Sum of tensors, in the given order; shapes broadcast.
    pub fn sum(&mut self, xs: &[ValueId]) -> Result<ValueId> {
        match xs {
            [] => Err(Error::internal("sum of nothing")),
            [x] => Ok(*x),
            [a, b] => self.add(*a, *b),
            [first, rest @ ..] => {
                let mut shape = self.shape(*first)?;
                for &x in rest {
                    shape = broadcast(&shape, &self.shape(x)?)?;
                }
                let dtype = self.dtype(*first)?;
                Ok(self.emit("Sum", xs, (dtype, &shape), []))
            }
        }
    }

    /// Number of elements of x.
    pub fn count(&self, x: ValueId) -> Result<usize> {
        element_count(&self.shape(x)?)
    }

    /// `axes` counted from the front, sorted; `None` means all.
    pub fn axes_or_all(&self, x: ValueId, axes: Option<&[i64]>) -> Result<Vec<usize>> {
        let rank = self.rank(x)?;
        let Some(axes) = axes else { return Ok((0..rank).collect()) };
        let mut axes = axes.iter().map(|&a| positive_axis(a, rank)).collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(axes)
    }

    /// int64 positions `0..n`.
    pub fn positions(&mut self, n: usize) -> Result<ValueId> {
        check_constant(n)?;
        self.ints(&(0..n as i64).collect::<Vec<_>>())
    }

    /// Whether x can have a gradient: its element type is a float.
    pub fn is_float(&self, x: ValueId) -> bool {
        self.graph().value(x).ty.dtype.is_some_and(DType::is_float)
    }
}
