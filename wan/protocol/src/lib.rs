//! The mirroring protocol as a pure state machine (no_std).
