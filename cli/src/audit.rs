//! `tradewind audit verify|prove|check|consistency`.
//!
//! The verifier is the crate `tradewind-audit`; here are its flags, its sources and its words.

mod place;
mod report;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use tradewind_audit::{Evidence, Options, Verdict, check, consistency, prove, verify};
use tradewind_ledger::{
    Body, Digest, Entry, Hlc, LedgerId, Lineage, SignedNote, VerifierKey, Version,
};

use crate::{
    data,
    exit::Exit,
    keys::verifier_keys,
    output::{Output, count},
    time,
    topology::load,
};

/// Check the history of ledgers, trusting nobody but a public key
#[derive(Subcommand, Debug)]
pub(crate) enum AuditCommand {
    Verify(VerifyArgs),
    Prove(ProveArgs),
    Check(CheckArgs),
    Consistency(ConsistencyArgs),
}

/// Whose signatures count.
#[derive(Args, Debug)]
#[command(next_help_heading = "Trust")]
struct TrustArgs {
    /// Trust the nodes' keys of this topology file
    #[arg(long, env = "TRADEWIND_TOPOLOGY", hide_env_values = true, value_name = "FILE")]
    topology: Option<PathBuf>,
    /// Trust the verifier keys of this file, one a line, as `tradewind keys show --vkey` prints them
    #[arg(long, value_name = "FILE")]
    vkeys: Vec<PathBuf>,
    /// How many signatures a checkpoint needs [default: a majority]
    #[arg(long, value_name = "COUNT")]
    threshold: Option<usize>,
}

/// Re-derive everything that ledgers claim: every hash, link, signature and value
#[derive(Args, Debug)]
#[command(after_help = "\
Lists all faults, each with file and offset, and ends with the proven range of each ledger. \
Without --topology, --vkeys or --lineage the keys are those of a ledger's own genesis: then the \
history is shown to hang together, but not whose it is.

Exit codes: 0 holds; 1 does not hold; 2 could not check; 3 two signed histories, evidence written; \
4 valid, but too few signers or too old.

Examples:
  tradewind audit verify data/nyc-1 --topology atlas.toml        # all ledgers of a process
  tradewind audit verify data/nyc-1/ledgers/flights.0 --vkeys flights.0.vkeys
  tradewind audit verify http://127.0.0.1:7401 --topology atlas.toml --max-age 120
  tradewind audit verify http://127.0.0.1:7401/log/flights.0 -o json")]
pub(crate) struct VerifyArgs {
    /// A data directory, a ledger's directory, a process' HTTP address, or the URL of a ledger
    source: String,
    #[command(flatten)]
    trust: TrustArgs,
    /// Trust the ledger of this identity: the hash of its genesis, as -o json tells it
    #[arg(long, value_name = "HASH", help_heading = "Trust")]
    lineage: Vec<Digest>,
    /// A checkpoint seen before or elsewhere, which must agree
    #[arg(long, value_name = "FILE")]
    known: Vec<PathBuf>,
    /// The last proven entry may be so many seconds old
    #[arg(long, value_name = "SECONDS")]
    max_age: Option<u64>,
    /// Where to write evidence of two histories
    #[arg(long, value_name = "FILE", default_value = "evidence.json")]
    evidence: PathBuf,
}

/// Make a proof that an entry is in a ledger, to carry away (C2SP tlog-proof)
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tradewind audit prove data/nyc-1 --ledger flights.0 17 --out 17.tlog-proof
  tradewind audit prove http://127.0.0.1:7401/log/flights.0 17 > 17.tlog-proof")]
