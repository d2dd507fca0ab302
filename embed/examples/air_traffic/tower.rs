//! One tower: a process that is a member of the site, files plans, and contends for runways.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tradewind_embed::{Ended, Group, Options, Replicated, SendError, Standing, ViewEvent};
use tradewind_topology::Topology;
use tradewind_transport::Identity;

use crate::plans::{Airspace, Command, Plan, Reply, Sent, Strip, Version, micros};

pub(crate) const POOL: &str = "flights";
pub(crate) const NAME: &str = "plans";
pub(crate) const RUNWAYS: [&str; 2] = ["09", "27"];
/// How long a controller may be silent.
pub(crate) const TTL: Duration = Duration::from_secs(1);
/// How often a tower looks after a runway, and sends something about a flight.
pub(crate) const PACE: Duration = Duration::from_millis(50);
const FLIGHTS: u64 = 12;

/// What a tower prints, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(crate) enum Event {
    /// The state that it began with holds so many commands.
    Began {
        applied: u64,
    },
    View {
        id: u64,
        members: Vec<String>,
        joined: Vec<String>,
        left: Vec<String>,
    },
    Suspended {
        why: String,
    },
    /// A command was answered.
    Told {
        strip: Strip,
        version: Version,
        reply: Reply,
        command: Command,
    },
    /// A command was not answered: what is known of it.
    Failed {
        strip: Strip,
        not_applied: bool,
        error: String,
    },
    /// The state at the end: so many commands, the last one at this version.
    Ended {
        applied: u64,
        last: Version,
    },
}

fn print(event: &Event) {
    let mut line = serde_json::to_vec(event).expect("plain data");
    line.push(b'\n');
    // Whoever listened may have gone: then standard input closes, too.
    let _ = std::io::stdout().lock().write_all(&line);
}

struct Tower {
    name: String,
    since: u64,
    numbers: AtomicU64,
    plans: Replicated<Airspace>,
}

/// Runs until standard input closes.
pub(crate) async fn run(topology: PathBuf, name: String) -> anyhow::Result<()> {
    let closed = stdin_closes();
    let topology =
        Arc::new(Topology::load(&topology).map_err(|f| anyhow::anyhow!("{f}"))?.topology);
    let identity = Identity::load(&name, &topology.keys.join(format!("{name}.key")))?;
    let mut group = Group::join(Arc::clone(&topology), Arc::new(identity)).await?;
    let on_view = Box::new(|event: &ViewEvent| print(&told_of(event)));
    let options = Options { on_view: Some(on_view), snapshot_every: 100, ..Options::default() };
    let plans = group.replicated(POOL, NAME, Airspace::default(), options)?;
    print(&Event::Began { applied: plans.query_local(|airspace| airspace.applied) });
    group.serve().await?;
    group.active().await;

    let since = micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let tower = Arc::new(Tower { name, since, numbers: AtomicU64::new(0), plans: plans.clone() });
    let mut work = tokio::task::JoinSet::new();
    for runway in RUNWAYS {
        work.spawn(look_after(Arc::clone(&tower), runway));
    }
    work.spawn(file_plans(Arc::clone(&tower)));
    let end = tokio::select! {
        closed = closed => { closed.context("standard input")?; None }
        ended = group.ended() => Some(ended),
        Some(failed) = work.join_next() => bail!("a task ended: {failed:?}"),
    };
    work.shutdown().await;
    if end.is_none() {
        let (applied, last) = plans.query_local(|airspace| (airspace.applied, airspace.last));
        print(&Event::Ended { applied, last });
    }
    drop((plans, tower));
    group.leave().await;
    match end {
        None => Ok(()),
        // To be started again: what is told apart by the exit code.
        Some(Ended::Restart(_)) => std::process::exit(6),
        Some(Ended::Failed(reason)) => bail!("the node cannot go on: {reason}"),
    }
}

