//! Leases: who may act as the one of a kind, until when, and the number that proves it.
//!
//! A lease is two keys. The **grant**, under the lease's own name, is written when the lease is acquired and by nothing
//! else: its version is the **token**, which only ever grows. The **renewal**, beside it in the same shard, is written at
//! each renewal and with the grant: its age says whether the holder is still there. All decisions are transactions, so
//! they are made in the one order and by the order's own clock ([`Test::OlderThan`]), the same at every replica:
//!
//! - a free lease is granted to the first that asks;
//! - a lease is taken over when its renewal is older than its time to live and [`GRACE`];
//! - it is renewed by its holder, who shows the token, as long as the renewal is younger than the time to live.
//!
//! No clock makes a lease safe, for a holder may be stopped for any time between looking at the clock and acting. The
//! token does: an act that compares it ([`LeaseName::fence`]) fails once somebody else was granted the lease.
//!
//! The grant's value: `TWL1`, time to live in microseconds (u64, little endian), then the holder.

use crate::{Command, Compare, Item, Printable, Reply, Test, TxnOp, TxnResult, tag};
use alloc::{vec, vec::Vec};
use core::time::Duration;
use tradewind_ledger::{Hlc, Version, entry::MAX_KEY};

/// How much older than its time to live a lease must be to be taken over: clocks of a site's nodes may differ so much
/// before a holder loses a lease that it renewed in time.
pub const GRACE: Duration = Duration::from_millis(500);
/// Most bytes of a holder's name.
pub const MAX_HOLDER: usize = 1024;
/// The longest time to live: a day.
pub const MAX_TTL: Duration = Duration::from_secs(86_400);

const MAGIC: &[u8] = b"TWL1";
const RENEWED: &[u8] = b"~renewed";

/// Why something is no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The name cannot be that of a lease.
    #[error(
        "{0} cannot be a lease's name: it has 1 to {max} bytes, and braces only as one part in braces, as in \
         runway/{{27}}", max = MAX_KEY - RENEWED.len() - 2
    )]
    Name(Printable),
    /// A time to live out of bounds.
    #[error("a lease cannot last {0:?}: allowed is 1 ms to {MAX_TTL:?}")]
    Ttl(Duration),
    /// A holder's name that is too long.
    #[error("a holder's name has {0} bytes; allowed are up to {MAX_HOLDER}")]
    Holder(usize),
    /// The key is there, but is no lease.
    #[error("the key {0} holds something else than a lease; choose another name")]
    NotALease(Printable),
}

/// A name that a lease may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    grant: Vec<u8>,
    renewed: Vec<u8>,
}

/// What is known of a lease that somebody holds, or held and did not release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The version of the grant, to be shown with each act.
    pub token: Version,
    /// Who.
    pub holder: Vec<u8>,
    /// How long it lasts without renewal.
    pub ttl: Duration,
    /// When it was granted.
    pub granted: Hlc,
    /// When it was renewed last, or granted.
    pub renewed: Hlc,
}

impl LeaseName {
    /// # Errors
    /// [`LeaseError::Name`] if no key can stand beside it in the same shard.
    pub fn new(name: &[u8]) -> Result<Self, LeaseError> {
        let mut renewed = Vec::with_capacity(name.len() + RENEWED.len() + 2);
        if tag(name).len() == name.len() {
            renewed.push(b'{');
            renewed.extend_from_slice(name);
            renewed.push(b'}');
        } else {
            renewed.extend_from_slice(name);
        }
        renewed.extend_from_slice(RENEWED);
        match tag(&renewed) == tag(name) && !name.is_empty() && renewed.len() <= MAX_KEY {
            true => Ok(Self { grant: name.to_vec(), renewed }),
            false => Err(LeaseError::Name(Printable::new(name))),
        }
    }

    /// The key whose version is the token.
    pub fn key(&self) -> &[u8] {
        &self.grant
    }

    /// Holds as long as nobody else was granted the lease after `token`, and it was not released. For transactions
    /// with keys of the same shard: those with the same part in braces.
    pub fn fence(&self, token: Version) -> Compare {
        Compare { key: self.grant.clone(), test: Test::Version(token) }
    }

    /// Acquires the lease if it is free.
    ///
    /// # Errors
    /// [`LeaseError::Ttl`], [`LeaseError::Holder`].
    pub fn acquire(&self, holder: &[u8], ttl: Duration) -> Result<Command, LeaseError> {
        let free = Compare { key: self.grant.clone(), test: Test::Exists(false) };
        Ok(self.txn(vec![free], self.write(holder, ttl)?))
    }

