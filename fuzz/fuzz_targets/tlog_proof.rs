//! Carried proofs: what is accepted is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::tlog_proof::TlogProof;

fuzz_target!(|text: &str| {
    if let Ok(proof) = text.parse::<TlogProof>() {
        assert_eq!(proof.to_text(), text);
    }
});
