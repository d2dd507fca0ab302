//! Snapshots: chunks that are taken up make a store that would be encoded as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_store::snapshot::Decoder;

fuzz_target!(|chunks: Vec<(Vec<u8>, Vec<u8>)>| {
    let mut decoder = Decoder::new();
    if chunks.iter().try_for_each(|(committed, values)| decoder.push(committed, values)).is_ok()
        && let Ok(store) = decoder.finish()
    {
        let (states, _) = store.slice(store.next(), None, usize::MAX);
        let stats = store.stats();
        assert_eq!(states.len() as u64, stats.keys + stats.deleted_keys);
    }
});
