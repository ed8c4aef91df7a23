//! The executor: threads, kernels, scratch memory and the tables of one step.

use crate::error::Result;
use crate::memory::{copied, filled};
use crate::optim::kernel::coefficient::{Coefficients, idle};
use crate::optim::kernel::simd::Build;
use crate::optim::kernel::weighted_sum;
use crate::optim::options::{InstructionSet, Options};
use crate::optim::pool::{DisjointSlice, Pool};
use crate::optim::sweep::buffers::{ParamBuffers, ParamStep, gradient};
use crate::optim::sweep::inspect::Largest;
use crate::optim::sweep::orthogonalise::Orthogonaliser;
use crate::optim::sweep::scratch::{Scratch, WorkerScratch};
use crate::optim::sweep::sharing::Sharing;
use crate::optim::sweep::tile::BLOCK;
use crate::optim::sweep::tiling::{TILE_FLOATS, Tiling, cached_elements};
use crate::optim::sweep::update::Sweep;
use crate::optim::sweep::work::WorkItem;
use crate::tensor::{DType, Tensor};

/// What [`Executor::resize`] takes: all tables for a plan.
pub(in crate::optim) struct Tables {
    workers: WorkerScratch,
    buffers: Vec<ParamBuffers>,
    param_steps: Vec<ParamStep>,
    coefficients: Vec<Coefficients>,
    grad_squares: Vec<f64>,
    partial_sums: Vec<f64>,
}

/// Runs sweeps, and holds what one step knows of each parameter.
pub(in crate::optim) struct Executor {
    pub pool: Pool,
    build: Build,
    workers: WorkerScratch,
    /// The parameters' memory as this step reads it.
    pub buffers: Vec<ParamBuffers>,
    pub param_steps: Vec<ParamStep>,
    pub coefficients: Vec<Coefficients>,
    /// Σ g² of each parameter, where the step inspects gradients.
    pub grad_squares: Vec<f64>,
    partial_sums: Vec<f64>,
    orthogonaliser: Orthogonaliser,
}

impl Executor {
    /// Starts the threads. Tables are empty until [`Executor::resize`].
    pub fn new(options: &Options) -> Result<Self> {
        let build = Build::choose(options.instruction_set)?;
        let pool = Pool::new(options.n_threads)?;
        Ok(Self {
            workers: WorkerScratch::default(),
            pool,
            build,
            buffers: Vec::new(),
            param_steps: Vec::new(),
            coefficients: Vec::new(),
            grad_squares: Vec::new(),
            partial_sums: Vec::new(),
            orthogonaliser: Orthogonaliser::default(),
        })
    }

    /// All tables for a plan.
    pub fn tables(&self, buffers: &[ParamBuffers], sharing: &Sharing) -> Result<Tables> {
        let (n, largest) = (buffers.len(), sharing.tiling.largest);
        let tile_floats = TILE_FLOATS.max(cached_elements(largest) * largest);
        Ok(Tables {
            workers: WorkerScratch::new(self.pool.threads(), tile_floats)?,
            grad_squares: filled(n, 0.0)?,
            partial_sums: filled(sharing.n_partials(), 0.0)?,
            param_steps: filled(n, ParamStep::IDLE)?,
            coefficients: filled(n, idle())?,
            buffers: copied(buffers)?,
        })
    }

    /// Takes the tables of a plan.
    pub fn resize(&mut self, tables: Tables) {
        self.workers = tables.workers;
        self.grad_squares = tables.grad_squares;
        self.partial_sums = tables.partial_sums;
        self.param_steps = tables.param_steps;
        self.coefficients = tables.coefficients;
        self.buffers = tables.buffers;
    }

    /// The kernel build in use.
    pub fn isa(&self) -> InstructionSet {
        self.build.isa()
    }

    /// Updates, mixes and synchronises in one pass over memory; with `grouped`, groups tile by
    /// tile. `rounding_seed` is there when moments are bfloat16.
    pub fn update(
        &mut self,
        sharing: &Sharing,
        grouped: bool,
        rounding_seed: Option<u32>,
    ) -> Result<()> {
        let tiling = &sharing.tiling;
        let items = if grouped { &tiling.tiles } else { &tiling.chunks };
        self.run(sharing, items, rounding_seed, true)
    }