pub(crate) struct ProveArgs {
    /// A data directory, a ledger's directory, a process' HTTP address, or the URL of a ledger
    source: String,
    /// The version: position of the entry in the ledger
    version: u64,
    /// Which ledger, if the source has several: POOL.SHARD
    #[arg(long)]
    ledger: Option<LedgerId>,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Check a proof, offline: nothing is needed but the keys
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tradewind audit check 17.tlog-proof --topology atlas.toml
  tradewind audit check 17.tlog-proof --vkeys flights.0.vkeys --entry entry.bin")]
pub(crate) struct CheckArgs {
    /// The proof
    proof: PathBuf,
    /// The entry it should be about [default: the one that the proof carries]
    #[arg(long, value_name = "FILE")]
    entry: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Check that one checkpoint of a ledger extends another
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  curl -s http://127.0.0.1:7401/log/flights.0/checkpoint > monday.note
  tradewind audit consistency http://127.0.0.1:7401/log/flights.0 monday.note --topology atlas.toml")]
pub(crate) struct ConsistencyArgs {
    /// Where the tiles are: a ledger's directory or URL, or a data directory or HTTP address with --ledger
    source: String,
    /// One checkpoint
    old: PathBuf,
    /// Another one [default: the source's own]
    new: Option<PathBuf>,
    /// Which ledger, if the source has several: POOL.SHARD
    #[arg(long)]
    ledger: Option<LedgerId>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Where to write evidence of two histories
    #[arg(long, value_name = "FILE", default_value = "evidence.json")]
    evidence: PathBuf,
}

impl AuditCommand {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Exit> {
        match self {
            Self::Verify(args) => args.run(output),
            Self::Prove(args) => args.run(output),
            Self::Check(args) => args.run(output),
            Self::Consistency(args) => args.run(output),
        }
    }
}

impl TrustArgs {
    fn keys(&self) -> anyhow::Result<Vec<VerifierKey>> {
        let mut keys = Vec::new();
        for file in &self.vkeys {
            for (number, line) in text(file)?.lines().enumerate() {
                let line = line.trim();
                if !line.is_empty() && !line.starts_with('#') {
                    let place = || format!("{}:{}", file.display(), number + 1);
                    keys.push(line.parse().with_context(place)?);
                }
            }
        }
        if let Some(topology) = &self.topology {
            let topology = load(topology)?;
            for pool in &topology.pools {
                for shard in 0..pool.shards {
                    let ledger = LedgerId::new(pool.name.as_str(), shard)?;
                    let members = verifier_keys(&topology, &ledger)?.into_iter();
                    keys.extend(
                        members.map(|(_, vkey)| vkey.parse()).collect::<Result<Vec<_>, _>>()?,
                    );
                }
            }
        }
        Ok(keys)
    }

    fn options(&self) -> anyhow::Result<Options> {
        Ok(Options { keys: self.keys()?, threshold: self.threshold, ..Options::default() })
    }
}

/// A file that a person gives by name: small.
fn text(file: &PathBuf) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| file.display().to_string())
}

fn note(file: &PathBuf) -> anyhow::Result<SignedNote> {
    let text = text(file)?;
    SignedNote::parse(text.as_bytes())
        .with_context(|| format!("{} is no signed checkpoint", file.display()))
}

fn exit(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Holds => Exit::Done,
        Verdict::DoesNotHold => Exit::No,
        Verdict::CouldNotCheck => Exit::Failed,
        Verdict::Equivocation => Exit::Equivocation,
        Verdict::TooFewOrTooOld => Exit::Insufficient,
    }
}

/// `report` as JSON, its verdict beside it.
fn with_verdict(report: &impl Serialize, verdict: Verdict) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(report)?;
    value["verdict"] = json!(verdict);
    Ok(value)
}

impl VerifyArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let options = Options {
            lineages: self.lineage.iter().copied().map(Lineage).collect(),
            known: self.known.iter().map(note).collect::<anyhow::Result<_>>()?,
            now: Some(now()?),
            max_age: self.max_age.map(Duration::from_secs),
            ..self.trust.options()?
        };
        let source = place::whole(&self.source)?;
        let report = verify(&place::Watched::new(&*source, output), &options);
        let evidence: Vec<&Evidence> =
            report.ledgers.iter().flat_map(|ledger| &ledger.evidence).collect();
        write_evidence(&evidence, &self.evidence, output)?;
        let verdict = report.verdict();
        output.print(&with_verdict(&report, verdict)?, |_| report::text(&report))?;
        Ok(exit(verdict))
    }
}

fn now() -> anyhow::Result<Hlc> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(Hlc::from_micros(u64::try_from(now.as_micros())?))
}

fn write_evidence(evidence: &[&Evidence], file: &PathBuf, output: &Output) -> anyhow::Result<()> {
    if evidence.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_string_pretty(evidence)?;
    fs::write(file, text).with_context(|| file.display().to_string())?;
    output.note(&format!("two signed histories: the evidence is in {}", file.display()));
    Ok(())
}

impl ProveArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let source = place::ledger(&self.source, self.ledger.as_ref())?;
        let proof = prove(&*source, Version(self.version))?.to_text();
        match &self.out {
            Some(file) => {
                fs::write(file, &proof).with_context(|| file.display().to_string())?;
                let value = json!({ "version": self.version, "file": file });
                output.print(&value, |_| format!("wrote {}", file.display()))?;
            }
            None => output
                .print(&json!({ "version": self.version, "proof": proof }), |_| proof.clone())?,
        }
        Ok(Exit::Done)
    }
}