fn told_of(event: &ViewEvent) -> Event {
    match event {
        ViewEvent::Installed(view) => Event::View {
            id: view.id.0,
            members: view.members.clone(),
            joined: view.joined.clone(),
            left: view.left.clone(),
        },
        ViewEvent::Suspended(standing) => Event::Suspended { why: why(standing) },
    }
}

fn why(standing: &Standing) -> String {
    match standing {
        Standing::Active => "it has one".into(),
        Standing::Forming => "the next one is being agreed on".into(),
        Standing::Minority { missing } => format!("it misses {}", missing.join(", ")),
        Standing::LeftOut { by } => format!("view {by} runs without it"),
        Standing::Failed => "it failed".into(),
    }
}

impl Tower {
    /// Sends a command under a strip of its own, and prints what came of it.
    async fn send(&self, command: Command) -> Option<(Version, Reply)> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let strip = Strip { tower: self.name.clone(), since: self.since, number };
        let sent = Sent { strip: strip.clone(), command };
        match self.plans.ordered_send(&sent).await {
            Ok(applied) => {
                let (version, reply) = (applied.at.version.0, applied.reply);
                print(&Event::Told { strip, version, reply: reply.clone(), command: sent.command });
                Some((version, reply))
            }
            Err(error) => {
                let not_applied = SendError::is_not_applied(&error);
                print(&Event::Failed { strip, not_applied, error: error.to_string() });
                None
            }
        }
    }
}

/// Contends for a runway, and controls it while it is granted.
async fn look_after(tower: Arc<Tower>, runway: &'static str) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let now = micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let free = |airspace: &Airspace| {
            airspace.runways.get(runway).is_none_or(|control| now >= control.until_micros())
        };
        // A hint from the own copy and the own clock: the order decides.
        if !tower.plans.query_local(free) {
            continue;
        }
        let ttl_ms = micros(TTL) / 1_000;
        let take = Command::Take { runway: runway.into(), ttl_ms };
        if let Some((_, Reply::Granted(token))) = tower.send(take).await {
            control(&tower, runway, token, &mut pace).await;
        }
    }
}

/// Controls a runway under `token` until somebody else does: clears flights, and renews the lease a few times in its
/// length.
async fn control(tower: &Tower, runway: &str, token: Version, pace: &mut tokio::time::Interval) {
    let mut renewed = Instant::now();
    loop {
        pace.tick().await;
        let command = if renewed.elapsed() > TTL / 4 {
            renewed = Instant::now();
            Command::Renew { runway: runway.into(), token }
        } else {
            let waiting = |airspace: &Airspace| {
                let mut flights = airspace.flights.iter();
                flights.find(|(_, (_, plan))| plan.runway == runway).map(|(name, _)| name.clone())
            };
            let Some(flight) = tower.plans.query_local(waiting) else { continue };
            Command::Clear { runway: runway.into(), token, flight }
        };
        if let Some((_, Reply::Fenced { .. })) = tower.send(command).await {
            return;
        }
    }
}

/// Files, amends and cancels plans of flights that other towers are busy with as well.
async fn file_plans(tower: Arc<Tower>) {
    let mut random = tower.since | 1;
    loop {
        // A generator of its own is random enough for a choice of flights.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let flight = format!("TW{:03}", 100 + (random >> 33) % FLIGHTS);
        let runway = RUNWAYS[(random >> 40) as usize % RUNWAYS.len()].to_owned();
        let plan = Plan { runway, level: 200 + (random >> 50) as u16 % 200 };
        let active = tower.plans.query_local(|airspace| airspace.flights.get(&flight).cloned());
        let command = match active {
            None => Command::File { flight, plan },
            Some((of, _)) if random >> 62 == 0 => Command::Cancel { flight, of },
            Some((of, _)) => Command::Amend { flight, of, plan },
        };
        tower.send(command).await;
        tokio::time::sleep(PACE / 2).await;
    }
}

/// Tells when standard input ends. A thread of its own: it may never.
fn stdin_closes() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while std::io::stdin().read(&mut bytes).is_ok_and(|read| read > 0) {}
        // The process may end already.
        let _ = sender.send(());
    });
    receiver
}
