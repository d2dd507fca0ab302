//! The simulator, end-to-end tests with real processes, interop tests.

pub mod e2e;
pub mod linear;
pub mod sim;
