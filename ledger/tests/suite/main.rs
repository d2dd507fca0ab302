//! Tests of the ledger's formats from outside: golden files, oracles, decoders, replay.

mod base;
mod common;
mod decoders;
mod golden;
mod manifest;
mod oracle;
mod replay;
