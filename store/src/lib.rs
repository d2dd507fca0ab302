//! Entries to versioned key/value state; the same code on a node and on a mirror.
