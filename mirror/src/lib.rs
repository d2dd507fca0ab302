//! A read-only replica: admit, verify, apply, serve, relay.