    /// Synchronises the groups and updates nothing.
    pub fn synchronise(&mut self, sharing: &Sharing) -> Result<()> {
        self.run(sharing, &sharing.tiling.tiles, None, false)
    }

    fn run(
        &mut self,
        sharing: &Sharing,
        items: &[WorkItem],
        rounding_seed: Option<u32>,
        updates: bool,
    ) -> Result<()> {
        let Self { pool, build, workers, buffers, param_steps, coefficients, .. } = self;
        let sweep = Sweep {
            build: *build,
            buffers,
            param_steps,
            coefficients,
            members: &sharing.tiling.members,
            groups: &sharing.tiling.groups,
            matrices: &sharing.matrices,
            rounding_seed,
            updates,
        };
        pool.run(items.len(), &|worker, i| {
            // SAFETY: the pool runs one item per worker at a time; items are disjoint; `bind`
            // vouches for the buffers.
            unsafe { sweep.run(workers.of(worker), &items[i]) };
        })
    }

    /// Reads the active gradients once: Σ g² of each parameter and, with `products`, the inner
    /// products of each group's members.
    pub fn inspect(&mut self, sharing: &mut Sharing, products: bool) -> Result<()> {
        self.sum_partials(sharing, products)?;
        let (tiling, gram) = (&sharing.tiling, &mut sharing.gram);
        if !products {
            for (item, sum) in tiling.chunks.iter().zip(&self.partial_sums) {
                if let WorkItem::Chunk { param, .. } = item {
                    self.grad_squares[*param] += sum;
                }
            }
            return Ok(());
        }
        self.add_grams(tiling, gram);
        for (item, &at) in tiling.tiles.iter().zip(&tiling.partial_offsets) {
            if let WorkItem::Chunk { param, .. } = *item {
                self.grad_squares[param] += self.partial_sums[at];
            }
        }
        for (g, &at) in tiling.groups.iter().zip(&tiling.gram_offsets) {
            for i in 0..g.n {
                let param = tiling.members[g.first + i].param;
                self.grad_squares[param] += gram[at + i * g.n + i];
            }
        }
        Ok(())
    }

    /// Inner products of the members' values, in place of their gradients'.
    pub fn inspect_values(&mut self, sharing: &mut Sharing) -> Result<()> {
        for (buffers, step) in self.buffers.iter_mut().zip(&mut self.param_steps) {
            buffers.g = buffers.p.cast();
            buffers.g_type = DType::F32;
            step.active = !buffers.p.is_null();
        }
        self.sum_partials(sharing, true)?;
        self.add_grams(&sharing.tiling, &mut sharing.gram);
        Ok(())
    }

    /// The largest elements of every parameter. Allocates: it is called when gradients are huge.
    pub fn largest(&mut self, sharing: &Sharing, is_bf16: bool) -> Result<Vec<Largest>> {
        let tiling = &sharing.tiling;
        let items = &tiling.chunks;
        let mut parts = filled(items.len(), Largest::default())?;
        let Self { pool, build, workers, buffers, param_steps, coefficients, .. } = self;
        let out = DisjointSlice::new(&mut parts);
        let sweep = Sweep {
            build: *build,
            buffers,
            param_steps,
            coefficients,
            members: &tiling.members,
            groups: &tiling.groups,
            matrices: &sharing.matrices,
            rounding_seed: None,
            updates: false,
        };
        pool.run(items.len(), &|worker, i| {
            let WorkItem::Chunk { param, start, len } = items[i] else { return };
            // SAFETY: the pool runs one item per worker at a time; items have their own results;
            // `bind` vouches for the buffers.
            unsafe {
                let found = sweep.largest(workers.of(worker), param, [start, len], is_bf16);
                out.at(i, 1)[0] = found;
            }
        })?;
        let mut all = filled(buffers.len(), Largest::default())?;
        for (item, part) in items.iter().zip(parts) {
            if let WorkItem::Chunk { param, .. } = *item {
                all[param] = all[param].or(part);
            }
        }
        Ok(all)
    }

