//! The entries of a ledger one after another, compared with what was signed.

use std::fs::File;
use std::path::Path;

use tradewind_ledger::base::Base;
use tradewind_ledger::entry::{Genesis, Member, Value};
use tradewind_ledger::ids::{Digest, Lineage, Version};
use tradewind_ledger::note::{Checkpoint, CheckpointError, Policy, SignedNote};
use tradewind_ledger::replay::{Replay, ReplayError};
use tradewind_ledger::segment_file::{Framing, SegmentName, State};

use super::RepairError;
use crate::error::{Context, Damage, Found, ReadError};
use crate::scan::{Scan, Step};
use crate::writer::is_seal;

/// The detached values that a file's entries refer to.
pub(super) type Values = Vec<Digest>;

/// The entries so far.
pub(super) struct Chain {
    pub(super) replay: Replay,
    lineage: Lineage,
    framing: Framing,
    stated: Vec<Stated>,
}

/// A checkpoint, and what the entries gave when they came to its size.
struct Stated {
    by: String,
    note: SignedNote,
    checkpoint: Checkpoint,
    reached: Option<(Digest, Vec<Member>)>,
}

/// The largest checkpoint that holds.
pub(super) struct Proven {
    pub(super) size: Version,
    pub(super) note: SignedNote,
}

impl Chain {
    /// The entries before the first that is kept; none without a base.
    pub(super) fn new(lineage: Lineage, framing: Framing, base: Option<&Base>) -> Self {
        let replay = base.map_or_else(Replay::new, Replay::from_base);
        Self { replay, lineage, framing, stated: Vec::new() }
    }

    pub(super) fn lineage(&self) -> Lineage {
        self.lineage
    }

    pub(super) fn size(&self) -> Version {
        self.replay.size()
    }

    /// Takes up what `by` states, to compare it when its size is reached; its size.
    pub(super) fn expect(
        &mut self,
        by: &str,
        note: SignedNote,
    ) -> Result<Version, CheckpointError> {
        let checkpoint = note.checkpoint()?;
        let size = checkpoint.size;
        self.stated.push(Stated { by: by.to_owned(), note, checkpoint, reached: None });
        Ok(size)
    }

    /// Takes up the next entry; `values` gets those that it refers to.
    pub(super) fn accept(&mut self, bytes: &[u8], values: &mut Values) -> Result<(), ReplayError> {
        let entry = self.replay.push(bytes)?;
        let (size, replay) = (self.replay.size(), &self.replay);
        for stated in self.stated.iter_mut().filter(|stated| stated.checkpoint.size == size) {
            stated.reached = Some((replay.root(), replay.members().to_vec()));
        }
        values.extend(entry.updates().iter().filter_map(|update| match update.value {
            Some(Value::Detached { digest, .. }) => Some(digest),
            _ => None,
        }));
        Ok(())
    }

    /// Takes up the entries of the file at `path`, which is or will be the one of `name`, as opening the ledger does.
    pub(super) fn walk(&mut self, path: &Path, name: SegmentName) -> Result<Values, ReadError> {
        let file = File::open(path).context("open", path)?;
        let (mut scan, header, state) = Scan::open(&file, path, name.first)?;
        let damage = |offset, found| Damage { file: path.to_owned(), offset, found };
        if header.lineage != self.lineage {
            let (found, expected) = (header.lineage, self.lineage);
            return Err(damage(24, Found::Lineage { found, expected }).into());
        }
        let mark = match state {
            State::Open { .. } | State::Torn if name.last.is_some() => {
                return Err(damage(512, Found::Watermarks).into());
            }
            State::Open { watermark, .. } => Some(watermark),
            State::Sealed | State::Torn => None,
        };
        if let Some(mark) = mark.filter(|mark| mark.bytes > scan.len()) {
            return Err(damage(scan.len(), Found::Shortened { synced: mark.bytes }).into());
        }
        let mut values = Values::new();
        let mut sealed = false;
        loop {
            let (offset, version) = scan.place();
            let is_synced = mark.is_none_or(|mark| offset < mark.bytes);
            if let Some(mark) = mark.filter(|mark| is_synced != (version < mark.next)) {
                return Err(damage(offset, Found::Watermark { next: mark.next }).into());
            }
            if sealed {
                let end = scan.used_until()?;
                let whole = if name.last.is_some() { scan.len() == offset } else { end == offset };
                return if whole {
                    Ok(values)
                } else {
                    Err(damage(offset, Found::Trailing).into())
                };
            }
            match scan.step(&self.framing)? {
                Step::Entry(entry) => {
                    sealed = is_seal(entry);
                    let due = name.last.map(|last| version == last);
                    if let Some(wanted) = due.filter(|wanted| *wanted != sealed) {
                        return Err(damage(offset, Found::Seal { version, wanted }).into());
                    }
                    self.accept(entry, &mut values)
                        .map_err(|error| damage(offset, error.into()))?;
                }
                Step::End | Step::Bad(_) if !is_synced => return Ok(values),
                Step::End => return Err(damage(offset, Found::Missing { version }).into()),
                Step::Bad(source) => {
                    return Err(damage(offset, Found::Record { version, source }).into());
                }
            }
        }
    }

    /// The largest of the checkpoints that a majority of the members signed, after all that were reached were
    /// compared with the entries.
    pub(super) fn proven(&self) -> Result<Option<Proven>, RepairError> {
        let mut best: Option<Proven> = None;
        for Stated { by, note, checkpoint, reached } in &self.stated {
            let Some((root, members)) = reached else { continue };
            if *root != checkpoint.root {
                return Err(RepairError::Root {
                    by: by.clone(),
                    size: checkpoint.size,
                    signed: checkpoint.root,
                    computed: *root,
                });
            }
            let origin = self.replay.genesis().map(Genesis::origin).unwrap_or_default();
            let verified =
                Policy::majority(&origin, members.clone()).map(|policy| policy.verify(note));
            match verified {
                Ok(Ok(_)) if best.as_ref().is_none_or(|best| best.size < checkpoint.size) => {
                    best = Some(Proven { size: checkpoint.size, note: note.clone() });
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(by, %error, "a checkpoint that proves nothing"),
                Err(error) => tracing::warn!(by, %error, "a checkpoint that cannot be verified"),
            }
        }
        Ok(best)
    }
}
