//! Walks the segment files from entry to entry (`docs/formats/segment-file.md`), listing all that is wrong
//! with their framing. What an entry says is judged elsewhere.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use tradewind_ledger::segment::{MAX_SEGMENT_BYTES, MAX_SEGMENT_ENTRIES};
use tradewind_ledger::segment_file::{
    Framing, Header, PAGE, RECORD_HEADER, Record, RecordError, State,
};
use tradewind_ledger::{Base, Body, Entry, Lineage, SegmentName, Version};

use crate::report::{Place, Problems};
use crate::source::{Source, SourceError};

/// Bytes of a segment file at most, with generous preallocation.
const MAX_FILE: u64 = 2 * MAX_SEGMENT_BYTES + MAX_SEGMENT_ENTRIES as u64 * RECORD_HEADER as u64;

/// Reads consecutive entries out of segment files.
pub(crate) struct Segments<'a> {
    source: &'a dyn Source,
    waiting: VecDeque<SegmentName>,
    current: Option<File>,
    /// Of the first file; all others must have the same.
    lineage: Option<Lineage>,
    /// Where the last file ended.
    next: Version,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

struct File {
    path: String,
    last: Option<Version>,
    bytes: Vec<u8>,
    /// End of the part that was known to be durable; 0 if the header does not say.
    watermark: u64,
    framing: Framing,
    /// The record at `offset` is the one of this version.
    next: Version,
    offset: usize,
    /// The entry that was read last.
    found: Range<usize>,
    /// Nothing more can be read from it.
    ended: bool,
    last_was_seal: bool,
}

/// How often to look again at files that a live ledger may just be changing, and how long to wait between.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// The names in `segments/`. While a file is renamed a listing may show it under both names or none, so two
/// listings must agree.
fn list(source: &dyn Source) -> Result<Option<Vec<String>>, SourceError> {
    let listing = || {
        source.list("segments").map(|files| {
            files.map(|mut files| {
                files.sort();
                files
            })
        })
    };
    let mut files = listing()?;
    for _ in 0..TRIES {
        let again = listing()?;
        if again == files {
            break;
        }
        files = again;
    }
    Ok(files)
}

/// Whether an open file's header and records are whole: otherwise somebody may be writing to it.
fn settled(bytes: &[u8], first: Version) -> bool {
    let Ok((header, state)) = Header::parse(bytes) else { return false };
    let framing = Framing::new(header.lineage, crc32c::crc32c_append);
    let (mut version, mut rest) = (first, &bytes[PAGE..]);
    loop {
        match framing.parse(version, rest) {
            Ok(Record::Entry(entry)) => rest = &rest[RECORD_HEADER + entry.len()..],
            Ok(Record::End) => return !matches!(state, State::Open { torn_slot: true, .. }),
            Err(_) => return false,
        }
        version = version.next();
    }
}

/// An entry and where its record lies.
pub(crate) struct Found<'a> {
    pub(crate) entry: &'a [u8],
    pub(crate) file: &'a str,
    pub(crate) offset: u64,
}

fn path(name: &SegmentName) -> String {
    format!("segments/{name}")
}

impl<'a> Segments<'a> {
    /// Lists the segment files; `None` if the source cannot list or has none.
    /// Of a pruned ledger with this base, those from the base on.
    pub(crate) fn open(
        source: &'a dyn Source,
        base: Option<&Base>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let first = base.map_or(Version::ZERO, Base::size);
        let files = match list(source) {
            Ok(files) => files?,
            Err(error) => {
                problems.unread(&error);
                return None;
            }
        };
        let mut names: Vec<SegmentName> = Vec::new();
        for file in files {
            let name = file.strip_prefix("segments/").unwrap_or(&file);
            match name.parse() {
                Ok(name) => names.push(name),
                // A write that did not finish: means nothing.
                Err(_) if name.ends_with(".tmp") => {}
                Err(error) => problems.fault(Place::file(file.clone()), error.to_string()),
            }
        }
        // What an interrupted pruning left is not there any more.
        names.retain(|name| name.first >= first);
        names.sort();
        let found = !names.is_empty();
        found.then(|| Self {
            source,
            waiting: names.into(),
            current: None,
            lineage: base.map(Base::lineage),
            next: first,
            files: 0,
            bytes: 0,
        })
    }