    /// The items' partial sums.
    fn sum_partials(&mut self, sharing: &Sharing, products: bool) -> Result<()> {
        let tiling = &sharing.tiling;
        let items = if products { &tiling.tiles } else { &tiling.chunks };
        let offsets = products.then_some(&tiling.partial_offsets);
        let Self { pool, build, workers, buffers, param_steps, coefficients, .. } = self;
        let out = DisjointSlice::new(&mut self.partial_sums);
        let sweep = Sweep {
            build: *build,
            buffers,
            param_steps,
            coefficients,
            members: &tiling.members,
            groups: &tiling.groups,
            matrices: &sharing.matrices,
            rounding_seed: None,
            updates: false,
        };
        pool.run(items.len(), &|worker, i| {
            // SAFETY: the pool runs one item per worker at a time.
            let s = unsafe { workers.of(worker) };
            let at = offsets.map_or(i, |offsets| offsets[i]);
            // SAFETY: items have their own partial sums; `bind` vouches for the buffers.
            unsafe { sweep.inspect(s, &items[i], at, &out) };
        })
    }

    /// Adds the tiles' partial sums to their groups' inner products, in the tiles' order.
    fn add_grams(&self, tiling: &Tiling, gram: &mut [f64]) {
        gram.fill(0.0);
        for (item, &at) in tiling.tiles.iter().zip(&tiling.partial_offsets) {
            if let WorkItem::Tile { group, .. } = *item {
                let (n, to) = (tiling.groups[group].n, tiling.gram_offsets[group]);
                for i in 0..n * n {
                    gram[to + i] += self.partial_sums[at + i];
                }
            }
        }
    }

    /// Adds `weight` times the gradients of parameters `first..` to their sums; those that are
    /// `true` hold one already.
    pub fn accumulate(
        &mut self,
        tiling: &Tiling,
        bound: &[ParamBuffers],
        (first, weight): (usize, f32),
        sums: &[(DisjointSlice<f32>, bool)],
    ) -> Result<()> {
        let (items, build, workers) = (&tiling.chunks, self.build, &self.workers);
        self.pool.run(items.len(), &|worker, i| {
            let WorkItem::Chunk { param, start, len } = items[i] else { return };
            let Some((sum, more)) = param.checked_sub(first).and_then(|p| sums.get(p)) else {
                return;
            };
            let buffers = &bound[param];
            if sum.is_null() || buffers.g.is_null() {
                return;
            }
            // SAFETY: one item per worker; items are disjoint; `bind` vouches for the buffers.
            unsafe {
                let s = workers.of(worker);
                let sum = sum.at(start, len);
                add_gradient(build, buffers, start, (sum, *more), weight, s);
            }
        })
    }

    /// Makes room for [`Executor::update_matrix`].
    pub fn reserve_matrix(&mut self, shape: [usize; 2]) -> Result<()> {
        self.orthogonaliser.reserve(shape)
    }

    /// Muon's update of one parameter, after the sweep.
    pub fn update_matrix(&mut self, i: usize, shape: [usize; 2], factors: [f64; 3]) -> Result<()> {
        let Self { pool, build, buffers, orthogonaliser, .. } = self;
        // SAFETY: `bind` vouches for the values; the second moment is the optimizer's own and as
        // long as the parameter; no sweep runs meanwhile.
        unsafe { orthogonaliser.update(pool, *build, shape, &buffers[i], factors) }
    }
}

/// The sums of some parameters' micro-batches, empty where there is none.
pub(in crate::optim) fn grad_sum_slice(sum: &mut Option<Tensor>) -> DisjointSlice<f32> {
    match sum {
        Some(t) => DisjointSlice::from_pointer(t.bytes_mut().as_mut_ptr().cast()),
        None => DisjointSlice::from_pointer(std::ptr::null_mut()),
    }
}

/// sum ← sum + w·g, or w·g where there is no sum yet.
///
/// # Safety
/// The gradient must be readable from `start` on for the sum's length.
unsafe fn add_gradient(
    build: Build,
    buffers: &ParamBuffers,
    start: usize,
    (sum, more): (&mut [f32], bool),
    weight: f32,
    s: &mut Scratch,
) {
    for (i, sum) in sum.chunks_mut(BLOCK).enumerate() {
        let at = start + i * BLOCK;
        // SAFETY: the caller's promise.
        let g = unsafe { gradient(build, buffers, f32::INFINITY, at, sum.len(), s.load()) };
        if more {
            weighted_sum::axpy(build, sum, weight, g);
        } else {
            weighted_sum::scaled_copy(build, sum, weight, g);
        }
    }
}
