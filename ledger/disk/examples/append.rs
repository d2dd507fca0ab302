//! How fast entries become durable: appends 300-byte entries in batches, one sync each, and prints
//! entries and syncs a second and the processor time an entry costs.
//!
//! `cargo run --release -p tradewind-ledger-disk --example append -- [DIR] [ENTRIES] [BATCH] [VALUE BYTES]`

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tradewind_ledger::entry::{Body, Entry, Genesis, Member, Update, Value, Write};
use tradewind_ledger::ids::{Hlc, KeyVersion, LedgerId, RequestId, Version};
use tradewind_ledger::note::{Checkpoint, Ed25519Signer};
use tradewind_ledger::replay::Replay;
use tradewind_ledger::segment::SealLimits;
use tradewind_ledger_disk::{Options, open};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let above = arguments.first().map_or(Path::new("."), Path::new);
    let (entries, value_len) = (number(1, 200_000)?, number(3, 210)?);
    let batches = match number(2, 0)? {
        0 => vec![1, 16, 64, 128, 256, 1024],
        batch => vec![batch],
    };
    println!(
        "| batch | entries/s | syncs/s | append+sync us CPU/entry | publish us CPU/entry | reopen us/entry |"
    );
    println!("|---|---|---|---|---|---|");
    for batch in batches {
        // Small batches cost a sync each; as many syncs are enough.
        measure(above, entries.min(batch * 5_000), batch, value_len)?;
    }
    Ok(())
}

/// Encoded entries, and the state after them.
type History = (Vec<Vec<u8>>, Replay);

/// Valid entries with SEALs where they are due.
fn history(entries: usize, value_len: usize) -> Result<History, Box<dyn Error>> {
    let genesis = Genesis {
        deployment: "bench".into(),
        site: "here".into(),
        ledger: LedgerId::new("bench", 0)?,
        members: vec![Member { name: "node".into(), public_key: [7; 32] }],
    };
    let mut replay = Replay::new();
    let mut bytes = vec![genesis.into_entry().to_bytes()?];
    replay.push(&bytes[0])?;
    while bytes.len() < entries {
        let hlc = Hlc(replay.last_hlc().0 + 1);
        let entry = if replay.segment().due(&SealLimits::default(), hlc) {
            replay.segment().make_seal(hlc, replay.view())
        } else {
            let update = Update {
                key: format!("key-{:012}", bytes.len()).into(),
                key_version: KeyVersion(1),
                prev_version: None,
                value: Some(Value::Inline(vec![bytes.len() as u8; value_len])),
            };
            let body = Body::Put(Write { request: RequestId::default(), update });
            Entry { hlc, view: replay.view(), body }
        };
        bytes.push(entry.to_bytes()?);
        replay.observe(&bytes[bytes.len() - 1], &entry)?;
    }
    Ok((bytes, replay))
}

fn measure(
    above: &Path,
    entries: usize,
    batch: usize,
    value_len: usize,
) -> Result<(), Box<dyn Error>> {
    let (entries, replay) = history(entries, value_len)?;
    let dir = above.join(format!("append-{}-{batch}", std::process::id()));
    let mut opened = open(&dir, &Options::default(), |_, _| Ok(()))?;

    let (started, used) = (Instant::now(), cpu());
    for batch in entries.chunks(batch) {
        opened.writer.append(batch)?;
        opened.writer.sync()?;
    }
    let (took, append) = (started.elapsed(), cpu() - used);

    let origin = replay.genesis().expect("it has one").origin();
    let checkpoint = Checkpoint { origin, size: replay.size(), root: replay.root() };
    let signature = checkpoint.sign(&Ed25519Signer::from_seed(&[7; 32]));
    let used = cpu();
    opened.publisher.publish(&checkpoint.with_signatures(vec![signature])?)?;
    let publish = cpu() - used;
    drop(opened);

    let reopening = Instant::now();
    let reopened = open(&dir, &Options::default(), |_, _| Ok(()))?;
    assert_eq!(reopened.replay.size(), Version(entries.len() as u64));
    let reopen = reopening.elapsed();
    std::fs::remove_dir_all(&dir)?;

    let each = |time: Duration| time.as_secs_f64() * 1e6 / entries.len() as f64;
    println!(
        "| {batch} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
        entries.len() as f64 / took.as_secs_f64(),
        entries.len().div_ceil(batch) as f64 / took.as_secs_f64(),
        each(append),
        each(publish),
        each(reopen),
    );
    Ok(())
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
