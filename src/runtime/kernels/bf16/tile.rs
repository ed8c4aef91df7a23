//! What is written for each instruction set: packing a tile, and adding products of tiles to a
//! block of the result.

use half::bf16;

use super::pack::{TILE_SIDE, Tile};

/// Rows and columns of a block of the result.
pub(super) const BLOCK: usize = 2 * TILE_SIDE;
/// Its sums, which begin with a line of memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Block(pub(super) [f32; BLOCK * BLOCK]);

/// The instructions that products are made with. All round factors in the same way; sums differ in
/// their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    /// Tile registers (AMX-BF16).
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Dot products of pairs in vectors of 16 (AVX512-BF16).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// None in particular; slower than products in f32.
    Portable,
}

/// Whether this processor and system have instructions that make products in bf16 faster than in
/// f32.
pub fn is_fast() -> bool {
    Isa::best() != Isa::Portable
}

impl Isa {
    pub(super) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::sync::OnceLock;
            static BEST: OnceLock<Isa> = OnceLock::new();
            return *BEST.get_or_init(|| {
                // Intel's AVX512-BF16 was measured at 0.7 times the speed of products in f32.
                match x86::has_avx512() {
                    true if x86::may_use_tiles() => Self::Amx,
                    true if !x86::is_of_intel() => Self::Avx512,
                    _ => Self::Portable,
                }
            });
        }
        #[allow(unreachable_code)]
        Self::Portable
    }

    /// All that this processor has.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(x86::has_avx512().then_some(Self::Avx512));
            all.extend((Self::best() == Self::Amx).then_some(Self::Amx));
        }
        all
    }

    /// Whether [`stream_row`] may be called.
    pub(super) fn can_stream(self) -> bool {
        self != Self::Portable
    }

    /// Runs `work`, in which [`add_block`] may be called.
    pub(super) fn with_tiles(self, work: impl FnOnce()) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            // Given back also when `work` panics: the state would cost every switch of threads.
            struct Configured;
            impl Drop for Configured {
                fn drop(&mut self) {
                    // SAFETY: the processor has tiles.
                    unsafe { x86::release_tiles() };
                }
            }
            // SAFETY: the processor has tiles, and this process may use them.
            unsafe { x86::configure_tiles() };
            let _configured = Configured;
            return work();
        }
        work();
    }

    /// Packs one tile from rows `step` apart: 16 rows of 32 numbers along the summed axis, or where
    /// `is_strided`, 32 rows on that axis of 16 numbers.
    pub(super) fn pack(
        self,
        to: &mut Tile,
        from: &[f32],
        step: usize,
        is_strided: bool,
        by_k: bool,
    ) {
        let (rows, width) = if is_strided { (32, 16) } else { (16, 32) };
        assert!(from.len() >= (rows - 1) * step + width);
        match self {
            Self::Portable => pack_portable(to, from, step, is_strided, by_k),
            // SAFETY: the processor has the instructions, and the rows are there.
            #[cfg(target_arch = "x86_64")]
            Self::Amx | Self::Avx512 => unsafe {
                x86::pack(&mut to.0, from.as_ptr(), step, is_strided, is_strided != by_k);
            },
        }
    }
}

/// Adds the products of two panels of either factor to a block of the result, which is overwritten
/// where `is_first`. Within [`Isa::with_tiles`].
///
/// # Safety
/// Panels have `n_tiles` tiles, at least one. The processor has the instructions.
pub(super) unsafe fn add_block(
    isa: Isa,
    a: [*const Tile; 2],
    b: [*const Tile; 2],
    n_tiles: usize,
    y: &mut [f32; BLOCK * BLOCK],
    is_first: bool,
) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => x86::add_block_amx(a, b, n_tiles, y, is_first),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::add_block_avx512(a, b, n_tiles, y, is_first),
            Isa::Portable => add_block_portable(a, b, n_tiles, y, is_first),
        }
    }
}

/// y = alpha · sums + row, written past the caches: a row of the result from row `i` of every
/// `down`th block. `row` is as long as `y`, or empty.
/// [`stream::finish`](super::super::stream::finish) must follow on this thread before others read.
///
/// # Safety
/// [`Isa::can_stream`]. `y` begins at a multiple of 64 bytes and has whole lines of 16 numbers.
pub(super) unsafe fn stream_row(
    y: &mut [f32],
    blocks: &[Block],
    down: usize,
    i: usize,
    alpha: f32,
    row: &[f32],
) {
    assert!(row.is_empty() || row.len() == y.len());
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise is passed on.
    unsafe {
        x86::stream_row(y, blocks, down, i, alpha, row);
    }
}

fn pack_portable(to: &mut Tile, from: &[f32], step: usize, is_strided: bool, by_k: bool) {
    for outer in 0..TILE_SIDE {
        for pair in 0..TILE_SIDE {
            let at = |k: usize| if is_strided { k * step + outer } else { outer * step + k };
            let bits = |k: usize| u32::from(bf16::from_f32(from[at(k)]).to_bits());
            let place = if by_k { pair * TILE_SIDE + outer } else { outer * TILE_SIDE + pair };
            to.0[place] = bits(2 * pair) | bits(2 * pair + 1) << 16;
        }
    }
}

