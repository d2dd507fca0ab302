//! The auditor against real ledgers, whole and damaged.

mod common;
mod flips;
mod proofs;
mod verify;
