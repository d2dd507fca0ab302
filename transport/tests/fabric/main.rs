//! Every provider of the fabric runs the same conformance suite; what only TCP has follows it.

mod conformance;
mod tcp;
