//! `tradewind export`: all keys of a pool, each shard as it was at one moment.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;
use tradewind_client::{
    Client, Range,
    wire::{At, Listed, Read},
};
use tradewind_ledger::Version;

use crate::{
    connect::{ConnectArgs, block_on},
    exit::Exit,
    get::inline,
    output::{Output, count},
    progress::Progress,
    read::FreshnessArgs,
    records::{RecordFormat, Sink, Target},
    time::Moment,
};

/// Keys asked for at a time.
const PAGE: u32 = 1_000;

/// Export all keys of a pool: as NDJSON, CSV, or a directory of files
#[derive(Args, Debug)]
#[command(after_help = "\
Keys come in ascending order. Each shard is exported as it is at one version: the latest one when \
the export begins, or that of --version or --at; which ones, is told at the end and can be given to \
--version again.

What is exported can be imported again, byte for byte: NDJSON takes any pool, CSV one whose values \
are JSON objects of the same fields, one of which is the key, a directory one whose keys are paths.

Examples:
  tradewind export airports > airports.ndjson
  tradewind export airports --out airports.csv --endpoints nyc-1 --only     # from a mirror
  tradewind export flights --at 2026-11-22T14:00:00Z --out flights.ndjson
  tradewind export flights --version 0=1200,1=1177 --format dir --out flights/")]
pub(crate) struct ExportArgs {
    /// The pool
    pool: String,
    /// Write there [default: stdout]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// How to write [default: by the name; NDJSON to stdout]
    #[arg(long, value_enum)]
    format: Option<RecordFormat>,
    /// The CSV column that is the key [default: the first that holds it]
    #[arg(long, value_name = "NAME")]
    key_column: Option<String>,
    /// NDJSON: lines are the values, which must be JSON; for what was imported with --key-column
    #[arg(long)]
    values_only: bool,
    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// The state right after this version; for several shards as 0=1200,1=1177
    #[arg(long, value_name = "VERSION", conflicts_with = "at")]
    version: Option<String>,
    /// The state at this time: 2026-11-22T14:03:07.25Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    #[command(flatten)]
    freshness: FreshnessArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl ExportArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let target = Target {
            path: self.out.clone(),
            format: self.format,
            key_column: self.key_column.clone(),
            values_only: self.values_only,
        };
        let start = Instant::now();
        let (records, bytes, versions) = block_on(async {
            let client = self.connect.client(&self.pool).await?;
            let shards = client.welcome().pools.iter().find(|pool| pool.name == self.pool);
            let shards = shards.map_or(1, |pool| pool.shards.len());
            let cursors = self.moments(shards)?.into_iter().enumerate();
            let cursors = cursors.map(|(shard, at)| Cursor::new(shard as u32, at)).collect();
            let progress = Progress::new("exporting", None, output);
            self.export(&client, cursors, target.open()?, &progress).await
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let versions = versions.iter().enumerate();
        let versions: Vec<String> = versions.map(|(shard, v)| format!("{shard}={v}")).collect();
        let version = versions.join(",");
        let value = json!({
            "pool": self.pool, "records": records, "bytes": bytes, "version": version,
            "seconds": seconds,
        });
        let text = format!(
            "exported {} of {}, {bytes} bytes, at --version {version}",
            count(records as usize, "record"),
            self.pool
        );
        match &self.out {
            Some(_) => output.print(&value, |_| text)?,
            // Stdout has the records.
            None => output.note(&text),
        }
        Ok(Exit::Done)
    }

    /// The moment of each shard.
    fn moments(&self, shards: usize) -> anyhow::Result<Vec<At>> {
        match (&self.version, self.at) {
            (Some(text), _) => {
                let versions = versions(text, shards)?;
                Ok(versions.into_iter().map(At::Version).collect())
            }
            (None, Some(moment)) => Ok(vec![At::Time(moment.hlc()); shards]),
            (None, None) => Ok(vec![At::Latest; shards]),
        }
    }

    /// Merges the shards; returns records, bytes, and the last version of each shard.
    async fn export(
        &self,
        client: &Client,
        mut cursors: Vec<Cursor>,
        mut sink: Box<dyn Sink>,
        progress: &Progress,
    ) -> anyhow::Result<(u64, u64, Vec<Version>)> {
        let (mut records, mut bytes) = (0, 0);
        // The first key that each shard has left.
        let mut heads = BinaryHeap::new();
        for (index, cursor) in cursors.iter_mut().enumerate() {
            cursor.fill(client, self).await?;
            heads.extend(cursor.head().map(|key| Reverse((key, index))));
        }
        while let Some(Reverse((_, index))) = heads.pop() {
            let cursor = &mut cursors[index];
            let Listed { key, item } = cursor.buffer.pop_front().expect("its head was in the heap");
            let value = inline(&item)?;
            sink.write(&key, value)?;
            records += 1;
            bytes += (key.len() + value.len()) as u64;
            progress.set(bytes, records);
            cursor.fill(client, self).await?;
            heads.extend(cursor.head().map(|key| Reverse((key, index))));
        }
        sink.finish()?;
        Ok((records, bytes, cursors.iter().map(|cursor| cursor.version).collect()))
    }
}

/// A way through the keys of one shard.
struct Cursor {
    shard: u32,
    at: At,
    /// Whether `at` is the version that a page has told.
    pinned: bool,
    /// The last version that is exported, once the first page has told.
    version: Version,
    buffer: VecDeque<Listed>,
    after: Option<Vec<u8>>,
    done: bool,
}

impl Cursor {
    fn new(shard: u32, at: At) -> Self {
        let (version, buffer) = (Version::ZERO, VecDeque::new());
        Self { shard, at, pinned: false, version, buffer, after: None, done: false }
    }

