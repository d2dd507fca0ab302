//! The simulator, end-to-end tests with real processes, interop tests.

pub mod e2e;
pub mod sim;

pub use tradewind_local::linear;