    /// The entry `version`, looked for in the one file that can hold it; `None` if it is not there undamaged.
    pub(crate) fn entry(mut self, version: Version, problems: &mut Problems) -> Option<Vec<u8>> {
        while self.waiting.front()?.last.is_some_and(|last| last < version) {
            self.waiting.pop_front();
        }
        self.next = self.waiting.front()?.first;
        self.seek(version, problems).then(|| self.found().entry.to_vec())
    }

    /// Whether there is nothing more to read.
    pub(crate) fn exhausted(&self) -> bool {
        self.waiting.is_empty() && self.current.as_ref().is_none_or(|file| file.ended)
    }

    /// Goes to the entry `version`, which [`Segments::found`] then gives; false if no file holds it
    /// undamaged. Must be called with ascending versions.
    pub(crate) fn seek(&mut self, version: Version, problems: &mut Problems) -> bool {
        loop {
            match &mut self.current {
                Some(file) if !file.ended => {
                    if file.next > version {
                        return false;
                    }
                    // Not the one: the file overlaps the one before, or a damaged record was passed over.
                    if file.read(problems) == Some(version) {
                        return true;
                    }
                }
                _ => match self.waiting.front() {
                    Some(name) if name.first <= version => self.begin(problems),
                    _ => return false,
                },
            }
        }
    }