/// The two numbers of a pair.
fn pair(bits: u32) -> (f32, f32) {
    (f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000))
}

/// # Safety
/// As of [`add_block`].
unsafe fn add_block_portable(
    a: [*const Tile; 2],
    b: [*const Tile; 2],
    n_tiles: usize,
    y: &mut [f32; BLOCK * BLOCK],
    is_first: bool,
) {
    for (i, y) in y.chunks_exact_mut(BLOCK).enumerate() {
        // SAFETY: the panels have `n_tiles` tiles.
        let (a, b) = unsafe {
            let panel = |p: *const Tile| std::slice::from_raw_parts(p, n_tiles);
            (panel(a[i / TILE_SIDE]), b.map(panel))
        };
        if is_first {
            y.fill(0.0);
        }
        for (y, b) in y.chunks_exact_mut(TILE_SIDE).zip(b) {
            for (a, b) in a.iter().zip(b) {
                let row = &a.0[i % TILE_SIDE * TILE_SIDE..][..TILE_SIDE];
                for (&a, b) in row.iter().zip(b.0.chunks_exact(TILE_SIDE)) {
                    let (a0, a1) = pair(a);
                    for (y, &b) in y.iter_mut().zip(b) {
                        let (b0, b1) = pair(b);
                        *y += a0 * b0 + a1 * b1;
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;

    use super::{BLOCK, Block, TILE_SIDE, Tile};
    use crate::runtime::kernels::stream::transpose_16;

    pub(super) fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16")
    }

    fn cpuid(leaf: u32) -> CpuidResult {
        // It needs no `unsafe` since Rust 1.94.
        #[allow(unused_unsafe)]
        // SAFETY: every processor of this architecture has the instruction.
        unsafe {
            __cpuid_count(leaf, 0)
        }
    }

    pub(super) fn is_of_intel() -> bool {
        let id = cpuid(0);
        [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
    }

    /// Whether the processor has tiles of bf16, and the system lets this process use them. It is
    /// asked for; threads that exist already may use them too.
    pub(super) fn may_use_tiles() -> bool {
        const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
        if cpuid(0).eax < 7 || cpuid(7).edx & TILES_AND_BF16 != TILES_AND_BF16 {
            return false;
        }
        #[cfg(target_os = "linux")]
        {
            const REQUEST: libc::c_long = 0x1023; // ARCH_REQ_XCOMP_PERM
            const TILE_DATA: libc::c_long = 18;
            // SAFETY: a request about this process alone, which the system may refuse.
            return unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } == 0;
        }
        #[allow(unreachable_code)]
        false
    }

    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Eight tiles of 16 rows of 64 bytes.
    static CONFIGURATION: Configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// # Safety
    /// [`may_use_tiles`].
    pub(super) unsafe fn configure_tiles() {
        // SAFETY: the configuration is as the processor's manual describes it.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack)) };
    }

    /// # Safety
    /// The processor has tiles.
    pub(super) unsafe fn release_tiles() {
        // SAFETY: by the caller's promise.
        unsafe { asm!("tilerelease", options(nostack)) };
    }

    /// # Safety
    /// As of [`super::add_block`], and [`may_use_tiles`].
    pub(super) unsafe fn add_block_amx(
        a: [*const Tile; 2],
        b: [*const Tile; 2],
        n_tiles: usize,
        y: &mut [f32; BLOCK * BLOCK],
        is_first: bool,
    ) {
        const ROW: usize = 4 * BLOCK;
        let y = y.as_mut_ptr();
        // SAFETY: the panels are there, by the caller's promise. Tiles 0 to 3 are the block's
        // quarters, 4 and 5 of the first factor, 6 and 7 of the second.
        unsafe {
            let below = y.add(TILE_SIDE * BLOCK);
            if is_first {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack)
                );
            } else {
                asm!(
                    "tileloadd tmm0, [{y} + {w}]",
                    "tileloadd tmm1, [{y} + {w} + 64]",
                    "tileloadd tmm2, [{z} + {w}]",
                    "tileloadd tmm3, [{z} + {w} + 64]",
                    y = in(reg) y, z = in(reg) below, w = in(reg) ROW,
                    options(nostack),
                );
            }
            asm!(
                "2:",
                "tileloadd tmm4, [{a0} + {row}]",
                "tileloadd tmm6, [{b0} + {row}]",
                "tileloadd tmm7, [{b1} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, 1024",
                "add {a1}, 1024",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "dec {n}",
                "jnz 2b",
                a0 = inout(reg) a[0] => _, a1 = inout(reg) a[1] => _,
                b0 = inout(reg) b[0] => _, b1 = inout(reg) b[1] => _,
                n = inout(reg) n_tiles => _, row = in(reg) 64usize,
                options(nostack),
            );
            asm!(
                "tilestored [{y} + {w}], tmm0",
                "tilestored [{y} + {w} + 64], tmm1",
                "tilestored [{z} + {w}], tmm2",
                "tilestored [{z} + {w} + 64], tmm3",
                y = in(reg) y, z = in(reg) below, w = in(reg) ROW,
                options(nostack),
            );
        }
    }

    // Plain loops: what iterators and closures call is not always inlined into functions with
    // features of their own, and then the sums do not stay in registers.
    /// # Safety
    /// As of [`super::add_block`], and [`has_avx512`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(clippy::needless_range_loop)]
    pub(super) unsafe fn add_block_avx512(
        a: [*const Tile; 2],
        b: [*const Tile; 2],
        n_tiles: usize,
        y: &mut [f32; BLOCK * BLOCK],
        is_first: bool,
    ) {
        const ROWS: usize = 8;
        for part in 0..4 {
            let first = part % 2 * ROWS;
            // SAFETY: the panels are there, by the caller's promise.
            unsafe {
                let y = y.as_mut_ptr().add(part * ROWS * BLOCK);
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                if !is_first {
                    for r in 0..ROWS {
                        for c in 0..2 {
                            sums[r][c] = _mm512_loadu_ps(y.add(r * BLOCK + c * 16));
                        }
                    }
                }
                for tile in 0..n_tiles {
                    let a = a[part / 2].add(tile).cast::<i32>().add(first * TILE_SIDE);
                    let (left, right) = (b[0].add(tile).cast(), b[1].add(tile).cast());
                    for pair in 0..TILE_SIDE {
                        let columns = [pairs_at(left, pair), pairs_at(right, pair)];
                        for r in 0..ROWS {
                            let x = _mm512_set1_epi32(*a.add(r * TILE_SIDE + pair));
                            let x = std::mem::transmute::<__m512i, __m512bh>(x);
                            for c in 0..2 {
                                sums[r][c] = _mm512_dpbf16_ps(sums[r][c], x, columns[c]);
                            }
                        }
                    }
                }
                for r in 0..ROWS {
                    for c in 0..2 {
                        _mm512_storeu_ps(y.add(r * BLOCK + c * 16), sums[r][c]);
                    }
                }
            }
        }
    }

    /// A row of pairs of a tile of the second factor.
    ///
    /// # Safety
    /// The tile has the row, and the processor the instructions.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn pairs_at(tile: *const i32, row: usize) -> __m512bh {
        // SAFETY: by the caller's promise; tiles and their rows begin with a line of memory.
        unsafe { std::mem::transmute(_mm512_load_si512(tile.add(row * TILE_SIDE).cast())) }
    }

    /// # Safety
    /// As of [`super::stream_row`]; `row` is as long as `y`, or empty.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn stream_row(
        y: &mut [f32],
        blocks: &[Block],
        down: usize,
        i: usize,
        alpha: f32,
        row: &[f32],
    ) {
        let alpha = _mm512_set1_ps(alpha);
        for n in 0..y.len() / 16 {
            let sums = &blocks[n / 2 * down].0[i * BLOCK + n % 2 * 16..][..16];
            // SAFETY: by the caller's promise.
            unsafe {
                let mut line = _mm512_mul_ps(alpha, _mm512_loadu_ps(sums.as_ptr()));
                if !row.is_empty() {
                    line = _mm512_add_ps(line, _mm512_loadu_ps(row.as_ptr().add(n * 16)));
                }
                _mm512_stream_ps(y.as_mut_ptr().add(n * 16), line);
            }
        }
    }

    /// The first numbers of 16 pairs, then the second ones: brought together.
    const TURNS: [u16; 32] = {
        let mut turns = [0; 32];
        let mut i = 0;
        while i < 32 {
            turns[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        turns
    };

    /// Packs a tile; the rows of pairs are turned into columns where `transpose`.
    ///
    /// # Safety
    /// [`has_avx512`]; `from` has the rows that [`super::Isa::pack`] describes.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(clippy::needless_range_loop)]
    pub(super) unsafe fn pack(
        to: &mut [u32; 256],
        from: *const f32,
        step: usize,
        is_strided: bool,
        transpose: bool,
    ) {
        let mut rows = [_mm512_setzero_si512(); 16];
        // SAFETY: the rows are there, by the caller's promise.
        unsafe {
            let turns = _mm512_loadu_si512(TURNS.as_ptr().cast());
            for r in 0..16 {
                let (first, second) = match is_strided {
                    true => (from.add(2 * r * step), from.add((2 * r + 1) * step)),
                    false => (from.add(r * step), from.add(r * step + 16)),
                };
                let (first, second) = (_mm512_loadu_ps(first), _mm512_loadu_ps(second));
                let both = _mm512_cvtne2ps_pbh(second, first);
                rows[r] = std::mem::transmute::<__m512bh, __m512i>(both);
                if is_strided {
                    rows[r] = _mm512_permutexvar_epi16(turns, rows[r]);
                }
            }
            if transpose {
                transpose_16(&mut rows);
            }
            for r in 0..16 {
                _mm512_store_si512(to.as_mut_ptr().add(16 * r).cast(), rows[r]);
            }
        }
    }
}
