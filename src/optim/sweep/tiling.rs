//! From the plan to work items: groups are cut into tiles, memory outside groups into chunks. Edges
//! depend on the parameters and the plan alone.

use crate::error::{Error, Result};
use crate::optim::plan::Plan;
use crate::optim::plan::spec::ModelSpec;
use crate::optim::plan::view::{View, matrix_shape};
use crate::optim::sweep::tile::{
    BLOCK, TRANSPOSED_FLOATS, TRANSPOSED_ROWS, Tile, tile_shape, whole,
};
use crate::optim::sweep::work::{Mixing, SweepGroup, SweepMember, WorkItem};
use crate::tensor::{DType, element_count};

/// Elements of a chunk: four streams of a quarter megabyte.
const CHUNK: usize = 65_536;
/// Elements of a tile with several rows, no member of which is transposed. Its group's gradient
/// spills from the second-level cache into the next one; that costs less than beginning more runs
/// in main memory.
pub(crate) const TILE_FLOATS: usize = 196_608;
// Tiles with transposed members fit in the same memory.
const _: () = assert!(TRANSPOSED_ROWS * BLOCK <= TILE_FLOATS && TRANSPOSED_FLOATS <= TILE_FLOATS);
/// Elements of all members' gradients in a tile with one row. Shorter runs cost more beginnings;
/// with longer ones less is still in the second-level cache when it is used again.
const ROW_FLOATS: usize = 98_304;
/// Elements of a page, which a run should fill, and most of a run: as many as are prefetched.
const ROW_COLS: [usize; 2] = [1024, 8192];
/// Elements of all tiles together where the members' tiles are kept side by side: what stays in
/// the second-level cache beside the streams.
pub(crate) const CACHED_FLOATS: usize = 98_304;

/// The work items of a step and their groups.
pub(crate) struct Tiling {
    pub members: Vec<SweepMember>,
    pub groups: Vec<SweepGroup>,
    /// Where each group's n × n numbers begin.
    pub gram_offsets: Vec<usize>,
    /// All parameters in chunks, for steps without groups.
    pub chunks: Vec<WorkItem>,
    /// The same elements, those of groups as tiles.
    pub tiles: Vec<WorkItem>,
    /// Where each grouped item's partial sums begin.
    pub partial_offsets: Vec<usize>,
    /// Number of partial sums of the grouped items.
    pub n_partials: usize,
    /// Largest group.
    pub largest: usize,
}

/// Most elements of a tile where `n` + 1 of them are kept in the second-level cache.
pub(crate) fn cached_elements(n: usize) -> usize {
    (CACHED_FLOATS / (n + 1)).clamp(256, CACHED_FLOATS / 4)
}

/// Rows and columns of a group's tiles.
fn tile_of(members: &[(usize, usize, View)]) -> [usize; 2] {
    let shape = members[0].2.shape();
    if shape[0] <= 1 {
        let [page, most] = ROW_COLS;
        return [1, whole((ROW_FLOATS / members.len()).clamp(page, most), page)];
    }
    let tile = tile_shape(shape, members.iter().any(|m| m.2.transposed), TILE_FLOATS);
    // Rows that are not equally far apart are read one by one.
    if members.iter().any(|m| m.2.rows.is_some()) { [1, tile[1]] } else { tile }
}

fn chunks(param: usize, len: usize, out: &mut Vec<WorkItem>) {
    for start in (0..len).step_by(CHUNK) {
        out.push(WorkItem::Chunk { param, start, len: CHUNK.min(len - start) });
    }
}

/// The rows or columns of a parameter that no view covers.
fn rest(shape: &[usize], views: &[View]) -> Option<Vec<View>> {
    let [rows, cols] = matrix_shape(shape);
    if views.iter().map(View::len).sum::<usize>() == rows * cols {
        return Some(Vec::new());
    }
    let axis = if views.iter().all(|v| v.runs == rows) {
        1
    } else if views.iter().all(|v| v.run_len == cols) {
        0
    } else {
        return None;
    };
    let spans = |v: &View| match (axis, &v.rows) {
        (1, _) => vec![(v.offset, v.run_len)],
        (_, None) => vec![(v.offset / cols, v.runs)],
        (_, Some(rows)) => rows.iter().map(|&row| (row as usize, 1)).collect(),
    };
    let mut spans: Vec<_> = views.iter().flat_map(spans).collect();
    spans.sort_unstable();
    spans.push(([rows, cols][axis], 0));
    let (mut at, mut out) = (0, Vec::new());
    for (start, length) in spans {
        if start > at {
            out.push(View::slice(shape, axis, at, start - at)?);
        }
        at = start + length;
    }
    Some(out)
}

