//! `tradewind repair`: damaged files of a stopped process made again from another replica.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use tradewind_audit::Source as _;
use tradewind_ledger::{
    Digest, LedgerId, SignedNote, Version,
    entry::MAX_VALUE,
    note::MAX_NOTE,
    tile::{MAX_BUNDLE_BYTES, TileId, TileKind, decode_bundle},
};
use tradewind_ledger_disk::{DirPeer, Peer, PeerError, Repair, repair};

use crate::{
    exit::{Exit, words},
    http_source::HttpSource,
    output::Output,
};

/// Make damaged files of a stopped process again from another replica
#[derive(Args, Debug)]
#[command(after_help = "\
For a process that refuses to start because a file in its data directory is damaged or missing. Every segment and every
detached value is read. What is damaged is taken from the other replica, which need not be trusted: it must fit the
entries around it, and a majority of the ledger's nodes must have signed for it. Files are replaced as a whole, and
only then. Hash tiles are made again by the next start.

Not repaired is a log whose end is lost: what it acknowledged is not known. Replace that node.

Exit codes: 0 whole, or made whole; 1 a value is lost at both; 2 not repaired, and no segment was changed.

Examples:
  tradewind repair data/ams-2 --from http://127.0.0.1:7401
  tradewind repair data/ams-2 --from data/ams-1
  tradewind repair data/ams-2 --from http://127.0.0.1:7401 --ledger flights.0 -o json")]
pub(crate) struct RepairArgs {
    /// The data directory of the process; it must not be running
    data: PathBuf,
    /// Another replica: its data directory, or its process' HTTP address
    #[arg(long, value_name = "SOURCE")]
    from: String,
    /// Only this ledger, POOL.SHARD
    #[arg(long, value_name = "LEDGER")]
    ledger: Option<LedgerId>,
}

impl RepairArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let directories = self.data.join("ledgers");
        let ledgers = match &self.ledger {
            Some(ledger) => vec![ledger.clone()],
            None => ledgers(&directories)?,
        };
        ensure!(!ledgers.is_empty(), "{}: no ledgers", directories.display());
        // One ledger that cannot be repaired is no reason to leave the others damaged.
        let results: Vec<_> = ledgers
            .into_iter()
            .map(|ledger| {
                let repaired = self
                    .peer(&ledger)
                    .and_then(|peer| Ok(repair(&directories.join(ledger.to_string()), &*peer)?));
                (ledger, repaired)
            })
            .collect();
        let lost = |result: &anyhow::Result<Repair>| {
            result.as_ref().is_ok_and(|repair| !repair.lost_values.is_empty())
        };
        let exit = match () {
            () if results.iter().any(|(_, result)| result.is_err()) => Exit::Failed,
            () if results.iter().any(|(_, result)| lost(result)) => Exit::No,
            () => Exit::Done,
        };
        let value = json!({
            "exit_code": exit as u8,
            "ledgers": results.iter().map(|(id, result)| object(id, result)).collect::<Vec<_>>(),
        });
        output.print(&value, |_| {
            results.iter().map(|(id, result)| sentences(id, result)).collect()
        })?;
        Ok(exit)
    }

    fn peer(&self, ledger: &LedgerId) -> anyhow::Result<Box<dyn Peer>> {
        if self.from.contains("://") {
            let url = format!("{}/log/{ledger}", self.from.trim_end_matches('/'));
            return Ok(Box::new(HttpPeer::new(&url)?));
        }
        let dir = Path::new(&self.from).join("ledgers").join(ledger.to_string());
        ensure!(dir.is_dir(), "{}: no such directory", dir.display());
        let own = self.data.join("ledgers").join(ledger.to_string());
        let same = own.canonicalize().ok().is_some_and(|own| dir.canonicalize().ok() == Some(own));
        ensure!(!same, "{}: is the ledger to be repaired itself", dir.display());
        Ok(Box::new(DirPeer::new(&dir)))
    }
}

