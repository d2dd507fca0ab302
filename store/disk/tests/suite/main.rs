//! Tests of a store's snapshots in files.

mod running;
mod start;
mod taking;