impl Tiling {
    /// `base` is the index of each model's first parameter.
    pub fn new(plan: &Plan, models: &[ModelSpec], base: &[usize]) -> Result<Self> {
        let mut tiling = Self {
            members: Vec::new(),
            groups: Vec::new(),
            gram_offsets: Vec::new(),
            chunks: Vec::new(),
            tiles: Vec::new(),
            partial_offsets: Vec::new(),
            n_partials: 0,
            largest: 1,
        };
        let n_params = models.iter().map(|m| m.params.len()).sum();
        let mut covered: Vec<Vec<View>> = vec![Vec::new(); n_params];
        for group in plan.groups() {
            // A group is read the way most of its members lie; transposed ones cost more.
            let transposed = group.members.iter().filter(|m| m.view.transposed).count();
            let across = 2 * transposed > group.members.len();
            let oriented =
                |view: &View| if across { view.clone().transpose() } else { view.clone() };
            let contiguous = group.members.iter().all(|m| oriented(&m.view).is_contiguous());
            let members = group.members.iter().map(|m| {
                let param = base[m.model] + m.param;
                covered[param].push(m.view.clone());
                let view = oriented(&m.view);
                (param, m.model, if contiguous { view.flattened() } else { view })
            });
            let members: Vec<_> = members.collect();
            tiling.add_group(&members, group.by_token);
        }
        for (model, spec) in models.iter().enumerate() {
            for (i, p) in spec.params.iter().enumerate() {
                if p.dtype != DType::F32 {
                    continue;
                }
                let param = base[model] + i;
                let len = element_count(&p.shape)?;
                chunks(param, len, &mut tiling.chunks);
                if covered[param].is_empty() {
                    chunks(param, len, &mut tiling.tiles);
                    continue;
                }
                let left = rest(&p.shape, &covered[param]).ok_or_else(|| {
                    Error::unsupported(format!(
                        "model '{}', parameter '{}': slices in groups must all be rows or all \
                         be columns",
                        spec.name, p.name
                    ))
                })?;
                for view in left {
                    tiling.add_group(&[(param, model, view)], false);
                }
            }
        }
        tiling.count();
        Ok(tiling)
    }

    fn add_group(&mut self, members: &[(usize, usize, View)], by_token: bool) {
        let (first, n) = (self.members.len(), members.len());
        let index = self.groups.len();
        let member = |(param, model, view): &(usize, usize, View)| SweepMember {
            param: *param,
            model: *model,
            view: view.clone(),
            share_weight: 0.0,
            own_factor: 1.0,
            average_weight: 0.0,
        };
        self.members.extend(members.iter().map(member));
        self.groups.push(SweepGroup { first, n, mixing: Mixing::Separate, beta: 0.0, by_token });
        let squares = self.gram_offsets.last().copied().unwrap_or(0);
        let before = self.groups.len().checked_sub(2).map_or(0, |b| self.groups[b].n.pow(2));
        self.gram_offsets.push(squares + before);
        let [rows, cols] = members[0].2.shape();
        let all = Tile { row: 0, rows, col: 0, cols };
        let [tile_rows, tile_cols] = tile_of(members);
        let tiles = all.cut(tile_rows, tile_cols);
        self.tiles.extend(tiles.map(|tile| WorkItem::Tile { group: index, tile }));
        self.largest = self.largest.max(n);
    }

    fn count(&mut self) {
        for item in &self.tiles {
            self.partial_offsets.push(self.n_partials);
            self.n_partials += match item {
                WorkItem::Chunk { .. } => 1,
                WorkItem::Tile { group, .. } => self.groups[*group].n.pow(2),
            };
        }
    }

    /// Numbers of all groups' squares together.
    pub fn gram_len(&self) -> usize {
        match (self.gram_offsets.last(), self.groups.last()) {
            (Some(at), Some(b)) => at + b.n * b.n,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::options::{Options, SharePolicy};
    use crate::optim::plan::spec::ParamSpec;

    /// Of two models that store their weights [in, out] and one that has them [out, in], it is
    /// the one that is transposed.
    #[test]
    fn the_fewest_members_are_transposed() {
        let gpt = vec![ParamSpec::new("h.0.attn.c_proj.weight", &[8, 8])];
        let bert = vec![ParamSpec::new("layer.0.attention.output.dense.weight", &[8, 8])];
        let models = [("a", gpt.clone()), ("b", gpt), ("c", bert)];
        let models: Vec<_> = models.into_iter().map(|(n, p)| ModelSpec::new(n, p)).collect();
        let options = Options { share_policy: SharePolicy::Aligned, ..Options::default() };
        let plan = Plan::new(&options, &models).unwrap();
        let tiling = Tiling::new(&plan, &models, &[0, 1, 2]).unwrap();
        let transposed: Vec<_> =
            tiling.members.iter().map(|p| (p.param, p.view.transposed)).collect();
        assert_eq!(transposed, [(0, false), (1, false), (2, true)]);
    }

    /// Every element of every parameter is in exactly one item, grouped or not.
    #[test]
    fn items_cover_everything_once() {
        let gpt = vec![
            ParamSpec::new("h.0.attn.c_attn.weight", &[8, 24]),
            ParamSpec::new("h.0.attn.c_attn.bias", &[24]),
            ParamSpec::new("odd", &[70_000]),
        ];
        let bert = vec![
            ParamSpec::new("layer.0.attention.self.query.weight", &[8, 8]),
            ParamSpec::new("layer.0.attention.self.value.bias", &[8]),
        ];
        let models = vec![ModelSpec::new("bert", bert), ModelSpec::new("gpt", gpt)];
        let plan = Plan::new(&Options::default(), &models).unwrap();
        assert_eq!(plan.groups().len(), 2);
        let tiling = Tiling::new(&plan, &models, &[0, 2]).unwrap();
        let sizes = [64, 8, 192, 24, 70_000];
        for items in [&tiling.chunks, &tiling.tiles] {
            let mut seen: Vec<Vec<u8>> = sizes.iter().map(|&n| vec![0; n]).collect();
            for item in items {
                match *item {
                    WorkItem::Chunk { param, start, len } => {
                        seen[param][start..start + len].iter_mut().for_each(|s| *s += 1);
                    }
                    WorkItem::Tile { group, tile } => {
                        let b = tiling.groups[group];
                        for member in &tiling.members[b.first..b.first + b.n] {
                            member.view.for_runs_at(&tile, 0, |at, _, n| {
                                seen[member.param][at..at + n].iter_mut().for_each(|s| *s += 1);
                            });
                        }
                    }
                }
            }
            assert!(seen.iter().flatten().all(|&s| s == 1));
        }
    }
}
