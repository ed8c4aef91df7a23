//! The framing of TFRecord files: length (u64), masked CRC-32C of the length (u32), data, masked
//! CRC-32C of the data (u32), all little-endian. The mask is that of
//! `tensorflow/core/lib/hash/crc32c.h`.

use crate::error::{Error, Result};

/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78; RFC 3720, appendix B.4) by table.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xff) as usize];
    !bytes.iter().fold(!0, step)
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// One record around `data`.
pub fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let parts = [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()];
    parts.concat()
}

/// The data of every record of a file.
///
/// Error: `InvalidData` for a checksum that is wrong or a record that is cut off.
pub fn read_records(mut bytes: &[u8]) -> Result<Vec<&[u8]>> {
    let mut records = Vec::new();
    let torn = || Error::data("a record is cut off");
    let wrong = |what: &str| Error::data(format!("the checksum of a record's {what} is wrong"));
    let crc = |at: &[u8]| at.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(torn)?;
        if crc(rest).ok_or_else(torn)? != masked(length) {
            return Err(wrong("length"));
        }
        let n = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| torn())?;
        let (data, rest) = rest[4..].split_at_checked(n).ok_or_else(torn)?;
        if crc(rest).ok_or_else(torn)? != masked(data) {
            return Err(wrong("data"));
        }
        records.push(data);
        bytes = &rest[4..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4, and the check value of the catalogue of CRC algorithms.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn damaged_records_are_found() {
        let file = [frame(b"one"), frame(b""), frame(b"three")].concat();
        assert_eq!(read_records(&file).unwrap(), [&b"one"[..], b"", b"three"]);
        for i in 0..file.len() {
            let mut bad = file.clone();
            bad[i] ^= 4;
            assert!(read_records(&bad).is_err(), "byte {i}");
        }
        assert!(read_records(&file[..file.len() - 1]).is_err());
    }
}
