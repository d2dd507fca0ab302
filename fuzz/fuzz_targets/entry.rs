//! Entries: an accepted one has no second encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::Entry;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(entry.to_bytes().expect("what was decoded has an encoding"), bytes);
    }
});
