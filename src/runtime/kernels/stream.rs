//! Moving matrices: rows that are written past the caches, and transposes.

/// Whether this processor has vectors of 16 numbers.
pub(super) fn is_wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// y = alpha · sums + row, written past the caches, which would not hold y until it is read: what
/// is overwritten is not read first. [`finish`] must follow on this thread before others read.
/// `row` is as long as `y`, or empty; `y` begins at a multiple of 64 bytes and has whole lines of
/// 16.
pub(super) fn row(y: &mut [f32], sums: &[f32], alpha: f32, row: &[f32]) {
    assert!(y.len() == sums.len() && (row.is_empty() || row.len() == y.len()));
    #[cfg(target_arch = "x86_64")]
    if is_wide() && y.as_ptr().align_offset(64) == 0 && y.len().is_multiple_of(16) {
        // SAFETY: the processor has the instructions; lengths and alignment are as promised.
        return unsafe { x86::row(y, sums, alpha, row) };
    }
    y.iter_mut().zip(sums).for_each(|(y, s)| *y = alpha * s);
    y.iter_mut().zip(row).for_each(|(y, c)| *y += c);
}

/// What this thread streamed is in memory before anything that it writes later, such as that its
/// part of the work is done.
pub(super) fn finish() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// to[c · to_step + r] = from[r · from_step + c] for `rows` and `columns` of `from`.
pub(super) fn transpose(
    (to, to_step): (&mut [f32], usize),
    (from, from_step): (&[f32], usize),
    (rows, columns): (usize, usize),
    wide: bool,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(from.len() >= (rows - 1) * from_step + columns);
    assert!(to.len() >= (columns - 1) * to_step + rows);
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if wide && is_wide() {
        done = columns / 16 * 16;
        for c in (0..done).step_by(16) {
            for r in (0..rows).step_by(16) {
                // SAFETY: the processor has the instructions, and the elements are there.
                unsafe {
                    let from = from.as_ptr().add(r * from_step + c);
                    let to = to.as_mut_ptr().add(c * to_step + r);
                    x86::transpose(to, to_step, from, from_step, (rows - r).min(16));
                }
            }
        }
    }
    for c in done..columns {
        for r in 0..rows {
            to[c * to_step + r] = from[r * from_step + c];
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::transpose_16;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// # Safety
    /// `y` begins at a multiple of 64 bytes and has whole lines of 16 numbers; `sums` is as long,
    /// and `row` too unless it is empty.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn row(y: &mut [f32], sums: &[f32], alpha: f32, row: &[f32]) {
        let alpha = _mm512_set1_ps(alpha);
        for at in (0..y.len()).step_by(16) {
            // SAFETY: by the caller's promise.
            unsafe {
                let mut line = _mm512_mul_ps(alpha, _mm512_loadu_ps(sums.as_ptr().add(at)));
                if !row.is_empty() {
                    line = _mm512_add_ps(line, _mm512_loadu_ps(row.as_ptr().add(at)));
                }
                _mm512_stream_ps(y.as_mut_ptr().add(at), line);
            }
        }
    }

    /// Transposes 16 columns of up to 16 rows.
    ///
    /// # Safety
    /// The rows are there, `from_step` apart, and room for the columns, `to_step` apart.
    #[target_feature(enable = "avx512f")]
    #[allow(clippy::needless_range_loop)]
    pub(super) unsafe fn transpose(
        to: *mut f32,
        to_step: usize,
        from: *const f32,
        from_step: usize,
        n_rows: usize,
    ) {
        let mut rows = [_mm512_setzero_si512(); 16];
        let there = (0xffff_u32 >> (16 - n_rows)) as u16;
        // SAFETY: by the caller's promise.
        unsafe {
            for r in 0..n_rows.min(16) {
                rows[r] = _mm512_loadu_si512(from.add(r * from_step).cast());
            }
            transpose_16(&mut rows);
            for c in 0..16 {
                _mm512_mask_storeu_epi32(to.add(c * to_step).cast(), there, rows[c]);
            }
        }
    }

    /// Transposes 16 by 16 numbers.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn transpose_16(x: &mut [__m512i; 16]) {
        let mut y = *x;
        for i in (0..16).step_by(2) {
            y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
            y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        }
        for i in (0..16).step_by(4) {
            x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
            x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
            x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
            x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
        }
        // Quarter q of x[4 g + j] holds column 4 q + j of rows 4 g to 4 g + 3.
        for j in 0..4 {
            let low = _mm512_shuffle_i32x4::<0x88>(x[j], x[4 + j]); // q 0, 2 of both
            let high = _mm512_shuffle_i32x4::<0xdd>(x[j], x[4 + j]); // q 1, 3 of both
            let low2 = _mm512_shuffle_i32x4::<0x88>(x[8 + j], x[12 + j]);
            let high2 = _mm512_shuffle_i32x4::<0xdd>(x[8 + j], x[12 + j]);
            y[j] = _mm512_shuffle_i32x4::<0x88>(low, low2);
            y[8 + j] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
            y[4 + j] = _mm512_shuffle_i32x4::<0x88>(high, high2);
            y[12 + j] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
        }
        *x = y;
    }
}
