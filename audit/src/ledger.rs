//! Reads one ledger from its first entry, or the first that is kept, to its last: entries, public face, keys, values. What it found is
//! then judged (`judge`).

use std::collections::HashMap;

use tradewind_ledger::tile::TILE_WIDTH;
use tradewind_ledger::tree::leaf_hash;
use tradewind_ledger::{Base, Digest, Entry, Hlc, Member, Replay, Value, Version};

use crate::judge::judge;
use crate::keys::Keys;
use crate::pruned::read_base;
use crate::published::published;
use crate::report::{LedgerReport, Place, ProblemKind, Problems};
use crate::segments::Segments;
use crate::source::Source;
use crate::tiles::{Chunk, Tiles};
use crate::values::Values;
use crate::verify::Options;

/// Chunks in a row without any entry, after which the rest is given up: a forged size must not keep the
/// auditor busy for ever.
const MISSING_CHUNKS_MAX: u32 = 16;

/// The state at a size that matters: the checkpoint's, or that of a checkpoint known before.
#[derive(Clone)]
pub(crate) struct Mark {
    pub(crate) root: Digest,
    pub(crate) hlc: Hlc,
    pub(crate) members: Vec<Member>,
}

/// What is known of a ledger while it is read.
struct Run<'a> {
    /// Entries before it were pruned.
    first: Version,
    problems: Problems,
    replay: Replay,
    /// The replay met something it cannot go past.
    broken: bool,
    keys: Keys,
    values: Values<'a>,
    marks: HashMap<Version, Option<Mark>>,
}

pub(crate) fn verify_ledger(source: &dyn Source, name: String, options: &Options) -> LedgerReport {
    let mut problems = Problems::default();
    let base = read_base(source, &mut problems);
    let base = base.as_ref();
    let first = base.map_or(Version::ZERO, Base::size);
    let mut run = Run {
        first,
        problems,
        replay: base.map_or_else(Replay::new, Replay::from_base),
        broken: false,
        keys: Keys::new(first),
        values: Values::new(source),
        marks: HashMap::new(),
    };
    let mut published = published(source, &mut run.problems);
    let size = published.as_ref().map_or(Version::ZERO, |published| published.checkpoint.size);
    run.marks.insert(size, None);
    let known = options.known.iter().filter_map(|note| note.checkpoint().ok());
    run.marks.extend(known.map(|checkpoint| (checkpoint.size, None)));
    let partial = published.as_mut().map(|published| std::mem::take(&mut published.partial));

    // In this order: whatever a live ledger published lies in segments that are there by then.
    let mut tiles = Tiles::open(source, partial.unwrap_or_default(), size, base, &mut run.problems);
    let mut segments = Segments::open(source, base, &mut run.problems);
    tiles.without_bundles &= segments.is_some();
    run.read(segments.as_mut(), &mut tiles, size);
    tiles.finish(&mut run.problems);
    run.values.check_rest(&mut run.problems);
    let read = segments.map_or((0, 0), |segments| (segments.files, segments.bytes));

    run.mark();
    let Run { mut problems, replay, values, marks, .. } = run;
    let mut report =
        judge(source, options, (name, first), &replay, &marks, published, &mut problems);
    report.segments = read.0;
    report.bytes = read.1 + tiles.bytes + values.bytes;
    report.values = values.count;
    report.problems = problems.into_list();
    report
}

