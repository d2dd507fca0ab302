//! Which state a read wants: flags of `get`, `list`, `history` and `export`; and what it got.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tradewind_client::{
    Client,
    wire::{AsOf, At, Level, Read, Role},
};
use tradewind_ledger::Version;

use crate::time::Moment;

/// How fresh the state must be.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Freshness")]
pub(crate) struct FreshnessArgs {
    /// The server must have this version first: read your own writes, at any mirror
    #[arg(long, value_name = "VERSION")]
    min_version: Option<u64>,
    /// The state may be at most so old
    #[arg(long, value_name = "MS")]
    max_staleness: Option<u32>,
    /// How long the server may wait for it
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    wait: u32,
    /// All that was acknowledged before, or what the server happens to have [default: linearizable at
    /// a node, local at a mirror]
    #[arg(long, value_enum)]
    level: Option<Freshness>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Freshness {
    Local,
    Linearizable,
}

/// The state of which moment; by default the latest.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct MomentArgs {
    /// The state right after this version
    #[arg(long, value_name = "VERSION", conflicts_with = "at")]
    version: Option<u64>,
    /// The state at this time: 2026-11-22T14:03:07.25Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
}

impl FreshnessArgs {
    pub(crate) fn wait_ms(&self) -> u32 {
        self.wait
    }

    /// The read that `client` is asked for.
    pub(crate) fn read(&self, at: At, client: &Client) -> Read {
        let at_mirror = client.welcome().role == Role::Mirror;
        Read {
            at,
            min_version: self.min_version.map(Version),
            max_staleness_ms: self.max_staleness,
            level: match self.level {
                Some(Freshness::Local) => Level::Local,
                None if at_mirror => Level::Local,
                Some(Freshness::Linearizable) | None => Level::Linearizable,
            },
            wait_ms: self.wait,
        }
    }
}

impl MomentArgs {
    pub(crate) fn at(&self) -> At {
        match (self.version, self.at) {
            (Some(version), _) => At::Version(Version(version)),
            (None, Some(moment)) => At::Time(moment.hlc()),
            (None, None) => At::Latest,
        }
    }
}

/// The state that was read.
pub(crate) fn as_of(as_of: AsOf) -> Value {
    json!({ "entries": as_of.at, "readable": as_of.readable, "age_ms": as_of.age_ms })
}
