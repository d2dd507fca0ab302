//! Tests with real files.

mod base;
mod crash;
mod damage;
mod failures;
mod golden;
mod prune;
mod publish;
mod ranges;
mod repair;
mod rewind;
mod scrub;
mod staged;
