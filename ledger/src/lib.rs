//! Entries, segments, Merkle tree, checkpoints and proofs of a ledger (pure, no_std).
