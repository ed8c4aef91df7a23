//! Images of matrices as PNG (RFC 2083): 8-bit RGB, in deflate blocks that are not compressed
//! (RFC 1951, 3.2.4).

/// Pixels of the longer side, about.
const SIDE: usize = 192;
/// Bytes of a stored block at most.
const BLOCK: usize = 65_535;

/// A square matrix of `n` × `n` numbers, row by row, as squares of colour: -1 blue, 0 white, 1 red,
/// what is not finite grey. Gives the image's side in pixels and the file.
pub fn heat_map(matrix: &[f64], n: usize) -> (usize, Vec<u8>) {
    let cell = (SIDE / n.max(1)).max(1);
    let side = cell * n;
    let mut rows = Vec::with_capacity(side * (1 + 3 * side));
    for row in matrix.chunks(n.max(1)).take(n) {
        let mut line = vec![0]; // no filter
        for value in row {
            line.extend(std::iter::repeat_n(colour(*value), cell).flatten());
        }
        (0..cell).for_each(|_| rows.extend(&line));
    }
    (side, encode(side, side, &rows))
}

fn colour(value: f64) -> [u8; 3] {
    if !value.is_finite() {
        return [128; 3];
    }
    let fade = (255.0 * (1.0 - value.abs().min(1.0))).round() as u8;
    if value < 0.0 { [fade, fade, 255] } else { [255, fade, fade] }
}

/// A file of lines that each begin with their filter.
fn encode(width: usize, height: usize, lines: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let size = [width as u32, height as u32].map(u32::to_be_bytes).concat();
    // 8 bits, RGB; deflate, adaptive filters, not interlaced.
    chunk(&mut file, b"IHDR", &[&size[..], &[8, 2, 0, 0, 0]].concat());
    chunk(&mut file, b"IDAT", &zlib(lines));
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(kind);
    file.extend(data);
    file.extend(crc32fast::hash(&file[start..]).to_be_bytes());
}

/// The zlib format (RFC 1950) of stored blocks.
fn zlib(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = data.chunks(BLOCK).peekable();
    if blocks.peek().is_none() {
        out.extend([1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let n = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(n.to_le_bytes());
        out.extend((!n).to_le_bytes());
        out.extend(block);
    }
    out.extend(adler32(data).to_be_bytes());
    out
}

fn adler32(data: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in data {
        a = (a + u32::from(byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    (b << 16) | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_sizes() {
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        let (side, file) = heat_map(&[1.0, -1.0, 0.0, f64::NAN], 2);
        assert_eq!(side, SIDE);
        assert_eq!(&file[16..24], [0, 0, 0, SIDE as u8, 0, 0, 0, SIDE as u8]);
        // Two blocks: 192 lines of 577 bytes.
        let data = SIDE * (1 + 3 * SIDE);
        assert_eq!(file.len(), 8 + 25 + 12 + 12 + 2 + 2 * 5 + data + 4);
        assert_eq!([colour(1.0), colour(-1.0), colour(0.0)], [[255, 0, 0], [0, 0, 255], [255; 3]]);
    }
}
