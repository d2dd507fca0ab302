//! Trees of mirrors in one process, over real QUIC and real files.

mod deployment;
mod faults;
mod relays;