    /// The entry that [`Segments::seek`] went to.
    ///
    /// # Panics
    /// If it did not find one.
    pub(crate) fn found(&self) -> Found<'_> {
        let file = self.current.as_ref().expect("an entry was found in a file");
        let offset = (file.found.start - RECORD_HEADER) as u64;
        Found { entry: &file.bytes[file.found.clone()], file: &file.path, offset }
    }

    /// The version after the last that the files span.
    pub(crate) fn end(&self) -> Version {
        self.current.as_ref().map_or(self.next, |file| file.last.map_or(file.next, Version::next))
    }

    /// Reads on to the end without giving entries: lists what is wrong with the rest.
    pub(crate) fn drain(&mut self, problems: &mut Problems) {
        loop {
            match &mut self.current {
                Some(file) if !file.ended => drop(file.read(problems)),
                _ if self.waiting.is_empty() => return,
                _ => self.begin(problems),
            }
        }
    }

    /// Takes up the next file.
    fn begin(&mut self, problems: &mut Problems) {
        let name = self.waiting.pop_front().expect("the caller saw a waiting file");
        let path = path(&name);
        if let Some(file) = &self.current {
            self.next = file.last.map_or(file.next, Version::next);
        }
        if name.first != self.next {
            let expected = self.next;
            let what = if name.first > expected { "entries are missing" } else { "it overlaps" };
            let message = format!("the segment before ends before version {expected}: {what}");
            problems.fault(Place::file(path.clone()).of(name.first), message);
        }
        self.files += 1;
        self.current = Some(self.load(name, path, problems));
    }

    fn load(&mut self, name: SegmentName, path: String, problems: &mut Problems) -> File {
        let bytes = self.read(&name, &path, problems);
        self.bytes += bytes.len() as u64;
        let mut watermark = 0;
        let mut lineage = self.lineage;
        if !bytes.is_empty() {
            match Header::parse(&bytes) {
                Err(error) => {
                    problems.fault(
                        Place::file(path.clone()).at(error.offset() as u64),
                        error.to_string(),
                    );
                }
                Ok((header, state)) => {
                    check_header(&name, &path, &header, self.lineage, problems);
                    watermark = check_state(&name, &path, state, bytes.len(), problems);
                    lineage = lineage.or(Some(header.lineage));
                }
            }
        }
        // A damaged first header: its lineage is still the best guess for the checksums.
        let field = bytes.get(24..56).and_then(|field| field.try_into().ok());
        let guess = field.map(|field| Lineage(tradewind_ledger::Digest(field)));
        self.lineage = lineage;
        let lineage = lineage.or(guess).unwrap_or(Lineage(tradewind_ledger::Digest::ZERO));
        File {
            path,
            last: name.last,
            ended: bytes.is_empty(),
            bytes,
            watermark,
            framing: Framing::new(lineage, crc32c::crc32c_append),
            next: name.first,
            offset: PAGE,
            found: 0..0,
            last_was_seal: false,
        }
    }

    /// The file's bytes, empty if they cannot be had. An open file may have been sealed since the listing,
    /// and somebody may be writing to it.
    fn read(&mut self, name: &SegmentName, path: &str, problems: &mut Problems) -> Vec<u8> {
        let mut read = self.source.read(path, MAX_FILE);
        for _ in 0..TRIES {
            match &read {
                Ok(Some(bytes)) if name.last.is_none() && !settled(bytes, name.first) => {
                    std::thread::sleep(PAUSE);
                    read = self.source.read(path, MAX_FILE);
                }
                _ => break,
            }
        }
        if matches!(read, Ok(None)) && name.last.is_none() {
            let renamed = list(self.source).ok().flatten().unwrap_or_default();
            let names = renamed.iter().filter_map(|file| file.rsplit('/').next()?.parse().ok());
            let same = names.filter(|other: &SegmentName| other.first == name.first);
            if let Some(sealed) = same.max_by_key(|other| other.last) {
                read = self.source.read(&self::path(&sealed), MAX_FILE);
            }
        }
        match read {
            Ok(Some(bytes)) if !bytes.is_empty() => return bytes,
            Ok(Some(_)) => problems.fault(Place::file(path).at(0), "the file is empty"),
            Ok(None) => problems.fault(Place::file(path), "the file vanished while it was read"),
            Err(error) => problems.unread(&error),
        }
        Vec::new()
    }
}

fn check_header(
    name: &SegmentName,
    path: &str,
    header: &Header,
    lineage: Option<Lineage>,
    problems: &mut Problems,
) {
    if header.first != name.first {
        let message = format!("the header says first version {}, the name another", header.first);
        problems.fault(Place::file(path).at(16), message);
    }
    if let Some(lineage) = lineage.filter(|lineage| *lineage != header.lineage) {
        let found = header.lineage;
        let message = format!("the segment is of lineage {found}, those before are of {lineage}");
        problems.fault(Place::file(path).at(24), message);
    }
}

/// Returns the length known to be durable.
fn check_state(
    name: &SegmentName,
    path: &str,
    state: State,
    len: usize,
    problems: &mut Problems,
) -> u64 {
    match state {
        // A sealed page in an open file: its sealing was interrupted before the rename.
        State::Sealed => len as u64,
        State::Torn => {
            let message = "neither of the two watermark slots is valid";
            problems.fault(Place::file(path).at(512), message);
            len as u64
        }
        State::Open { watermark, torn_slot } => {
            if name.last.is_some() {
                let message = "a sealed segment has a watermark";
                problems.fault(Place::file(path).at(512), message);
            } else if torn_slot {
                let message = "one of the two watermark slots is damaged";
                problems.fault(Place::file(path).at(512), message);
            }
            if watermark.bytes > len as u64 || watermark.bytes < PAGE as u64 {
                let message = format!(
                    "the file has {len} bytes, but its watermark says that {} are durable",
                    watermark.bytes
                );
                problems.fault(Place::file(path).at(len as u64), message);
            }
            watermark.bytes
        }
    }
}

