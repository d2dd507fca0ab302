//! `tradewind import`: many writes in flight, each exactly once.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tradewind_client::{Client, Command, Condition, ItemValue, Reply, wire::Read};
use tradewind_ledger::Version;
use tradewind_store::shard_of;

use crate::{
    connect::{ConnectArgs, block_on},
    exit::Exit,
    output::{Output, count},
    progress::Progress,
    records::{Record, RecordFormat, Source},
    write::DurabilityArgs,
};

/// Values read but not yet acknowledged take at most so many KiB; more than the largest value.
const BUDGET_KIB: usize = 192 << 10;

/// Import records: NDJSON, CSV, or a directory of files
#[derive(Args, Debug)]
#[command(after_help = "\
NDJSON   {\"key\": \"...\", \"value\": \"...\"} a line; key_base64, value_base64 if not UTF-8.
         With --key-column the line is the value, and the field of that name the key.
CSV      the first line names the columns; the value is a JSON object of them.
DIR      every file is a value, its path below the directory the key.

Writes of one key keep their order. Interrupted, or stopped by a bad record: run it again with \
--resume, which leaves records alone that are there already.

Examples:
  tradewind import airports airports.csv --key-column icao
  tradewind import flights flights.ndjson --inflight 1000
  tradewind export flights --endpoints nyc-1 | tradewind import copies - --format ndjson")]
pub(crate) struct ImportArgs {
    /// The pool
    pool: String,
    /// A file or directory; - is stdin
    path: PathBuf,
    /// How the records lie there [default: by the name]
    #[arg(long, value_enum)]
    format: Option<RecordFormat>,
    /// The CSV column, or NDJSON field, that is the key [default: for CSV the first]
    #[arg(long, value_name = "NAME")]
    key_column: Option<String>,
    /// Writes under way at any time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    inflight: u32,
    /// Read each key first, and write only what is not there yet
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    durability: DurabilityArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What became of the records so far.
#[derive(Debug, Default)]
struct Tally {
    written: u64,
    skipped: u64,
    bytes: u64,
    /// The highest version written, by shard.
    versions: BTreeMap<u32, Version>,
}

/// A record that is done.
struct Done {
    key: Vec<u8>,
    bytes: u64,
    /// `None` if it was there already.
    version: Option<Version>,
}

impl ImportArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let source = Source::new(&self.path, self.format, self.key_column.clone())?;
        let start = Instant::now();
        let tally = block_on(async {
            let client = self.connect.client(&self.pool).await?;
            let progress = Progress::new("importing", source.length(), output);
            let mut tally = Tally::default();
            let result = self.import(&client, source, &progress, &mut tally).await;
            drop(progress);
            result.with_context(|| {
                let done = count((tally.written + tally.skipped) as usize, "record");
                format!("stopped after {done}; run it again with --resume to go on")
            })?;
            Ok(tally)
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let Tally { written, skipped, bytes, versions } = tally;
        let rate = (written + skipped) as f64 / seconds;
        let value = json!({
            "pool": self.pool, "written": written, "skipped": skipped, "bytes": bytes,
            "seconds": seconds, "records_per_second": rate, "versions": versions,
        });
        output.print(&value, |_| {
            let there = if skipped > 0 { format!(", {skipped} were there") } else { String::new() };
            let written = count(written as usize, "record");
            format!("imported {written} into {}{there}: {seconds:.1} s, {rate:.0}/s", self.pool)
        })?;
        Ok(Exit::Done)
    }

    async fn import(
        &self,
        client: &Client,
        source: Source,
        progress: &Progress,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let shards = client.welcome().pools.iter().find(|pool| pool.name == self.pool);
        let shards = shards.map_or(1, |pool| pool.shards.len() as u32);
        let mut records = read_ahead(source);
        let mut running: JoinSet<anyhow::Result<Done>> = JoinSet::new();
        let mut busy: HashSet<Vec<u8>> = HashSet::new();
        let mut failed = None;
        while let Some(next) = records.recv().await {
            let (record, permit) = match next {
                Ok(next) => next,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            // Two writes of one key in flight could change places.
            while failed.is_none()
                && (running.len() >= self.inflight as usize || busy.contains(&record.key))
            {
                let done = running.join_next().await.expect("a busy key is running");
                if let Err(error) = tally.add(done?, shards, &mut busy) {
                    failed.get_or_insert(error);
                }
            }
            if failed.is_some() {
                break;
            }
            progress.set(record.position, tally.written + tally.skipped);
            busy.insert(record.key.clone());
            running.spawn(self.write(client.clone(), record, permit));
        }
        // What is on its way is waited for, so that the count told is right.
        while let Some(done) = running.join_next().await {
            if let Err(error) = tally.add(done?, shards, &mut busy) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn write(
        &self,
        client: Client,
        record: Record,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = anyhow::Result<Done>> + Send + use<> {
        let (pool, resume) = (self.pool.clone(), self.resume);
        let durability = self.durability.durability();
        async move {
            let Record { key, value, place, .. } = record;
            let bytes = (key.len() + value.len()) as u64;
            if resume && has(&client, &pool, &key, &value).await.context(place.clone())? {
                return Ok(Done { key, bytes, version: None });
            }
            let command = Command::Put { key, value, condition: Condition::Always };
            let reply = client.execute(&pool, &command, durability).await.context(place.clone())?;
            drop(permit);
            let (Command::Put { key, .. }, Reply::Written { version, .. }) = (command, reply)
            else {
                bail!("{place}: an unexpected answer");
            };
            Ok(Done { key, bytes, version: Some(version) })
        }
    }
}

impl Tally {
    fn add(
        &mut self,
        done: anyhow::Result<Done>,
        shards: u32,
        busy: &mut HashSet<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let Done { key, bytes, version } = done?;
        busy.remove(&key);
        self.bytes += bytes;
        match version {
            Some(version) => {
                self.written += 1;
                let highest = self.versions.entry(shard_of(&key, shards)).or_insert(version);
                *highest = version.max(*highest);
            }
            None => self.skipped += 1,
        }
        Ok(())
    }
}

async fn has(client: &Client, pool: &str, key: &[u8], value: &[u8]) -> anyhow::Result<bool> {
    let (item, _) = client.get(pool, key, Read::default()).await?;
    let item = item.map(|item| item.value);
    Ok(matches!(item, Some(ItemValue::Inline(bytes)) if bytes[..] == *value))
}

type Ahead = anyhow::Result<(Record, OwnedSemaphorePermit)>;

/// Reads in a thread of its own, ahead of the writes but within [`BUDGET_KIB`].
fn read_ahead(source: Source) -> mpsc::Receiver<Ahead> {
    let (sender, receiver) = mpsc::channel(1_024);
    let (budget, runtime) =
        (Arc::new(Semaphore::new(BUDGET_KIB)), tokio::runtime::Handle::current());
    std::thread::spawn(move || {
        let result = source.read(&mut |record| {
            let kib = 1 + (record.key.len() + record.value.len()) / 1_024;
            let kib = u32::try_from(kib.min(BUDGET_KIB)).expect("within the budget");
            let permit = runtime.block_on(Arc::clone(&budget).acquire_many_owned(kib));
            let permit = permit.expect("never closed");
            // Nobody listens any more after a failure, which has been told.
            sender.blocking_send(Ok((record, permit))).context("stopped")
        });
        if let Err(error) = result {
            _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}