impl Run<'_> {
    /// Reads all entries, from the segment files and where those have none from the bundles.
    fn read(
        &mut self,
        mut segments: Option<&mut Segments<'_>>,
        tiles: &mut Tiles<'_>,
        size: Version,
    ) {
        let (mut missing, mut size_hint) = (0, 0);
        let begin = self.first.0 / u64::from(TILE_WIDTH);
        for _ in 0..begin {
            // Of these only the tiles know something.
            tiles.push(vec![None; TILE_WIDTH.into()], &mut self.problems);
        }
        for index in begin.. {
            let mut chunk = Chunk::new(index, size_hint);
            let first = Version(chunk.first());
            if let Some(segments) = segments.as_deref_mut() {
                self.fill(&mut chunk, segments, size);
            }
            let published = size.since(first).min(u64::from(TILE_WIDTH)) as usize;
            while chunk.entries.len() < published {
                chunk.append(None);
            }
            tiles.check_bundle(&mut chunk, &mut self.problems);
            size_hint = chunk.bytes.len();
            let none = chunk.entries.iter().all(Option::is_none);
            missing = if none { missing + 1 } else { 0 };
            let leaves = (0..chunk.entries.len()).map(|at| self.take(&chunk, at)).collect();
            tiles.push(leaves, &mut self.problems);
            let ended = segments.as_deref().is_none_or(Segments::exhausted);
            let end = first.plus(u64::from(TILE_WIDTH));
            if ended && end >= size || missing == MISSING_CHUNKS_MAX {
                break;
            }
        }
        if let Some(segments) = segments {
            segments.drain(&mut self.problems);
            let held = segments.end();
            if held < size {
                let message = format!("the segments end at {held}, the checkpoint covers {size}");
                self.problems.fault(Place::file("segments").of(held), message);
            }
        }
    }

    /// Fills a chunk from the segment files.
    fn fill(&mut self, chunk: &mut Chunk, segments: &mut Segments<'_>, size: Version) {
        for at in 0..u64::from(TILE_WIDTH) {
            let version = Version(chunk.first() + at);
            if version < self.first {
                chunk.append(None);
            } else if segments.seek(version, &mut self.problems) {
                let found = segments.found();
                chunk.append(Some((found.entry, found.file, found.offset)));
            } else if version < size || !segments.exhausted() {
                chunk.append(None);
            } else {
                return;
            }
        }
    }

    /// Judges one entry of a chunk; returns its leaf hash, if there is an entry.
    fn take(&mut self, chunk: &Chunk, at: usize) -> Option<Digest> {
        let version = Version(chunk.first() + at as u64);
        if version < self.first {
            return chunk.entry(at).map(leaf_hash);
        }
        let Some(bytes) = chunk.entry(at) else {
            let straddles =
                chunk.first() < self.first.0 && chunk.places.iter().all(Option::is_none);
            if !self.broken && straddles {
                self.broken = true;
                let message = "the entry is in a bundle that went with pruned entries: \
                               verify the directory, or what a mirror serves";
                self.problems.add(ProblemKind::Unchecked, chunk.place(at), message);
            } else if !self.broken {
                self.broken = true;
                self.problems.missing(chunk.place(at), "the entry is nowhere to be found");
            }
            return None;
        };
        if self.broken {
            return Some(leaf_hash(bytes));
        }
        self.mark();
        match self.replay.push(bytes) {
            Ok(entry) => {
                self.follow(&entry, chunk, at);
                Some(self.replay.last_leaf())
            }
            Err(error) => {
                self.broken = true;
                self.problems.fault(chunk.place(at), error.kind.to_string());
                Some(leaf_hash(bytes))
            }
        }
    }

    /// Checks what needs the state of the keys, and the detached values.
    fn follow(&mut self, entry: &Entry, chunk: &Chunk, at: usize) {
        let version = Version(chunk.first() + at as u64);
        for update in entry.updates() {
            if let Err(message) = self.keys.follow(version, update) {
                self.problems.fault(chunk.place(at), message);
            }
            if let Some(Value::Detached { len, digest }) = update.value {
                self.values.check(version, len, digest, &mut self.problems);
            }
        }
    }

    /// Remembers the state if this size matters.
    fn mark(&mut self) {
        if let Some(mark) = self.marks.get_mut(&self.replay.size()) {
            *mark = Some(Mark {
                root: self.replay.root(),
                hlc: self.replay.last_hlc(),
                members: self.replay.members().to_vec(),
            });
        }
    }
}
