//! A record of the spool: length, checksum, payload. Pure.
//!
//! ```text
//! length of the payload: u32, little endian │ CRC-32 of the length and the payload: u32 │ payload
//! ```
//!
//! The checksum tells a record from what a crash left half-written, and from the zeros that a power cut may leave.

/// Bytes before the payload.
pub const HEADER: usize = 8;

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A whole record; the next one begins behind these many bytes.
    Record { payload: &'a [u8], size: usize },
    /// No whole record: the end, a torn one, or damage.
    Nothing,
}

/// Appends a record. The payload must be shorter than 4 GiB, which every request's limit is far below.
pub fn write(payload: &[u8], into: &mut Vec<u8>) {
    let length = (payload.len() as u32).to_le_bytes();
    into.extend_from_slice(&length);
    into.extend_from_slice(&checksum(&[&length, payload]).to_le_bytes());
    into.extend_from_slice(payload);
}

/// The record at the beginning of `bytes`.
pub fn read(bytes: &[u8]) -> Found<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Found::Nothing };
    let [a, b, c, d, e, f, g, h] = *header;
    let length = [a, b, c, d];
    let Some(payload) = rest.get(..u32::from_le_bytes(length) as usize) else { return Found::Nothing };
    if checksum(&[&length, payload]) != u32::from_le_bytes([e, f, g, h]) {
        return Found::Nothing;
    }
    Found::Record { payload, size: HEADER + payload.len() }
}

/// CRC-32 as in ISO 3309 (Ethernet, gzip).
fn checksum(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize];
    !parts.iter().copied().flatten().fold(u32::MAX, step)
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_well_known_one() {
        assert_eq!(checksum(&[b"1234", b"56789"]), 0xcbf4_3926);
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(read(&[0; 64]), Found::Nothing);
    }

    proptest! {
        #[test]
        fn a_record_reads_back_and_no_part_of_it_does(payload in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            write(&payload, &mut bytes);
            prop_assert_eq!(read(&bytes), Found::Record { payload: &payload, size: bytes.len() });
            prop_assert_eq!(read(&bytes[..cut.index(bytes.len())]), Found::Nothing);
        }

        #[test]
        fn a_changed_bit_is_found(payload in prop::collection::vec(any::<u8>(), 0..50), bit in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            write(&payload, &mut bytes);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(read(&bytes), Found::Nothing);
        }
    }
}
