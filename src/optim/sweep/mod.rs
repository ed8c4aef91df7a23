//! The one pass over memory: gradients are read, mixed, and used, and parameters are updated and
//! synchronised, tile by tile, so that nothing leaves the cache in between.

pub(in crate::optim) mod buffers;
pub(in crate::optim) mod executor;
pub(in crate::optim) mod inspect;
pub(in crate::optim) mod metrics;
pub(in crate::optim) mod mix_by_matrix;
pub(in crate::optim) mod mix_shared;
pub(in crate::optim) mod mixing_matrix;
pub(in crate::optim) mod orthogonalise;
pub(in crate::optim) mod product;
pub(in crate::optim) mod proposed_sync;
pub(in crate::optim) mod run;
pub(in crate::optim) mod scratch;
pub(in crate::optim) mod sharing;
pub(in crate::optim) mod tile;
pub(in crate::optim) mod tiling;
pub(in crate::optim) mod update;
pub(in crate::optim) mod work;