impl CheckArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let read = |file| fs::read(file).with_context(|| format!("{file:?}"));
        let entry = self.entry.as_ref().map(read).transpose()?;
        let keys = self.trust.keys()?;
        ensure!(!keys.is_empty(), "whose signatures count? Give --vkeys or --topology");
        let report = check(&text(&self.proof)?, entry.as_deref(), &keys, self.trust.threshold);
        let verdict = report.verdict();
        let mut value = with_verdict(&report, verdict)?;
        value["entry"] = report.entry.as_ref().map_or(Value::Null, entry_json);
        output.print(&value, |_| {
            let mut lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            let version = report.version.map_or("an entry".into(), |v| format!("entry {v}"));
            let origin = report.origin.as_deref().unwrap_or("an unknown ledger");
            lines.push(match verdict {
                Verdict::Holds => format!(
                    "holds: {version} is in {origin}, of size {}, signed by {}",
                    report.size.unwrap_or_default(),
                    signers(report.signers.len(), report.threshold)
                ),
                _ => format!("{}: {version} of {origin}", report::words(verdict)),
            });
            if let Some(entry) = &report.entry {
                lines.push(entry_text(entry));
            }
            lines.join("\n")
        })?;
        Ok(exit(verdict))
    }
}

impl ConsistencyArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let source = place::ledger(&self.source, self.ledger.as_ref())?;
        let old = note(&self.old)?;
        let new = match &self.new {
            Some(file) => note(file)?,
            None => {
                let bytes = source.read("checkpoint", tradewind_ledger::note::MAX_NOTE as u64)?;
                let Some(bytes) = bytes else { bail!("{} has no checkpoint", source.name()) };
                SignedNote::parse(&bytes).context("the source's checkpoint")?
            }
        };
        let report = consistency(&*source, &old, &new, &self.trust.options()?);
        let evidence: Vec<&Evidence> = report.evidence.iter().collect();
        write_evidence(&evidence, &self.evidence, output)?;
        let verdict = report.verdict();
        output.print(&with_verdict(&report, verdict)?, |_| {
            let mut lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            let size = |size: Option<Version>| size.map_or("?".to_owned(), |size| size.to_string());
            let (old, new) = (size(report.old_size), size(report.new_size));
            let origin = report.origin.as_deref().unwrap_or("an unknown ledger");
            lines.push(format!("{}: {origin}, from size {old} to {new}", report::words(verdict)));
            lines.join("\n")
        })?;
        Ok(exit(verdict))
    }
}

/// "2 keys (2 needed)".
fn signers(signers: usize, needed: usize) -> String {
    format!("{} ({needed} needed)", count(signers, "key"))
}

fn entry_json(entry: &Entry) -> Value {
    let updates: Vec<Value> = updates(entry)
        .into_iter()
        .map(|(key, deleted)| {
            let mut object = serde_json::Map::new();
            data::insert(&mut object, "key", key);
            object.insert("deleted".to_owned(), deleted.into());
            object.into()
        })
        .collect();
    json!({ "kind": kind(entry), "time": time::text(entry.hlc), "view": entry.view, "updates": updates })
}

fn entry_text(entry: &Entry) -> String {
    let updates = updates(entry);
    let keys: Vec<String> =
        updates.iter().map(|(key, _)| format!("{:?}", data::shown(key, 60))).collect();
    let what = match keys.as_slice() {
        [] => String::new(),
        keys => format!(" of {}: {}", count(keys.len(), "key"), keys.join(", ")),
    };
    format!("the entry: {}{what}, at {}", kind(entry), time::text(entry.hlc))
}

fn kind(entry: &Entry) -> &'static str {
    match &entry.body {
        Body::Put(_) => "put",
        Body::Delete(_) => "delete",
        Body::Txn(_) => "txn",
        Body::Seal(_) => "seal",
        Body::View(_) => "view",
        Body::Snapshot(_) => "snapshot",
        Body::Genesis(_) => "genesis",
    }
}

/// Keys that an entry changes, and whether it deletes them.
fn updates(entry: &Entry) -> Vec<(&[u8], bool)> {
    let updates = match &entry.body {
        Body::Put(write) | Body::Delete(write) => std::slice::from_ref(&write.update),
        Body::Txn(txn) => &txn.updates,
        Body::Seal(_) | Body::View(_) | Body::Snapshot(_) | Body::Genesis(_) => &[],
    };
    updates.iter().map(|update| (&update.key[..], update.value.is_none())).collect()
}
