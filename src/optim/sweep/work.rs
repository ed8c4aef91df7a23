//! The work items of a sweep, and the groups whose tiles they are.

use crate::optim::plan::view::View;
use crate::optim::sweep::tile::Tile;

/// A member of a group, with its factors in this step.
#[derive(Clone)]
pub(crate) struct SweepMember {
    /// Index among all parameters of all models.
    pub param: usize,
    pub model: usize,
    pub view: View,
    /// Factor of its gradient in the group's.
    pub share_weight: f32,
    /// Factor of its own gradient in the mixed one.
    pub own_factor: f32,
    /// Factor of its value in the group's average.
    pub average_weight: f32,
}

/// How a group mixes in this step.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mixing {
    /// Each member keeps its own gradient.
    Separate,
    /// own·g + α·G with one weighted sum G for all.
    Shared { alpha: f32 },
    /// A matrix over the active members, `k`² numbers from `at` in the sweep's matrices.
    Matrix { at: usize, k: usize },
}

/// Members `first..first + n` share tiles of one logical shape.
#[derive(Clone, Copy)]
pub(crate) struct SweepGroup {
    pub first: usize,
    pub n: usize,
    pub mixing: Mixing,
    /// β, the share of the average in the new values; 0 does not synchronise.
    pub beta: f32,
    /// As in the plan's group.
    pub by_token: bool,
}

/// A work item. Its edges depend on the parameters alone; items touch disjoint elements, so any
/// thread may take any item.
#[derive(Clone, Copy)]
pub(crate) enum WorkItem {
    /// Elements of one parameter.
    Chunk { param: usize, start: usize, len: usize },
    /// A tile of a group.
    Tile { group: usize, tile: Tile },
}
