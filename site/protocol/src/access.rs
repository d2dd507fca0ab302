//! How the core reaches a shard's store, so that a shell can share it with its readers.

use tradewind_store::Store;

/// Exclusive access to a store for the length of one call.
///
/// The core owns one of these for each shard and calls it once for each delivered message (a batch of
/// commands). A plain [`Store`] is its own access; a shell that reads from other threads gives a clone
/// of an `Arc<RwLock<Store>>` in a newtype and takes the write lock here. Readers bound themselves by the
/// `Committed` watermark: what is above it may still be lost.
pub trait StoreAccess {
    /// Runs `change` on the store.
    fn with_mut<R>(&mut self, change: impl FnOnce(&mut Store) -> R) -> R;
}

impl StoreAccess for Store {
    fn with_mut<R>(&mut self, change: impl FnOnce(&mut Store) -> R) -> R {
        change(self)
    }
}
