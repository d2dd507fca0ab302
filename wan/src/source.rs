//! A ledger that can be fed to children.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::watch;
use tradewind_ledger::{ids::LedgerId, ids::Lineage};
use tradewind_ledger_disk::LedgerReader;
use tradewind_wan_protocol::Head;

/// A ledger of this process, as its children may have it.
#[derive(Clone)]
pub struct Source {
    /// Its name.
    pub ledger: LedgerId,
    /// Its identity.
    pub lineage: Lineage,
    /// Reads what is durable; at least up to the head.
    pub reader: LedgerReader,
    /// What children may have: durable here, committed by the site, and signed for. Sizes only grow.
    pub heads: watch::Receiver<Option<Arc<Head>>>,
    /// How long ago the head was all that the home site had committed. At a healthy node zero.
    pub age: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Source {
    /// The newest head.
    #[must_use]
    pub fn head(&self) -> Option<Arc<Head>> {
        self.heads.borrow().clone()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({} {})", self.ledger, self.lineage)
    }
}
