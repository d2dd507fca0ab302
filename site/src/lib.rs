//! A node: the shell around the core group's protocols.
