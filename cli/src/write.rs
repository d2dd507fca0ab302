//! `tradewind put|delete|cas`.

use std::{
    ffi::OsString,
    io::Read as _,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use tradewind_client::{Client, Command, Condition, Durability, LeaseName, Reply, TxnResult};
use tradewind_ledger::{Version, entry::MAX_VALUE};

use crate::{
    connect::{ConnectArgs, block_on},
    exit::Exit,
    output::Output,
    time,
};

/// Set a key
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code 1 if the condition does not hold; 5 if it is not known whether the write was executed.

Examples:
  tradewind put flights KL601 boarding
  tradewind put flights KL601 --file status.json
  date | tradewind put flights now -
  tradewind put flights KL601 boarding --if-absent
  tradewind put runways clearance/{27} KL601 --fence runway/{27}:4711")]
pub(crate) struct PutArgs {
    /// The pool
    pool: String,
    /// The key
    key: OsString,
    /// The value; - reads it from stdin
    #[arg(required_unless_present = "file")]
    value: Option<OsString>,
    /// Read the value from this file
    #[arg(long, conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Only if the key does not exist
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Only if this is the version of the key's value
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Only if this lease is still held under this token; key and lease have the same part in braces
    #[arg(long, value_name = "LEASE:TOKEN", value_parser = fence)]
    fence: Option<Fence>,
    #[command(flatten)]
    durability: DurabilityArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A lease and the token under which it must be held.
#[derive(Clone, Debug)]
struct Fence {
    name: LeaseName,
    token: Version,
}

fn fence(text: &str) -> Result<Fence, String> {
    let (name, token) = text.rsplit_once(':').ok_or("a lease's name, a colon, its token")?;
    let token = Version(token.parse().map_err(|_| "a token is a number")?);
    let name = LeaseName::new(name.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Fence { name, token })
}

/// Delete a key
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code 1 if there is no such key, or the condition does not hold.

Examples:
  tradewind delete flights KL601
  tradewind delete flights KL601 --if-version 17")]
pub(crate) struct DeleteArgs {
    /// The pool
    pool: String,
    /// The key
    key: OsString,
    /// Only if this is the version of the key's value
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    #[command(flatten)]
    durability: DurabilityArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Compare and set: set a key if its value has the expected version
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code 1 if the key has another version: it is then printed, to try again with.

Examples:
  tradewind cas flights KL601 17 departed
  tradewind cas flights KL602 absent scheduled")]
pub(crate) struct CasArgs {
    /// The pool
    pool: String,
    /// The key
    key: OsString,
    /// The version expected, or `absent`
    #[arg(value_parser = expected)]
    expected: Condition,
    /// The new value; - reads it from stdin
    value: OsString,
    #[command(flatten)]
    durability: DurabilityArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// When a write is acknowledged.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct DurabilityArgs {
    /// When to acknowledge [default: what the pool says]
    #[arg(long, value_enum)]
    durability: Option<DurabilityName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DurabilityName {
    Memory,
    Disk,
}

impl DurabilityArgs {
    pub(crate) fn durability(self) -> Option<Durability> {
        self.durability.map(|name| match name {
            DurabilityName::Memory => Durability::Memory,
            DurabilityName::Disk => Durability::Disk,
        })
    }
}

fn expected(text: &str) -> Result<Condition, String> {
    match text.parse() {
        Ok(version) => Ok(Condition::Version(Version(version))),
        Err(_) if text == "absent" => Ok(Condition::Absent),
        Err(_) => Err("a version, or `absent`".to_owned()),
    }
}

impl PutArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let value = match (&self.value, &self.file) {
            (_, Some(file)) => std::fs::read(file).with_context(|| file.display().to_string())?,
            (Some(value), None) => argument(value)?,
            (None, None) => bail!("no value: give one, or --file"),
        };
        let condition = match (self.if_absent, self.if_version) {
            (true, _) => Condition::Absent,
            (false, Some(version)) => Condition::Version(Version(version)),
            (false, None) => Condition::Always,
        };
        if let Some(Fence { name, token }) = &self.fence {
            let put = Client::fenced((name, *token), self.key.as_bytes(), &value, condition);
            return execute(&self.connect, &self.pool, &put, self.durability, output);
        }
        let command = Command::Put { key: self.key.as_bytes().to_vec(), value, condition };
        execute(&self.connect, &self.pool, &command, self.durability, output)
    }
}

impl DeleteArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let condition = self
            .if_version
            .map_or(Condition::Always, |version| Condition::Version(Version(version)));
        let command = Command::Delete { key: self.key.as_bytes().to_vec(), condition };
        execute(&self.connect, &self.pool, &command, self.durability, output)
    }
}

impl CasArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let (key, value) = (self.key.as_bytes().to_vec(), argument(&self.value)?);
        let command = Command::Put { key, value, condition: self.expected };
        execute(&self.connect, &self.pool, &command, self.durability, output)
    }
}

/// A value of the command line; `-` stands for stdin.
fn argument(value: &OsString) -> anyhow::Result<Vec<u8>> {
    if value != "-" {
        return Ok(value.clone().into_vec());
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_VALUE + 1).read_to_end(&mut bytes).context("reading stdin")?;
    Ok(bytes)
}

fn execute(
    connect: &ConnectArgs,
    pool: &str,
    command: &Command,
    durability: DurabilityArgs,
    output: &Output,
) -> anyhow::Result<Exit> {
    command.check()?;
    let reply = block_on(async {
        let client = connect.client(pool).await?;
        Ok(client.execute(pool, command, durability.durability()).await?)
    })?;
    match reply {
        Reply::Written { version, key_version, hlc } => {
            let time = time::text(hlc);
            let value = json!({
                "written": true, "version": version, "key_version": key_version, "time": time,
            });
            output.print(&value, |_| format!("version {version}, at {time}"))?;
            Ok(Exit::Done)
        }
        Reply::Conflict { current } => {
            let version = current.map(|current| current.version);
            let key_version = current.map(|current| current.key_version);
            let value = json!({ "written": false, "version": version, "key_version": key_version });
            output.print(&value, |_| match version {
                Some(version) => format!("not written: the key is at version {version}"),
                None => "not written: the key does not exist".to_owned(),
            })?;
            Ok(Exit::No)
        }
        Reply::Absent => {
            let value = json!({ "written": false, "version": null });
            output.print(&value, |_| "nothing to delete: the key does not exist".to_owned())?;
            Ok(Exit::No)
        }
        // Under a fence.
        Reply::Txn { written: Some(stamp), results, .. } => {
            let key_version = results.iter().find_map(|result| match result {
                TxnResult::Written { key_version } => Some(*key_version),
                TxnResult::Read(_) => None,
            });
            let (version, time) = (stamp.version, time::text(stamp.hlc));
            let value = json!({
                "written": true, "version": version, "key_version": key_version, "time": time,
            });
            output.print(&value, |_| format!("version {version}, at {time}"))?;
            Ok(Exit::Done)
        }
        Reply::Txn { written: None, .. } => {
            output.print(&json!({ "written": false }), |_| {
                "not written: the lease is not held under that token, or the key is not as expected"
                    .to_owned()
            })?;
            Ok(Exit::No)
        }
        other @ Reply::Refused(_) => bail!("an unexpected answer: {other:?}"),
    }
}