    fn head(&self) -> Option<Vec<u8>> {
        self.buffer.front().map(|listed| listed.key.clone())
    }

    /// Fetches the next page if there is nothing left; pages may be empty and still go on.
    async fn fill(&mut self, client: &Client, args: &ExportArgs) -> anyhow::Result<()> {
        while self.buffer.is_empty() && !self.done {
            let range = Range {
                prefix: args.prefix.as_bytes(),
                after: self.after.as_deref(),
                limit: PAGE,
                values: true,
            };
            // What is pinned is committed: only the first page has to be fresh.
            let read = match self.pinned {
                true => Read { at: self.at, wait_ms: args.freshness.wait_ms(), ..Read::default() },
                false => args.freshness.read(self.at, client),
            };
            let page = client.list_shard(&args.pool, self.shard, range, read).await;
            let (items, next, as_of) =
                page.with_context(|| format!("shard {} of {}", self.shard, args.pool))?;
            self.version = Version(as_of.at.0.saturating_sub(1));
            // Later pages are of the same state, whatever is written meanwhile.
            self.at = At::Version(self.version);
            self.pinned = true;
            self.buffer.extend(items);
            self.done = next.is_none();
            self.after = next;
        }
        Ok(())
    }
}

/// `1200` for one shard, `0=1200,1=1177` for several.
fn versions(text: &str, shards: usize) -> anyhow::Result<Vec<Version>> {
    const FORM: &str = "as `export` prints it: 0=1200,1=1177, one for each shard";
    if let (1, Ok(version)) = (shards, text.parse()) {
        return Ok(vec![Version(version)]);
    }
    let mut versions = vec![None; shards];
    for part in text.split(',') {
        let pair = part.split_once('=').and_then(|(shard, version)| {
            Some((shard.parse::<usize>().ok()?, version.parse().ok()?))
        });
        let Some((shard, version)) = pair else { bail!("--version {part:?}: give it {FORM}") };
        ensure!(shard < shards, "--version: there is no shard {shard}, the pool has {shards}");
        versions[shard] = Some(Version(version));
    }
    let all: Option<Vec<Version>> = versions.into_iter().collect();
    all.with_context(|| {
        format!("--version {text:?} does not name all {shards} shards: give it {FORM}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_given_for_every_shard() {
        assert_eq!(versions("7", 1).unwrap(), [Version(7)]);
        assert_eq!(versions("1=8,0=7", 2).unwrap(), [Version(7), Version(8)]);
        for bad in ["7", "0=7", "0=7,2=1", "0=7,1", "", "0=7,1=x"] {
            assert!(versions(bad, 2).is_err(), "{bad:?}");
        }
    }
}
