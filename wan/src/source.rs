//! A ledger that can be fed to children.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::watch;
use tradewind_ledger::{Entry, LedgerId, Lineage, SignedNote, Version};
use tradewind_ledger_disk::LedgerReader;
use tradewind_wan_protocol::Head;
use tradewind_wan_protocol::wire::Part;

/// Gives parts of a ledger's snapshots: of which size, and which part. `None`: not here, or not yet. It reads files.
pub type Lend = Arc<dyn Fn(Version, Part) -> Result<Option<Vec<u8>>, String> + Send + Sync>;

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
    /// Its snapshots, for a child that lacks what was pruned here.
    pub lend: Lend,
}

impl Source {
    /// A ledger of a node: every signed checkpoint in `notes`, of which all entries are durable, is a
    /// head. Runs within the current tokio runtime as long as `notes` has a sender.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn of_notes(
        ledger: LedgerId,
        lineage: Lineage,
        reader: LedgerReader,
        mut notes: watch::Receiver<Option<Arc<SignedNote>>>,
        age: Arc<dyn Fn() -> Duration + Send + Sync>,
        lend: Lend,
    ) -> Self {
        let (sender, heads) = watch::channel(None);
        let (id, entries) = (ledger.clone(), reader.clone());
        notes.mark_changed();
        tokio::spawn(async move {
            while notes.changed().await.is_ok() {
                let Some(note) = notes.borrow_and_update().clone() else { continue };
                match head(&entries, &note) {
                    Ok(head) => _ = sender.send_replace(Some(Arc::new(head))),
                    Err(error) => tracing::error!(ledger = %id, error, "no head for children"),
                }
            }
        });
        Self { ledger, lineage, reader, heads, age, lend }
    }

    /// The newest head.
    #[must_use]
    pub fn head(&self) -> Option<Arc<Head>> {
        self.heads.borrow().clone()
    }
}

/// The head of a signed checkpoint; the time is that of its last entry.
fn head(entries: &LedgerReader, note: &SignedNote) -> Result<Head, String> {
    let signed = note.checkpoint().map_err(|error| error.to_string())?;
    let last = signed.size.0.checked_sub(1).ok_or("it is over an empty ledger")?;
    let bytes = entries.entry(Version(last)).map_err(|error| error.to_string())?;
    let entry = Entry::decode(&bytes).map_err(|error| error.to_string())?;
    Ok(Head::signed(signed.size, signed.root, entry.hlc, &note.to_string()))
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({} {})", self.ledger, self.lineage)
    }
}
