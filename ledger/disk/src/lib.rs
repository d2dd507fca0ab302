//! A ledger in files: append, group commit, recovery, tiles.
