//! Gateways over real sockets, before real stores and ledgers.

mod http;
mod large;
mod protocol;
mod support;
mod tls;
