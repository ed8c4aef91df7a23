//! Strided buffers: tensors in the host's memory by element type, address and strides.
//!
//! A *stride* is the number of elements from one index of a dimension to the next; it may be
//! negative, and need not be 1 in the last dimension. No two elements may share memory.

use crate::error::{Error, Result};
use crate::tensor::{DType, element_count};

/// A tensor in the host's memory.
#[derive(Clone, Debug)]
pub struct StridedBuffer {
    /// The element whose indices are all 0, aligned to its own size; null where there is none.
    pub data: *mut u8,
    /// The element type.
    pub dtype: DType,
    /// One stride per dimension, in elements; `None`: dense and row-major.
    pub strides: Option<Vec<i64>>,
}

impl StridedBuffer {
    /// A dense, row-major tensor.
    pub fn dense(data: *mut u8, dtype: DType) -> Self {
        Self { data, dtype, strides: None }
    }
}

/// A checked strided buffer of `len` elements. Dimensions that lie dense within each other are
/// merged, and those of one element left out: a dense tensor has at most one, of stride 1.
#[derive(Clone, Debug)]
pub(in crate::optim) struct StridedArray {
    pub data: *mut u8,
    pub dtype: DType,
    pub len: usize,
    /// Size and stride, outermost first.
    dims: Vec<(usize, isize)>,
}

// SAFETY: the pointer is used only in unsafe functions whose callers vouch for the memory.
unsafe impl Send for StridedArray {}
// SAFETY: as above.
unsafe impl Sync for StridedArray {}

impl StridedArray {
    /// No memory.
    pub fn none() -> Self {
        Self { data: std::ptr::null_mut(), dtype: DType::F32, len: 0, dims: Vec::new() }
    }

    /// Checks a buffer of that shape: alignment, strides, no element twice.
    pub fn new(buffer: &StridedBuffer, shape: &[usize], what: &str) -> Result<Self> {
        let len = element_count(shape)?;
        let StridedBuffer { data, dtype, ref strides } = *buffer;
        if !(data as usize).is_multiple_of(dtype.size().max(1)) {
            let text = format!("its {what} pointer is not aligned to its elements ({dtype})");
            return Err(Error::invalid(text));
        }
        let dims = match strides {
            Some(strides) => merged(shape, strides, what)?,
            None => dense(len),
        };
        Ok(Self { data, dtype, len, dims })
    }

    /// Whether there is no memory.
    pub fn is_null(&self) -> bool {
        self.data.is_null()
    }

    /// Whether the elements lie row by row without gaps.
    pub fn is_dense(&self) -> bool {
        matches!(self.dims[..], [] | [(_, 1)])
    }

    /// Calls `f(at, offset, n, stride)` for runs of equal stride that make up the elements
    /// `start..start + len` in row-major order; `at` counts from `start`, `offset` from `data`.
    pub fn for_runs(
        &self,
        start: usize,
        len: usize,
        mut f: impl FnMut(usize, isize, usize, isize),
    ) {
        let (outer, inner, stride) = match self.dims.split_last() {
            Some((&(inner, stride), outer)) => (outer, inner, stride),
            None => (&self.dims[..], len.max(1), 1),
        };
        let mut at = start;
        while at < start + len {
            let (mut row, column) = (at / inner, at % inner);
            let mut offset = column as isize * stride;
            for &(size, stride) in outer.iter().rev() {
                offset += (row % size) as isize * stride;
                row /= size;
            }
            let n = (inner - column).min(start + len - at);
            f(at - start, offset, n, stride);
            at += n;
        }
    }

    /// The first byte, and the one after the last.
    pub fn bytes(&self) -> (usize, usize) {
        let size = self.dtype.size();
        if self.len == 0 {
            return (self.data as usize, self.data as usize);
        }
        let reach = |&(n, stride): &(usize, isize)| (n - 1) * stride.unsigned_abs() * size;
        let below: usize = self.dims.iter().filter(|d| d.1 < 0).map(reach).sum();
        let above: usize = self.dims.iter().filter(|d| d.1 > 0).map(reach).sum();
        let first = self.data as usize;
        (first.saturating_sub(below), first.saturating_add(above + size))
    }
}

fn dense(len: usize) -> Vec<(usize, isize)> {
    if len > 1 { vec![(len, 1)] } else { Vec::new() }
}

