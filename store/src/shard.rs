//! Which shard of a pool a key belongs to: fixed for ever, for clients and servers alike.

/// The part of `key` that decides its shard: what stands between the first `{` and the next `}` if that is not
/// empty, otherwise the whole key. Keys with the same tag live in the same shard and so fit into one transaction.
///
/// ```
/// use tradewind_store::tag;
/// assert_eq!(tag(b"order/{alice}/17"), b"alice");
/// assert_eq!(tag(b"plain"), b"plain");
/// assert_eq!(tag(b"{}empty"), b"{}empty");
/// ```
pub fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
    let inner = &key[open + 1..];
    match inner.iter().position(|&b| b == b'}') {
        Some(length @ 1..) => &inner[..length],
        _ => key,
    }
}

/// The shard, below `shards`, of `key`: FNV-1a (64 bit) over [`tag`]`(key)`, finished by the 64-bit mixer of
/// MurmurHash3 and scaled to the number of shards by its high bits. Stable for ever; golden values are in the tests.
///
/// # Panics
/// If `shards` is zero: a pool has at least one.
pub fn shard_of(key: &[u8], shards: u32) -> u32 {
    assert!(shards > 0, "a pool has at least one shard");
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in tag(key) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    // The product of a 64-bit and a 32-bit number shifted right by 64 is below `shards`.
    ((u128::from(hash) * u128::from(shards)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values_never_change() {
        let keys: [&[u8]; 6] = [b"", b"a", b"ams", b"{ams}/1", b"order/{alice}/17", &[0, 255, 0]];
        let shards = keys.map(|key| shard_of(key, 1000));
        // Computed by an independent implementation.
        assert_eq!(shards, [936, 510, 231, 231, 207, 230]);
    }

    #[test]
    fn a_tag_keeps_keys_together_and_others_spread() {
        assert_eq!(shard_of(b"a{t}1", 64), shard_of(b"{t}", 64));
        let mut seen = [0_u32; 8];
        for n in 0_u32..8000 {
            seen[shard_of(&n.to_be_bytes(), 8) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)), "{seen:?}");
    }
}
