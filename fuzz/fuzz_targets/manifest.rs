//! Manifest of a snapshot: what is accepted is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
    }
});