/// Sizes and strides without dimensions of one element, and with those joined that need not be
/// apart. That no element lies on another is certain when each stride exceeds the reach of all
/// smaller ones; the few exotic layouts that are sound without it are refused, too. `what` they are
/// the strides of is in the errors.
fn merged(shape: &[usize], strides: &[i64], what: &str) -> Result<Vec<(usize, isize)>> {
    if strides.len() != shape.len() {
        return Err(wrong_number(what, strides.len(), shape.len()));
    }
    if shape.contains(&0) {
        return Ok(Vec::new());
    }
    let refused = |why: &str| {
        Error::unsupported(format!(
            "the {what}'s strides {strides:?} for shape {shape:?}: {why}; copy it first"
        ))
    };
    let pairs = shape.iter().zip(strides).filter(|(d, _)| **d > 1);
    let dims: Vec<(usize, isize)> = pairs.map(|(&d, &s)| (d, s as isize)).collect();
    if dims.iter().any(|d| d.1 == 0) {
        return Err(refused("a stride of 0 repeats one element (broadcast)"));
    }
    let mut sorted = dims.clone();
    sorted.sort_unstable_by_key(|d| d.1.unsigned_abs());
    let mut reach = 0usize;
    for (size, stride) in sorted {
        if stride.unsigned_abs() <= reach {
            return Err(refused("elements overlap"));
        }
        reach = (size - 1)
            .checked_mul(stride.unsigned_abs())
            .and_then(|n| n.checked_add(reach))
            .filter(|&n| n < isize::MAX as usize / 16)
            .ok_or_else(|| refused("they exceed the address space"))?;
    }
    let mut out: Vec<(usize, isize)> = Vec::with_capacity(dims.len());
    for (size, stride) in dims {
        match out.last_mut() {
            Some(last) if last.1 == stride * size as isize => *last = (last.0 * size, stride),
            _ => out.push((size, stride)),
        }
    }
    Ok(out)
}

/// The error for strides that are too few or too many.
pub(crate) fn wrong_number(what: &str, n: usize, dims: usize) -> Error {
    let (s, of) = (if n == 1 { "" } else { "s" }, if dims == 1 { "" } else { "s" });
    Error::shape(format!("the {what} has {n} stride{s} for {dims} dimension{of}"))
}

/// An array, whose it is, and whether the step writes to it.
pub(in crate::optim) struct MemoryUse<'a> {
    pub array: &'a StridedArray,
    pub name: String,
    pub written: bool,
}

/// Fails when memory that is written is also somebody else's. Strided arrays whose ranges lie in
/// each other (columns of one matrix) are compared element by element, with one bit for two bytes.
pub(in crate::optim) fn check_overlap(mut uses: Vec<MemoryUse>) -> Result<()> {
    uses.retain(|c| !c.array.is_null() && c.array.len > 0);
    uses.sort_by_key(|c| c.array.bytes());
    let mut first = 0;
    while first < uses.len() {
        let mut end = uses[first].array.bytes().1;
        let mut last = first + 1;
        while last < uses.len() && uses[last].array.bytes().0 < end {
            end = end.max(uses[last].array.bytes().1);
            last += 1;
        }
        let cluster = &uses[first..last];
        if cluster.len() > 1 && cluster.iter().any(|c| c.written) {
            check_cluster(cluster, end)?;
        }
        first = last;
    }
    Ok(())
}

fn check_cluster(cluster: &[MemoryUse], end: usize) -> Result<()> {
    let start = cluster[0].array.bytes().0;
    let mut occupied = vec![0u64; (end - start).div_ceil(128)];
    let (written, read): (Vec<_>, Vec<_>) = cluster.iter().partition(|c| c.written);
    for one in written.iter().chain(&read) {
        let mut clash = false;
        for_byte_pairs(one.array, start, |pair| {
            let bit = 1u64 << (pair % 64);
            clash |= occupied[pair / 64] & bit != 0;
            if one.written {
                occupied[pair / 64] |= bit;
            }
        });
        if clash {
            let (from, to) = one.array.bytes();
            let touches = |c: &&&MemoryUse| {
                let (a, b) = c.array.bytes();
                c.name != one.name && a < to && from < b
            };
            let other = written.iter().find(touches).map_or("itself", |c| c.name.as_str());
            return Err(Error::invalid(format!(
                "the memory of {} is also that of {other}; each needs its own",
                one.name
            )));
        }
    }
    Ok(())
}

