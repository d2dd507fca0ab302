//! Tests with real files.

mod base;
mod crash;
mod damage;
mod failures;
mod golden;
mod publish;
mod ranges;
mod repair;
mod rewind;
