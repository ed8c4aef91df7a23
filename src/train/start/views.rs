//! The body of a model, view by view: attention, mlp and norms by role and relative depth.

use crate::error::Result;
use crate::optim::{Role, RoleView, Stack, View, WeightOrBias, role_views};
use crate::train::model::Model;

/// A model's views by role.
pub(super) struct RoleViews {
    views: Vec<(usize, RoleView)>,
}

impl RoleViews {
    pub fn of(model: &Model) -> Self {
        let mut views = role_views(&model.spec());
        // Adapters have a start of their own, which changes nothing.
        views.retain(|(_, v)| !v.part.is_adapter());
        Self { views }
    }

    /// All views, each with its parameter.
    pub fn iter(&self) -> impl Iterator<Item = &(usize, RoleView)> {
        self.views.iter()
    }

    /// The weight of a role outside of blocks: its parameter, when that is one whole matrix.
    pub fn table(&self, role: Role) -> Option<usize> {
        let is_table = |v: &RoleView| v.role == role && v.part == WeightOrBias::Weight;
        self.views.iter().find(|(_, v)| is_table(v)).map(|(param, _)| *param)
    }

    /// Number of blocks of a stack.
    pub fn blocks(&self, stack: Stack) -> usize {
        let own = self.views.iter().filter(|(_, v)| v.stack == stack);
        own.filter_map(|(_, v)| v.block).max().map_or(0, |last| last + 1)
    }

    /// The view that does the same as `wanted`, a view of `of`, at the same relative depth.
    pub fn counterpart(&self, wanted: &RoleView, of: &Self) -> Option<&(usize, RoleView)> {
        let blocks = (of.blocks(wanted.stack), self.blocks(wanted.stack));
        let block = wanted.block.map(|b| block_at_depth(b, blocks.0, blocks.1));
        self.views.iter().find(|(_, v)| {
            (v.stack, v.role, v.part, v.block) == (wanted.stack, wanted.role, wanted.part, block)
                && v.view.shape() == wanted.view.shape()
        })
    }
}

/// The block of `m` that lies as deep as block `b` of `n`: round((b + ½) m / n − ½), halves up.
pub(super) fn block_at_depth(b: usize, n: usize, m: usize) -> usize {
    ((2 * b + 1) * m / (2 * n).max(1)).min(m.saturating_sub(1))
}

/// Whether a role belongs to the body: neither to the tables nor to the head.
pub(super) fn is_body(role: Role) -> bool {
    let is_table = matches!(
        role,
        Role::TokenEmbedding | Role::PositionEmbedding | Role::TypeEmbedding | Role::ClassToken
    );
    role <= Role::FinalNorm && !is_table
}

/// Position in storage of a view's logical element.
fn at(view: &View, row: usize, column: usize) -> usize {
    let (run, inside) = if view.transposed { (column, row) } else { (row, column) };
    view.offset + run * view.ld + inside
}

/// Copies a view of one model to a view of the same logical shape of another.
pub(super) fn copy_view(
    models: &mut [Model],
    from: (usize, usize, &View),
    to: (usize, usize, &View),
) -> Result<()> {
    let [rows, columns] = from.2.shape();
    let source = models[from.0].parameters[from.1].value.as_slice::<f32>()?;
    let values: Vec<f32> =
        (0..rows).flat_map(|i| (0..columns).map(move |j| source[at(from.2, i, j)])).collect();
    let parameter = &mut models[to.0].parameters[to.1];
    let target = parameter.value.as_mut_slice::<f32>()?;
    for (i, row) in values.chunks(columns.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(j, &value)| target[at(to.2, i, j)] = value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_equal_relative_depth() {
        let map = |n: usize, m: usize| (0..n).map(|b| block_at_depth(b, n, m)).collect::<Vec<_>>();
        assert_eq!(map(2, 6), [1, 4]);
        assert_eq!(map(6, 2), [0, 0, 0, 1, 1, 1]);
        assert_eq!(map(3, 3), [0, 1, 2]);
        assert_eq!(map(1, 4), [2]);
        assert_eq!(map(4, 12), [1, 4, 7, 10]);
        for (n, m) in [(2usize, 6usize), (5, 3), (4, 12), (7, 11)] {
            for (b, found) in map(n, m).into_iter().enumerate() {
                let exact = (b as f64 + 0.5) * m as f64 / n as f64 - 0.5;
                assert_eq!(found, (exact + 0.5).floor() as usize);
            }
        }
    }
}
