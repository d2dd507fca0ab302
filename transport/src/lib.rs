//! Fabrics (symmetric one-sided memory), identities, TLS and QUIC endpoints.
