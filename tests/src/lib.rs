//! The simulator, the explorer, end-to-end tests with real processes, interop tests.

pub mod e2e;
pub mod explore;
pub mod sim;

pub use tradewind_local::linear;
