//! The checkpoint and the partial tiles that go with it, taken together: a live ledger publishes a new
//! checkpoint many times a second, and removes the partial tiles of older ones.

use std::collections::HashMap;

use tradewind_ledger::note::MAX_NOTE;
use tradewind_ledger::tile::{self, TileId};
use tradewind_ledger::{Checkpoint, SignedNote, Version};

use crate::packed::{self, Found};
use crate::report::{Place, ProblemKind, Problems};
use crate::source::Source;

/// How often to start over when the checkpoint changes while its tiles are read.
const TRIES: usize = 20;

/// What is published at one moment.
pub(crate) struct Published {
    pub(crate) note: SignedNote,
    pub(crate) checkpoint: Checkpoint,
    /// The partial tiles of this size, as far as they are there.
    pub(crate) partial: HashMap<TileId, Found>,
}

/// Reads the checkpoint and its partial tiles; `None`, with the reason in `problems`, if it is not there
/// or cannot be read.
pub(crate) fn published(source: &dyn Source, problems: &mut Problems) -> Option<Published> {
    let mut bytes = read(source, problems)?;
    for _ in 0..TRIES {
        let (note, checkpoint) = parse(&bytes, problems)?;
        let partial = partial_tiles(source, checkpoint.size);
        let wanted = tile::partial_tiles(checkpoint.size).count();
        let again = read(source, problems)?;
        if again == bytes || partial.len() == wanted {
            return Some(Published { note, checkpoint, partial });
        }
        bytes = again;
    }
    let message = "it changes faster than its tiles can be read";
    problems.add(ProblemKind::Unchecked, Place::file("checkpoint"), message);
    None
}

fn read(source: &dyn Source, problems: &mut Problems) -> Option<Vec<u8>> {
    match source.read("checkpoint", MAX_NOTE as u64) {
        Ok(Some(bytes)) => return Some(bytes),
        Ok(None) => {
            let message = "there is no checkpoint: nobody signed anything";
            problems.add(ProblemKind::TooFewSigners, Place::file("checkpoint"), message);
        }
        Err(error) => problems.unread(&error),
    }
    None
}

fn parse(bytes: &[u8], problems: &mut Problems) -> Option<(SignedNote, Checkpoint)> {
    let note = match SignedNote::parse(bytes) {
        Ok(note) => note,
        Err(error) => {
            problems.fault(Place::file("checkpoint"), error.to_string());
            return None;
        }
    };
    match note.checkpoint() {
        Ok(checkpoint) => Some((note, checkpoint)),
        Err(error) => {
            problems.fault(Place::file("checkpoint"), error.to_string());
            None
        }
    }
}

/// One partial tile a level at most, so few files whatever the size says. What cannot be read now is
/// looked for again, and then reported, when its turn comes.
fn partial_tiles(source: &dyn Source, size: Version) -> HashMap<TileId, Found> {
    let read = |id: TileId| Some((id, packed::read(source, &id).ok().flatten()?));
    tile::partial_tiles(size).filter_map(read).collect()
}
