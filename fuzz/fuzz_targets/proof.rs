//! Checking inclusion and consistency proofs of any shape ends without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::tree::{verify_consistency, verify_inclusion};
use tradewind_ledger::{Digest, Version};

fuzz_target!(|input: (u64, u64, [u8; 32], [u8; 32], Vec<[u8; 32]>)| {
    let (a, b, leaf, root, proof) = input;
    let proof: Vec<_> = proof.into_iter().map(Digest).collect();
    let _ = verify_inclusion(&Digest(leaf), Version(a), Version(b), &proof, &Digest(root));
    let _ = verify_consistency(Version(a), Version(b), &Digest(leaf), &Digest(root), &proof);
});