/// Every pair of bytes that an array touches, counted from `start`.
fn for_byte_pairs(array: &StridedArray, start: usize, mut f: impl FnMut(usize)) {
    let size = array.dtype.size();
    array.for_runs(0, array.len, |_, offset, n, stride| {
        for i in 0..n as isize {
            let at = (offset + i * stride).wrapping_mul(size as isize);
            let byte = (array.data as usize).wrapping_add_signed(at) - start;
            (byte / 2..(byte + size).div_ceil(2)).for_each(&mut f);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn array(shape: &[usize], strides: &[i64]) -> Result<StridedArray> {
        let buffer = StridedBuffer {
            strides: Some(strides.to_vec()),
            ..StridedBuffer::dense(0x1000 as _, DType::F32)
        };
        StridedArray::new(&buffer, shape, "value")
    }

    fn offsets(array: &StridedArray, start: usize, len: usize) -> Vec<isize> {
        let mut all = vec![isize::MIN; len];
        array.for_runs(start, len, |at, offset, n, stride| {
            for i in 0..n {
                all[at + i] = offset + i as isize * stride;
            }
        });
        all
    }

    #[test]
    fn runs_visit_every_element_in_order() {
        let cases: [(&[usize], &[i64]); 7] = [
            (&[2, 3, 4], &[12, 4, 1]),
            (&[2, 3, 4], &[1, 2, 6]),
            (&[2, 3, 4], &[-100, 20, -3]),
            (&[5], &[7]),
            (&[3, 1, 2], &[2, 999, 1]),
            (&[], &[]),
            (&[4, 6], &[8, 1]),
        ];
        for (shape, strides) in cases {
            let a = array(shape, strides).unwrap();
            let mut expected = vec![0isize];
            for (&d, &s) in shape.iter().zip(strides) {
                let next = |e: &isize| (0..d as isize).map(|i| e + i * s as isize).collect();
                expected = expected.iter().flat_map(|e| -> Vec<isize> { next(e) }).collect();
            }
            assert_eq!(offsets(&a, 0, a.len), expected, "{shape:?} {strides:?}");
            for cut in 0..a.len {
                assert_eq!(offsets(&a, cut, a.len - cut), expected[cut..], "from {cut}");
            }
            let lowest = expected.iter().min().unwrap() * 4;
            let highest = expected.iter().max().unwrap() * 4 + 4;
            let bytes = (0x1000 + lowest, 0x1000 + highest);
            assert_eq!((a.bytes().0 as isize, a.bytes().1 as isize), bytes);
        }
        assert!(array(&[2, 3, 4], &[12, 4, 1]).unwrap().is_dense());
        assert!(array(&[2, 1, 4], &[4, -7, 1]).unwrap().is_dense());
        assert!(!array(&[2, 3], &[1, 2]).unwrap().is_dense());
        assert!(array(&[0, 3], &[0, 0]).unwrap().is_dense());
    }

    #[test]
    fn elements_that_share_memory_are_refused() {
        let check = |shape: &[usize], strides: &[i64], kind: Kind, part: &str| {
            let e = array(shape, strides).unwrap_err();
            assert!(e.kind() == kind && e.message().contains(part), "{e}");
        };
        check(&[3, 4], &[0, 1], Kind::Unsupported, "broadcast");
        check(&[3, 4], &[3, 1], Kind::Unsupported, "overlap");
        check(&[3, 4], &[1, 1], Kind::Unsupported, "overlap");
        check(&[3, 4], &[1, -2], Kind::Unsupported, "overlap");
        check(&[3, 4], &[1], Kind::Shape, "the value has 1 stride for 2 dimensions");
        check(&[3, 4], &[i64::MAX, 1], Kind::Unsupported, "address space");
        check(&[3, 4], &[i64::MIN, 1], Kind::Unsupported, "address space");
        let odd = StridedBuffer::dense(0x1002 as _, DType::F32);
        assert!(StridedArray::new(&odd, &[1], "value").unwrap_err().message().contains("aligned"));
    }

    #[test]
    fn memory_of_two_is_found() {
        let memory = |data: usize, shape: &[usize], strides: &[i64], written: bool| {
            let buffer = StridedBuffer {
                strides: Some(strides.to_vec()),
                ..StridedBuffer::dense(data as _, DType::F32)
            };
            (StridedArray::new(&buffer, shape, "value").unwrap(), written)
        };
        let check = |arrays: &[(StridedArray, bool)]| {
            let mut uses = Vec::new();
            for (i, (array, written)) in arrays.iter().enumerate() {
                uses.push(MemoryUse { array, name: format!("'{i}'"), written: *written });
            }
            check_overlap(uses)
        };
        let left = memory(0x1000, &[4, 2], &[5, 1], true);
        let right = memory(0x1008, &[4, 3], &[5, 1], true);
        assert!(check(&[left.clone(), right.clone()]).is_ok());
        let wide = memory(0x1000, &[4, 3], &[5, 1], true);
        let e = check(&[wide, right.clone()]).unwrap_err();
        assert!(e.message().contains("'0'") && e.message().contains("'1'"), "{e}");
        let read = memory(0x1008, &[4, 3], &[5, 1], false);
        assert!(check(&[read.clone(), read.clone()]).is_ok());
        assert!(check(&[left.clone(), read.clone(), read.clone()]).is_ok());
        assert!(check(&[right, read]).is_err());
        let next = memory(0x1000 + 4 * 20, &[2], &[1], true);
        assert!(check(&[left, next]).is_ok());
    }
}
