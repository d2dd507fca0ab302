//! Tests with real files.

mod crash;
mod damage;
mod failures;
mod publish;
mod ranges;
