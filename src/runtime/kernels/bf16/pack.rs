//! From matrices of f32 to tiles of bf16.

use super::super::kernel::KernelResult;
use super::super::products::Parallel;
use super::BLOCK;
use super::tile::Isa;

/// Rows of a tile of the first factor; columns of one of the second.
pub(super) const TILE_SIDE: usize = 16;
/// Numbers of a tile along the summed axis.
pub(super) const TILE_K: usize = 32;
/// Panels that are packed together, so that reads of neighbours follow each other.
const PANELS: usize = 4;

/// 16 by 16 pairs of bf16 that follow each other along the summed axis. Of the first factor a row
/// of pairs is a row of the matrix; of the second it is a place on the summed axis.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile(pub(super) [u32; 256]);

impl Tile {
    pub(super) const ZERO: Self = Self([0; 256]);
}

/// A factor: `outer` rows (of the first) or columns (of the second), each of length `k`.
pub(super) struct Factor<'a> {
    data: &'a [f32],
    pub(super) outer: usize,
    pub(super) k: usize,
    /// Whether neighbours in memory are neighbours along the outer axis.
    is_strided: bool,
}

impl<'a> Factor<'a> {
    pub(super) fn new(data: &'a [f32], outer: usize, k: usize, is_strided: bool) -> Self {
        debug_assert_eq!(data.len(), outer * k);
        Self { data, outer, k, is_strided }
    }

    fn at(&self, outer: usize, k: usize) -> usize {
        if self.is_strided { k * self.outer + outer } else { outer * self.k + k }
    }

    /// The source of a tile: 16 rows of 32 numbers, or 32 rows of 16 where the factor is strided,
    /// and the distance between rows. Zeros stand beyond the matrix, in `room`.
    fn source<'s>(
        &'s self,
        outer: usize,
        k: usize,
        room: &'s mut [f32; 512],
    ) -> (&'s [f32], usize) {
        let (n_outer, n_k) = (TILE_SIDE.min(self.outer - outer), TILE_K.min(self.k - k));
        let step = if self.is_strided { self.outer } else { self.k };
        let start = self.at(outer, k);
        if n_outer == TILE_SIDE && n_k == TILE_K {
            let end = self.at(outer + TILE_SIDE - 1, k + TILE_K - 1);
            return (&self.data[start..=end], step);
        }
        room.fill(0.0);
        let (rows, width, room_step) = match self.is_strided {
            true => (n_k, n_outer, TILE_SIDE),
            false => (n_outer, n_k, TILE_K),
        };
        for row in 0..rows {
            let from = start + row * step;
            room[row * room_step..][..width].copy_from_slice(&self.data[from..from + width]);
        }
        (&room[..], room_step)
    }
}

/// Packs the panels of the outer range, of `k_tiles` tiles from `k0` on. `by_k` says which factor
/// it is: whether a row of a tile is a place on the summed axis.
pub(super) fn pack_panels(
    factor: &Factor,
    (from, to): (usize, usize),
    (k0, k_tiles): (usize, usize),
    tiles: &mut [Tile],
    by_k: bool,
    isa: Isa,
    parallel: &Parallel,
) -> KernelResult {
    let n_panels = (to - from).next_multiple_of(BLOCK) / TILE_SIDE;
    let tiles = &mut tiles[..n_panels * k_tiles];
    if tiles.is_empty() {
        return Ok(());
    }
    let groups: Vec<_> = tiles.chunks_mut(PANELS * k_tiles).map(std::sync::Mutex::new).collect();
    parallel(groups.len(), &|i| {
        let Ok(mut group) = groups[i].lock() else { return Ok(()) };
        let mut room = [0f32; 512];
        let n_here = group.len() / k_tiles;
        for t in 0..k_tiles {
            for panel in 0..n_here {
                let outer = from + (i * PANELS + panel) * TILE_SIDE;
                let tile = &mut group[panel * k_tiles + t];
                if outer >= to {
                    *tile = Tile::ZERO;
                    continue;
                }
                let (source, step) = factor.source(outer, k0 + t * TILE_K, &mut room);
                isa.pack(tile, source, step, factor.is_strided, by_k);
            }
        }
        Ok(())
    })
}
