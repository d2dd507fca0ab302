//! Verifier keys and names: what is accepted is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::{Digest, LedgerId, SegmentName, VerifierKey};

fuzz_target!(|text: &str| {
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(id) = text.parse::<LedgerId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(name) = text.parse::<SegmentName>() {
        assert_eq!(name.to_string(), text);
    }
});
