//! The tree of a published ledger, read from its hash tiles.

use std::cell::RefCell;
use std::collections::HashMap;

use tradewind_ledger::tile::{TileId, TileReader, decode_hashes};
use tradewind_ledger::tree::HashSource;
use tradewind_ledger::{Digest, Version};

use crate::packed;
use crate::source::Source;

/// The nodes of the tree of `size` entries. Nothing read is verified: compare its root with a signed one.
pub(crate) fn published_tree(source: &dyn Source, size: Version) -> impl HashSource {
    let cache = RefCell::new(HashMap::new());
    TileReader::new(size, move |id: &TileId| {
        cache.borrow_mut().entry(*id).or_insert_with(|| read(source, id)).clone()
    })
}

fn read(source: &dyn Source, id: &TileId) -> Option<Vec<Digest>> {
    let read = |id: &TileId| packed::read(source, id).ok().flatten();
    let hashes = match read(id) {
        Some(found) => decode_hashes(&found.bytes, id.width),
        // A partial tile may be gone once the full one is there.
        None => decode_hashes(&read(&id.full())?.bytes, id.full().width),
    };
    hashes.ok()
}
