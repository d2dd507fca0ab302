//! The core group's protocols as pure state machines (no_std).