impl File {
    /// Reads the record at `offset`, if there is one that is whole; otherwise lists why, and ends the file
    /// unless the records after it can be found.
    fn read(&mut self, problems: &mut Problems) -> Option<Version> {
        let (version, offset) = (self.next, self.offset);
        let place = || Place::file(self.path.clone()).at(offset as u64).of(version);
        let rest = self.bytes.get(offset..).unwrap_or_default();
        let complete = self.last.is_some_and(|last| version > last) || self.last_was_seal;
        match self.framing.parse(version, rest) {
            Ok(Record::Entry(entry)) if !complete => {
                let len = entry.len();
                // The kind byte first: whether it is the right SEAL is for the replay to say.
                self.last_was_seal = entry.get(1) == Some(&4)
                    && Entry::decode(entry).is_ok_and(|entry| matches!(entry.body, Body::Seal(_)));
                self.found = offset + RECORD_HEADER..offset + RECORD_HEADER + len;
                (self.offset, self.next) = (self.found.end, version.next());
                Some(version)
            }
            Ok(Record::Entry(_)) => {
                problems.fault(place(), "a record after the SEAL that ends the segment");
                self.ended = true;
                None
            }
            Ok(Record::End) => {
                self.end(complete, problems);
                None
            }
            Err(_) if complete => {
                self.end(complete, problems);
                None
            }
            Err(error) => {
                let place = place();
                self.damaged(error, place, problems);
                None
            }
        }
    }

    fn end(&mut self, complete: bool, problems: &mut Problems) {
        self.ended = true;
        let at = |offset: usize| Place::file(self.path.clone()).at(offset as u64);
        if let Some(last) = self.last {
            if !complete || self.next != last.next() {
                let message = format!("the segment ends before its last version {last}");
                problems.fault(at(self.offset).of(self.next), message);
            } else if self.offset < self.bytes.len() {
                let count = self.bytes.len() - self.offset;
                problems.fault(at(self.offset), format!("{count} bytes after the last record"));
            } else if !self.last_was_seal {
                problems.fault(at(self.offset), "the segment does not end with a SEAL");
            }
            return;
        }
        let used = self.bytes[self.offset..].iter().rposition(|byte| *byte != 0);
        if let Some(used) = used {
            let first = self.bytes[self.offset..].iter().position(|byte| *byte != 0);
            let first = self.offset + first.unwrap_or(used);
            problems.fault(at(first), "unused space is not all zero");
        }
        self.check_watermark(problems);
    }

    fn check_watermark(&self, problems: &mut Problems) {
        if (self.offset as u64) < self.watermark && self.watermark <= self.bytes.len() as u64 {
            let message = format!(
                "the records end here, but the file was durable up to byte {}",
                self.watermark
            );
            let place = Place::file(self.path.clone()).at(self.offset as u64);
            problems.fault(place.of(self.next), message);
        }
    }

    /// A damaged record: goes on with the one after it if its length still leads there.
    fn damaged(&mut self, error: RecordError, place: Place, problems: &mut Problems) {
        let torn = self.last.is_none() && self.offset as u64 >= self.watermark;
        let hint = if torn {
            "; nothing here was known to be durable: a torn tail, which the next start removes"
        } else {
            ""
        };
        problems.fault(place, format!("{error}{hint}"));
        if let (RecordError::Checksum { .. }, Some(len)) =
            (error, self.bytes[self.offset..].first_chunk::<4>())
        {
            let after = self.offset + RECORD_HEADER + u32::from_le_bytes(*len) as usize;
            let rest = self.bytes.get(after..).unwrap_or_default();
            let next = self.next.next();
            let follows = matches!(self.framing.parse(next, rest), Ok(Record::Entry(_)));
            let was_last = self.last == Some(self.next) && rest.is_empty();
            if follows || was_last {
                (self.offset, self.next) = (after, next);
                self.ended = was_last;
                return;
            }
        }
        self.ended = true;
    }
}