/// The ledgers in a data directory.
fn ledgers(directories: &Path) -> anyhow::Result<Vec<LedgerId>> {
    let listing = std::fs::read_dir(directories)
        .with_context(|| format!("listing {}", directories.display()))?;
    let mut ledgers = Vec::new();
    for entry in listing {
        let name = entry?.file_name();
        ledgers.extend(name.to_str().and_then(|name| name.parse::<LedgerId>().ok()));
    }
    ledgers.sort_unstable_by_key(ToString::to_string);
    Ok(ledgers)
}

fn object(ledger: &LedgerId, result: &anyhow::Result<Repair>) -> Value {
    match result {
        Err(error) => json!({ "ledger": ledger.to_string(), "error": words(error) }),
        Ok(repair) => json!({
            "ledger": ledger.to_string(),
            "entries": repair.size.0,
            "proven": repair.proven.0,
            "segments": repair.segments.iter().map(|(file, found)| {
                json!({ "file": file, "found": found })
            }).collect::<Vec<_>>(),
            "checkpoint": repair.checkpoint,
            "values": repair.values.iter().map(Digest::to_string).collect::<Vec<_>>(),
            "lost_values": repair.lost_values.iter().map(Digest::to_string).collect::<Vec<_>>(),
        }),
    }
}

fn sentences(ledger: &LedgerId, result: &anyhow::Result<Repair>) -> String {
    let repair = match result {
        Err(error) => return format!("{ledger}: not repaired: {}\n", words(error)),
        Ok(repair) => repair,
    };
    let mut text = String::new();
    let mut line = |what: String| {
        writeln!(text, "{ledger}: {what}").expect("a string takes what it is given");
    };
    for (file, found) in &repair.segments {
        line(format!("made again {}: {found}", file.display()));
    }
    if repair.checkpoint {
        line("made again: checkpoint".into());
    }
    repair.values.iter().for_each(|digest| line(format!("made again: value {digest}")));
    repair.lost_values.iter().for_each(|digest| line(format!("lost at both: value {digest}")));
    line(format!("whole through {}, signed by a majority through {}", repair.size, repair.proven));
    text
}

/// The public face of another replica.
pub(crate) struct HttpPeer {
    source: HttpSource,
    checkpoint: Option<SignedNote>,
    size: Version,
}

impl HttpPeer {
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let source = HttpSource::new(url)?;
        let checkpoint = source.read("checkpoint", MAX_NOTE as u64)?;
        let checkpoint = checkpoint.map(|bytes| SignedNote::parse(&bytes)).transpose()?;
        let size = match &checkpoint {
            Some(note) => note.checkpoint()?.size,
            None => Version::ZERO,
        };
        Ok(Self { source, checkpoint, size })
    }
}

impl Peer for HttpPeer {
    fn name(&self) -> String {
        self.source.name()
    }

    fn checkpoint(&self) -> Result<Option<SignedNote>, PeerError> {
        Ok(self.checkpoint.clone())
    }

    fn entries(&self, first: Version) -> Result<Vec<Vec<u8>>, PeerError> {
        if first >= self.size {
            return Ok(Vec::new());
        }
        let tile = TileId::of_entry(TileKind::Entries, first, self.size);
        let Some(bytes) = self.source.read(&tile.to_string(), MAX_BUNDLE_BYTES as u64)? else {
            return Ok(Vec::new());
        };
        let entries = decode_bundle(&bytes, tile.width)?;
        let skipped = first.0 - tile.first();
        Ok(entries.into_iter().skip(skipped as usize).map(<[u8]>::to_vec).collect())
    }

    fn value(&self, digest: &Digest) -> Result<Option<Vec<u8>>, PeerError> {
        let name = digest.to_string();
        Ok(self.source.read(&format!("values/{}/{name}", &name[..2]), MAX_VALUE)?)
    }
}