    /// Acquires the lease if `from` still holds it, but did not renew it in time.
    ///
    /// # Errors
    /// [`LeaseError::Ttl`], [`LeaseError::Holder`].
    pub fn take_over(
        &self,
        from: &Holding,
        holder: &[u8],
        ttl: Duration,
    ) -> Result<Command, LeaseError> {
        let old = Test::OlderThan(micros(from.ttl + GRACE));
        let old = Compare { key: self.renewed.clone(), test: old };
        Ok(self.txn(vec![self.fence(from.token), old], self.write(holder, ttl)?))
    }

    /// Renews the lease, unless its time is over.
    pub fn renew(&self, token: Version, ttl: Duration) -> Command {
        let young = Test::YoungerThan(micros(ttl));
        let young = Compare { key: self.renewed.clone(), test: young };
        let renew = TxnOp::Put { key: self.renewed.clone(), value: Vec::new() };
        self.txn(vec![self.fence(token), young], vec![renew])
    }

    /// Gives the lease back.
    pub fn release(&self, token: Version) -> Command {
        let delete = |key: &Vec<u8>| TxnOp::Delete { key: key.clone() };
        self.txn(vec![self.fence(token)], vec![delete(&self.grant), delete(&self.renewed)])
    }

    /// Reads the lease; in order, so linearizably.
    pub fn show(&self) -> Command {
        self.txn(vec![Compare { key: self.grant.clone(), test: Test::Exists(false) }], Vec::new())
    }

    /// What came of one of the commands above: the entry it made, if its comparisons held, or who holds the lease.
    ///
    /// # Errors
    /// [`LeaseError::NotALease`].
    ///
    /// # Panics
    /// If `reply` is that of something else than a transaction.
    pub fn outcome(&self, reply: &Reply) -> Result<LeaseOutcome, LeaseError> {
        let Reply::Txn { succeeded, written, results } = reply else {
            panic!("a transaction was answered {reply:?}")
        };
        if *succeeded {
            return Ok(match written {
                Some(stamp) => LeaseOutcome::Done(stamp.version),
                None => LeaseOutcome::Free,
            });
        }
        let not = || LeaseError::NotALease(Printable::new(&self.grant));
        match results.as_slice() {
            [TxnResult::Read(None), _] => Ok(LeaseOutcome::Free),
            [TxnResult::Read(Some(grant)), TxnResult::Read(Some(renewed))] => {
                Holding::decode(grant, renewed.hlc).map(LeaseOutcome::Held).ok_or_else(not)
            }
            _ => Err(not()),
        }
    }

    fn txn(&self, compare: Vec<Compare>, then: Vec<TxnOp>) -> Command {
        let get = |key: &Vec<u8>| TxnOp::Get { key: key.clone() };
        Command::Txn { compare, then, otherwise: vec![get(&self.grant), get(&self.renewed)] }
    }

    fn write(&self, holder: &[u8], ttl: Duration) -> Result<Vec<TxnOp>, LeaseError> {
        if ttl < Duration::from_millis(1) || ttl > MAX_TTL {
            return Err(LeaseError::Ttl(ttl));
        }
        if holder.len() > MAX_HOLDER {
            return Err(LeaseError::Holder(holder.len()));
        }
        let mut value = MAGIC.to_vec();
        value.extend_from_slice(&micros(ttl).to_le_bytes());
        value.extend_from_slice(holder);
        Ok(vec![
            TxnOp::Put { key: self.grant.clone(), value },
            TxnOp::Put { key: self.renewed.clone(), value: Vec::new() },
        ])
    }
}

/// What came of a command about a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// Done, as this entry: of an acquisition the token.
    Done(Version),
    /// Not done: nobody holds it.
    Free,
    /// Not done: this is who holds it.
    Held(Holding),
}

impl Holding {
    /// When it may be taken over, if it is not renewed, by the order's clock.
    pub fn until(&self) -> Hlc {
        Hlc::from_micros(self.renewed.micros().saturating_add(micros(self.ttl + GRACE)))
    }

    fn decode(grant: &Item, renewed: Hlc) -> Option<Self> {
        let rest = grant.bytes()?.strip_prefix(MAGIC)?;
        let (ttl, holder) = rest.split_first_chunk()?;
        let ttl = Duration::from_micros(u64::from_le_bytes(*ttl));
        let holder = holder.to_vec();
        let (token, granted) = (grant.version, grant.hlc);
        (ttl <= MAX_TTL).then_some(Self { token, holder, ttl, granted, renewed })
    }
}

/// Times to live are bounded far below what fits.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
