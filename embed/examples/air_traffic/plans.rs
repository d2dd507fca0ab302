//! The replicated state: each flight has at most one active plan, each runway at most one controller.
//!
//! Everything is decided when a command is applied, from the state and the command's place in the order: who controls a
//! runway by leases with fencing tokens, as in docs/leases.md, with time from the order. So every tower decides the same.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tradewind_embed::{At, StateMachine};
use tradewind_store::GRACE;

/// A position in the order: the number of a plan, or the token of a controller.
pub(crate) type Version = u64;

/// Names a command of a tower: two copies of one command would be seen by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Strip {
    /// The tower, and when its process began.
    pub(crate) tower: String,
    pub(crate) since: u64,
    pub(crate) number: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) runway: String,
    pub(crate) level: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Files a plan for a flight that has none.
    File { flight: String, plan: Plan },
    /// Replaces the active plan `of` by another one.
    Amend { flight: String, of: Version, plan: Plan },
    /// Cancels the active plan `of`.
    Cancel { flight: String, of: Version },
    /// Takes control of a runway that nobody controls, or whose controller's lease is over.
    Take { runway: String, ttl_ms: u64 },
    /// Goes on controlling it.
    Renew { runway: String, token: Version },
    /// Clears a flight for a runway: an act that only its controller may do.
    Clear { runway: String, token: Version, flight: String },
}

/// A command and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) strip: Strip,
    pub(crate) command: Command,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// This is now the flight's one active plan.
    Active(Version),
    /// Done: the flight has no plan any more.
    Cancelled,
    /// Not done: this is the flight's active plan, if it has one.
    Otherwise(Option<Version>),
    /// Controls the runway under this token.
    Granted(Version),
    Renewed,
    Cleared,
    /// Not done: the runway is controlled under that token, until that time of the order unless renewed.
    Controlled {
        by: String,
        token: Version,
        until_micros: u64,
    },
    /// Not done: the token is an old one, or its time is over.
    Fenced {
        newest: Option<Version>,
    },
}

/// Who controls a runway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Control {
    pub(crate) tower: String,
    pub(crate) token: Version,
    ttl_micros: u64,
    renewed_micros: u64,
}

impl Control {
    /// Others may take over from then on.
    pub(crate) fn until_micros(&self) -> u64 {
        self.renewed_micros + self.ttl_micros + micros(GRACE)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Airspace {
    /// The active plan of each flight that has one.
    pub(crate) flights: BTreeMap<String, (Version, Plan)>,
    /// The last controller of each runway.
    pub(crate) runways: BTreeMap<String, Control>,
    /// Commands applied, and the place of the last one.
    pub(crate) applied: u64,
    pub(crate) last: Version,
}

impl StateMachine for Airspace {
    type Command = Sent;
    type Reply = Reply;

    fn apply(&mut self, at: At, sent: Sent) -> Reply {
        self.applied += 1;
        self.last = at.version.0;
        match sent.command {
            Command::File { flight, plan } => self.plan(at, flight, None, Some(plan)),
            Command::Amend { flight, of, plan } => self.plan(at, flight, Some(of), Some(plan)),
            Command::Cancel { flight, of } => self.plan(at, flight, Some(of), None),
            Command::Take { runway, ttl_ms } => self.take(at, runway, sent.strip.tower, ttl_ms),
            Command::Renew { runway, token } => self.act(&runway, at, token, |control| {
                control.renewed_micros = at.hlc.micros();
                Reply::Renewed
            }),
            Command::Clear { runway, token, .. } => {
                self.act(&runway, at, token, |_| Reply::Cleared)
            }
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        postcard::to_extend(self, Vec::new()).expect("plain data")
    }

    fn restore(bytes: &[u8]) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(postcard::from_bytes(bytes)?)
    }
}

impl Airspace {
    /// Makes `plan` the active one of a flight whose active one is `of`.
    fn plan(&mut self, at: At, flight: String, of: Option<Version>, plan: Option<Plan>) -> Reply {
        let active = self.flights.get(&flight).map(|(version, _)| *version);
        if active != of {
            return Reply::Otherwise(active);
        }
        match plan {
            Some(plan) => {
                self.flights.insert(flight, (at.version.0, plan));
                Reply::Active(at.version.0)
            }
            None => {
                self.flights.remove(&flight);
                Reply::Cancelled
            }
        }
    }

    fn take(&mut self, at: At, runway: String, tower: String, ttl_ms: u64) -> Reply {
        let now = at.hlc.micros();
        if let Some(control) = self.runways.get(&runway)
            && now < control.until_micros()
        {
            let (by, token) = (control.tower.clone(), control.token);
            return Reply::Controlled { by, token, until_micros: control.until_micros() };
        }
        let (token, ttl_micros) = (at.version.0, ttl_ms * 1_000);
        self.runways.insert(runway, Control { tower, token, ttl_micros, renewed_micros: now });
        Reply::Granted(token)
    }

    /// Does what only the controller may do, as long as its lease is not over.
    fn act(
        &mut self,
        runway: &str,
        at: At,
        token: Version,
        act: impl FnOnce(&mut Control) -> Reply,
    ) -> Reply {
        match self.runways.get_mut(runway) {
            Some(control)
                if control.token == token
                    && at.hlc.micros() < control.renewed_micros + control.ttl_micros =>
            {
                act(control)
            }
            control => Reply::Fenced { newest: control.map(|control| control.token) },
        }
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("short times")
}
