//! Base: what is accepted is written back the same, and a replay can begin there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::tree::value_digest;
use tradewind_ledger::{Base, Replay};

fuzz_target!(|bytes: &[u8]| {
    let _ = Base::decode(bytes);
    // The digest would keep the fuzzer out: give the bytes their own.
    let mut bytes = bytes.to_vec();
    let digest = value_digest(&bytes);
    bytes.extend_from_slice(&digest.0);
    if let Ok(base) = Base::decode(&bytes) {
        assert_eq!(base.encode(), bytes);
        let replay = Replay::from_base(&base);
        assert_eq!((replay.size(), replay.root()), (base.size(), base.root()));
    }
});
