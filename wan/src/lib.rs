//! The mirroring protocol over QUIC: feeding children, following a parent.
