//! `tradewind lease`.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, time::Duration};

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::time::Instant;
use tradewind_client::{Holding, Lease, LeaseFailure, LeaseName};
use tradewind_ledger::Version;

use crate::{
    connect::{ConnectArgs, block_on},
    exit::Exit,
    output::Output,
    time,
};

/// Be the only one: leases with fencing tokens
#[derive(Subcommand, Debug)]
#[command(after_help = "\
A lease is held until it is released, or not renewed for its time to live, by the clock of the site's \
order. Its token grows with each holder. Only acts that show the token are safe: `tradewind put --fence`.

Examples:
  tradewind lease acquire runways runway/{27} --holder tower-a --ttl 10
  tradewind put runways clearance/{27} KL601 --fence runway/{27}:4711
  tradewind lease renew runways runway/{27} 4711
  tradewind lease release runways runway/{27} 4711")]
pub(crate) enum LeaseCommand {
    Acquire(AcquireArgs),
    Renew(TokenArgs),
    Release(ReleaseArgs),
    Show(ShowArgs),
}

/// Acquire a lease; prints its token
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code 1 if somebody else holds it. After exit code 5 look with `tradewind lease show`.

Examples:
  tradewind lease acquire runways runway/{27} --holder tower-a --ttl 10
  tradewind lease acquire runways runway/{27} --holder tower-b --ttl 10 --wait 60")]
pub(crate) struct AcquireArgs {
    #[command(flatten)]
    lease: NameArgs,
    /// Who will hold it
    #[arg(long)]
    holder: String,
    /// Seconds that it lasts without renewal
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    ttl: f64,
    /// Seconds to wait for another holder to go
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    wait: f64,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Renew a lease for another time to live
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code 1 if it is lost: its time was over, or somebody else holds it. Act no more under the token.

Examples:
  tradewind lease renew runways runway/{27} 4711")]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    lease: NameArgs,
    /// The token that the acquisition printed
    token: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Give a lease back
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code 1 if somebody else holds it.

Examples:
  tradewind lease release runways runway/{27} 4711")]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    lease: NameArgs,
    /// The token that the acquisition printed
    token: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Show who holds a lease
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code 1 if nobody does.

Examples:
  tradewind lease show runways runway/{27}")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    lease: NameArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Args, Debug)]
struct NameArgs {
    /// The pool
    pool: String,
    /// The lease's name: a key of the pool
    name: OsString,
}

impl NameArgs {
    fn name(&self) -> anyhow::Result<LeaseName> {
        Ok(LeaseName::new(self.name.as_bytes())?)
    }
}

impl LeaseCommand {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        match self {
            Self::Acquire(args) => args.run(output),
            Self::Renew(args) => args.run(output),
            Self::Release(args) => args.run(output),
            Self::Show(args) => args.run(output),
        }
    }
}

impl AcquireArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let (pool, name) = (&self.lease.pool, self.lease.name()?);
        let seconds = |seconds| Duration::try_from_secs_f64(seconds);
        let (ttl, wait) = (seconds(self.ttl)?, seconds(self.wait)?);
        let holder = self.holder.as_bytes();
        let acquired = block_on(async {
            let client = self.connect.client(pool).await?;
            Ok(client.lease_acquire(pool, &name, holder, ttl, wait).await)
        })?;
        match acquired {
            Ok(Lease { token, .. }) => {
                output.print(&json!({ "acquired": true, "token": token }), |_| {
                    format!("token {token}, for {} s", self.ttl)
                })?;
                Ok(Exit::Done)
            }
            Err(LeaseFailure::Held(other)) => {
                let value = json!({ "acquired": false, "held": json_of(&other) });
                output.print(&value, |_| format!("not acquired: {}", text_of(&other)))?;
                Ok(Exit::No)
            }
            Err(failure) => Err(error(failure)),
        }
    }
}

impl TokenArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let (pool, name, token) = (&self.lease.pool, self.lease.name()?, Version(self.token));
        let renewed = block_on(async {
            let client = self.connect.client(pool).await?;
            let holding = client.lease_holding(pool, &name).await;
            Ok(match holding {
                Ok(Some(Holding { ttl, token: held, .. })) if held == token => {
                    let valid_until = Instant::now();
                    let mut lease = Lease { name, token, ttl, valid_until };
                    client.lease_renew(pool, &mut lease).await
                }
                Ok(_) => Err(LeaseFailure::Lost { token }),
                Err(failure) => Err(failure),
            })
        })?;
        told("renewed", renewed, output)
    }
}

impl ReleaseArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let (pool, name, token) = (&self.lease.pool, self.lease.name()?, Version(self.token));
        let released = block_on(async {
            let client = self.connect.client(pool).await?;
            Ok(client.lease_release(pool, &name, token).await)
        })?;
        told("released", released, output)
    }
}

impl ShowArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let (pool, name) = (&self.lease.pool, self.lease.name()?);
        let holding = block_on(async {
            let client = self.connect.client(pool).await?;
            Ok(client.lease_holding(pool, &name).await)
        })?;
        match holding.map_err(error)? {
            Some(holding) => {
                output.print(&json_of(&holding), |_| text_of(&holding))?;
                Ok(Exit::Done)
            }
            None => {
                output.print(&json!({ "holder": null }), |_| "free".to_owned())?;
                Ok(Exit::No)
            }
        }
    }
}

fn told(what: &str, result: Result<(), LeaseFailure>, output: &Output) -> anyhow::Result<Exit> {
    match result {
        Ok(()) => {
            output.print(&json!({ what: true }), |_| what.to_owned())?;
            Ok(Exit::Done)
        }
        Err(lost @ LeaseFailure::Lost { .. }) => {
            output.print(&json!({ what: false }), |_| format!("not {what}: {lost}"))?;
            Ok(Exit::No)
        }
        Err(failure) => Err(error(failure)),
    }
}

/// Request errors keep their own exit codes.
fn error(failure: LeaseFailure) -> anyhow::Error {
    match failure {
        LeaseFailure::Request(error) => error.into(),
        other => other.into(),
    }
}

fn json_of(holding: &Holding) -> serde_json::Value {
    json!({
        "holder": String::from_utf8_lossy(&holding.holder),
        "token": holding.token,
        "ttl_seconds": holding.ttl.as_secs_f64(),
        "granted": time::text(holding.granted),
        "renewed": time::text(holding.renewed),
        "until": time::text(holding.until()),
    })
}

fn text_of(holding: &Holding) -> String {
    format!(
        "held by {} under token {}, until {} unless renewed",
        String::from_utf8_lossy(&holding.holder),
        holding.token,
        time::text(holding.until())
    )
}
