//! Replay: reads the input as an entry bundle; a refused entry changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::Replay;

fuzz_target!(|bytes: &[u8]| {
    let mut replay = Replay::new();
    let mut rest = bytes;
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
        let (entry, after) = after.split_at(len);
        let before = (replay.size(), replay.root());
        if replay.push(entry).is_err() {
            assert_eq!((replay.size(), replay.root()), before);
        }
        rest = after;
    }
});
