//! Leases: acquire, renew, release, show, and writes that count under a valid token only.

use crate::{Client, Error};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tradewind_ledger::Version;
use tradewind_store::{
    Command, Compare, Condition, Holding, LeaseName, LeaseOutcome, Reply, Test, TxnOp,
};

/// How often a lease that somebody holds is asked for again.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Why a lease was not acquired, renewed or released.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseFailure {
    /// Somebody else holds it.
    #[error(
        "held by {} under token {}; renewed at {} for {:?}",
        .0.holder.escape_ascii(), .0.token, .0.renewed, .0.ttl
    )]
    Held(Holding),
    /// The token is not, or no more, that of the lease, or its time is over: act no more under it.
    #[error(
        "token {token} is not valid any more: the lease is not held by it, or was not renewed in time"
    )]
    Lost {
        /// The token.
        token: Version,
    },
    /// The name, time to live or holder cannot be, or the key is something else.
    #[error(transparent)]
    Lease(#[from] tradewind_store::LeaseError),
    /// The request failed.
    #[error(transparent)]
    Request(#[from] Error),
}

/// A lease that was acquired.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its name.
    pub name: LeaseName,
    /// Grows with each holder; to be shown with each act, see [`Client::put_fenced`].
    pub token: Version,
    /// How long it lasts without renewal.
    pub ttl: Duration,
    /// Until when, by this process' monotonic clock, nobody else can have been granted it: counted from before the
    /// request was sent. A help to stop in time, not a proof: the token is that.
    pub valid_until: Instant,
}

impl Client {
    /// Acquires a lease for `holder`; waits up to `wait` for another holder to release it or to fail to renew it.
    ///
    /// # Errors
    /// [`LeaseFailure::Held`] if it is still held then; others at once. After an outcome that is not known, look with
    /// [`lease_holding`](Self::lease_holding): the token may be one's own.
    pub async fn lease_acquire(
        &self,
        pool: &str,
        name: &LeaseName,
        holder: &[u8],
        ttl: Duration,
        wait: Duration,
    ) -> Result<Lease, LeaseFailure> {
        let give_up = Instant::now() + wait;
        let mut command = name.acquire(holder, ttl)?;
        loop {
            let sent = Instant::now();
            match self.lease_command(pool, name, &command).await? {
                LeaseOutcome::Done(token) => {
                    let (name, valid_until) = (name.clone(), sent + ttl);
                    return Ok(Lease { name, token, ttl, valid_until });
                }
                LeaseOutcome::Free => command = name.acquire(holder, ttl)?,
                LeaseOutcome::Held(other) => {
                    // The order decides whether its time is over.
                    let take_over = name.take_over(&other, holder, ttl)?;
                    let first = command != take_over;
                    command = take_over;
                    if first {
                        continue;
                    }
                    if sent >= give_up {
                        return Err(LeaseFailure::Held(other));
                    }
                    sleep_until(give_up.min(sent + ASK_EVERY)).await;
                }
            }
        }
    }

    /// Renews a lease.
    ///
    /// # Errors
    /// [`LeaseFailure::Lost`] if its time is over, or another holds it; others as [`execute`](Self::execute).
    pub async fn lease_renew(&self, pool: &str, lease: &mut Lease) -> Result<(), LeaseFailure> {
        let sent = Instant::now();
        let renew = lease.name.renew(lease.token, lease.ttl);
        match self.lease_command(pool, &lease.name, &renew).await? {
            LeaseOutcome::Done(_) => {
                lease.valid_until = sent + lease.ttl;
                Ok(())
            }
            _ => Err(LeaseFailure::Lost { token: lease.token }),
        }
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// [`LeaseFailure::Lost`] if another holds it; others as [`execute`](Self::execute).
    pub async fn lease_release(
        &self,
        pool: &str,
        name: &LeaseName,
        token: Version,
    ) -> Result<(), LeaseFailure> {
        match self.lease_command(pool, name, &name.release(token)).await? {
            LeaseOutcome::Done(_) => Ok(()),
            _ => Err(LeaseFailure::Lost { token }),
        }
    }

    /// Who holds a lease, or held it and did not release it; `None` if it is free. Linearizable.
    ///
    /// # Errors
    /// As [`execute`](Self::execute), and if the key is no lease.
    pub async fn lease_holding(
        &self,
        pool: &str,
        name: &LeaseName,
    ) -> Result<Option<Holding>, LeaseFailure> {
        match self.lease_command(pool, name, &name.show()).await? {
            LeaseOutcome::Held(holding) => Ok(Some(holding)),
            LeaseOutcome::Free | LeaseOutcome::Done(_) => Ok(None),
        }
    }

    /// Sets a key of the lease's shard (the same part in braces), if the lease is still held under the token, and the
    /// condition holds; the reply is that of a transaction.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn put_fenced(
        &self,
        pool: &str,
        fence: (&LeaseName, Version),
        key: &[u8],
        value: &[u8],
        condition: Condition,
    ) -> Result<Reply, Error> {
        self.execute(pool, &Self::fenced(fence, key, value, condition), None).await
    }

    /// The command of [`put_fenced`](Self::put_fenced).
    pub fn fenced(
        (name, token): (&LeaseName, Version),
        key: &[u8],
        value: &[u8],
        condition: Condition,
    ) -> Command {
        let test = match condition {
            Condition::Always => None,
            Condition::Absent => Some(Test::Exists(false)),
            Condition::Version(version) => Some(Test::Version(version)),
        };
        let own = test.map(|test| Compare { key: key.to_vec(), test });
        let compare = std::iter::once(name.fence(token)).chain(own).collect();
        let then = vec![TxnOp::Put { key: key.to_vec(), value: value.to_vec() }];
        Command::Txn { compare, then, otherwise: Vec::new() }
    }

    async fn lease_command(
        &self,
        pool: &str,
        name: &LeaseName,
        command: &Command,
    ) -> Result<LeaseOutcome, LeaseFailure> {
        let reply = self.execute(pool, command, None).await?;
        Ok(name.outcome(&reply)?)
    }
}
