//! Tiles, bundles and their paths: what is accepted is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::tile::{self, TileId};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(tile) = text.parse::<TileId>()
    {
        assert_eq!(tile.to_string(), text);
    }
    let Some((width, bytes)) = bytes.split_first() else { return };
    let width = u16::from(*width) + 1;
    if let Ok(entries) = tile::decode_bundle(bytes, width) {
        assert_eq!(tile::encode_bundle(entries).expect("each entry fits"), bytes);
    }
    if let Ok(hashes) = tile::decode_hashes(bytes, width) {
        assert_eq!(tile::encode_hashes(&hashes), bytes);
    }
});
