//! What the host's engine must be able to do.

use crate::error::Result;

/// Numbers in host memory that are summed over the ranks.
#[derive(Debug)]
pub enum Values<'a> {
    /// Gradients and parameters.
    F32(&'a mut [f32]),
    /// Losses, weights, counts.
    F64(&'a mut [f64]),
    /// Counts beyond 2^53.
    U64(&'a mut [u64]),
    /// Differences of counts.
    I64(&'a mut [i64]),
}

impl Values<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements' memory, in the machine's byte order.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(v) => bytemuck::cast_slice(v),
            Self::F64(v) => bytemuck::cast_slice(v),
            Self::U64(v) => bytemuck::cast_slice(v),
            Self::I64(v) => bytemuck::cast_slice(v),
        }
    }

    /// The same, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::F32(v) => bytemuck::cast_slice_mut(v),
            Self::F64(v) => bytemuck::cast_slice_mut(v),
            Self::U64(v) => bytemuck::cast_slice_mut(v),
            Self::I64(v) => bytemuck::cast_slice_mut(v),
        }
    }
}

/// One rank's end of the host's engine. Every rank makes the same calls in the same order, except
/// [`Transport::send`] and [`Transport::receive`], which pair up. A call returns when its memory
/// can be used again. It is made on the thread that calls into the library.
pub trait Transport: Send {
    /// This rank, below [`Transport::size`]; it never changes.
    fn rank(&self) -> usize;

    /// The number of ranks, at least 1; it never changes.
    fn size(&self) -> usize;

    /// Replaces each element by its sum over all ranks, which has the same bits on every rank.
    fn all_reduce(&mut self, values: Values<'_>) -> Result<()>;

    /// Replaces the bytes by those of rank `root`.
    fn broadcast(&mut self, bytes: &mut [u8], root: usize) -> Result<()>;

    /// Puts every rank's `from` into `into`, in order of rank; it is `size` times as long.
    fn all_gather(&mut self, from: &[u8], into: &mut [u8]) -> Result<()>;

    /// Sums `from`, `size` equal parts, over all ranks, and puts the part of this rank into `into`.
    /// The elements are of one type.
    fn reduce_scatter(&mut self, from: Values<'_>, into: Values<'_>) -> Result<()>;

    /// Gives the bytes to another rank, which receives as many.
    fn send(&mut self, bytes: &[u8], to: usize) -> Result<()>;

    /// Takes as many bytes from another rank.
    fn receive(&mut self, bytes: &mut [u8], from: usize) -> Result<()>;

    /// Returns when every rank has called it.
    fn barrier(&mut self) -> Result<()>;

    /// Tells the engine that this rank gives up, so that the others need not wait for it.
    fn abort(&mut self, why: &str);
}
