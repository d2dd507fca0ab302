//! Every provider of the fabric runs the same conformance suite; what only one of them has follows it.

mod conformance;
mod faults;
mod shm;
mod sim;
mod tcp;
#[cfg(any(feature = "verbs", feature = "verbs-dlopen"))]
mod verbs;
