//! Gateways over real sockets, before real stores and ledgers.

mod protocol;
mod support;
