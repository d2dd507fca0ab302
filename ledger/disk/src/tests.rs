//! Tests with real files.

mod crash;
mod damage;
mod failures;
mod golden;
mod publish;
mod ranges;
mod repair;
mod rewind;
