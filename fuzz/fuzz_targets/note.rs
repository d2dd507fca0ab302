//! Signed notes and the checkpoints in them: what is accepted is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::SignedNote;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = SignedNote::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        if let Ok(checkpoint) = note.checkpoint() {
            assert_eq!(checkpoint.to_string(), note.text());
        }
    }
});
