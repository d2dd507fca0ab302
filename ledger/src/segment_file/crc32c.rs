//! CRC-32C (Castagnoli, as in RFC 3720 appendix B.4) in portable code, eight bytes a step.
//!
//! A program that may use the processor's instruction passes that to [`super::Framing`] instead.

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[k][b]` is the remainder of byte `b` followed by `k` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut entry = 256;
    while entry < 8 * 256 {
        let before = tables[entry / 256 - 1][entry % 256];
        tables[entry / 256][entry % 256] = before >> 8 ^ tables[0][(before & 0xff) as usize];
        entry += 1;
    }
    tables
}

/// Continues the CRC-32C `crc` of some bytes (0 for none) over the bytes that follow them.
#[must_use]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    let mut crc = !crc;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let [a, b, c, d] = crc.to_le_bytes();
        let [e, f, g, h] = [word[4], word[5], word[6], word[7]];
        crc = TABLES[7][usize::from(a ^ word[0])]
            ^ TABLES[6][usize::from(b ^ word[1])]
            ^ TABLES[5][usize::from(c ^ word[2])]
            ^ TABLES[4][usize::from(d ^ word[3])]
            ^ TABLES[3][usize::from(e)]
            ^ TABLES[2][usize::from(f)]
            ^ TABLES[1][usize::from(g)]
            ^ TABLES[0][usize::from(h)];
    }
    for byte in rest {
        let [low, ..] = crc.to_le_bytes();
        crc = crc >> 8 ^ TABLES[0][usize::from(low ^ byte)];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32c_append;

    /// The test vectors of RFC 3720, appendix B.4.
    #[test]
    fn published_vectors_hold() {
        assert_eq!(crc32c_append(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c_append(0, &[0xff; 32]), 0x62a8_ab43);
        let ascending: [u8; 32] = core::array::from_fn(|i| i as u8);
        assert_eq!(crc32c_append(0, &ascending), 0x46dd_794e);
        assert_eq!(crc32c_append(0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_sum_may_be_taken_in_parts() {
        let bytes: [u8; 61] = core::array::from_fn(|i| (i * 7) as u8);
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            let parts = crc32c_append(crc32c_append(0, head), tail);
            assert_eq!(parts, crc32c_append(0, &bytes), "cut at {cut}");
        }
    }
}
