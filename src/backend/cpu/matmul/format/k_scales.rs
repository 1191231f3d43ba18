//! The 6-bit scales and mins of Q4_K and Q5_K: eight of each in 12 bytes.

/// (scale, min) of sub-block `block` < 8. The first four lie in the low six bits of their bytes; the others have their
/// low four bits in the last four bytes and their top two in the spare bits of the first eight.
pub fn scale_and_min(block: usize, packed: &[u8]) -> (u8, u8) {
    if block < 4 {
        (packed[block] & 63, packed[block + 4] & 63)
    } else {
        let low = packed[block + 4];
        (low & 15 | packed[block - 4] >> 6 << 4, low >> 4 | packed[block] >> 6 << 4)
    }
}
