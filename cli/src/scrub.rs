//! Bit rot found and mended while a process runs: a thread that reads its ledgers' files at a given pace, and asks other
//! processes for what is damaged. Their answers need not be trusted (`ledger/disk`, `scrub`).

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tradewind_ledger::LedgerId;
use tradewind_ledger_disk::{Fault, LedgerReader, Scrubber};
use tradewind_topology::Topology;

use crate::repair::HttpPeer;

/// How long to wait for the next pass at most while something is damaged.
const RETRY: Duration = Duration::from_secs(5);

/// How a process looks for bit rot.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// MiB a second that are read in search of bit rot; 0: no search
    #[arg(long, value_name = "MIB", default_value_t = 2)]
    scrub_rate: u32,
    /// Seconds from the end of one search to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    scrub_pause: u32,
}

/// A running search; it ends when this is dropped.
pub(crate) struct Scrub {
    found: Arc<Mutex<Found>>,
    _stop: Sender<()>,
}

/// What a search has come to.
#[derive(Default)]
struct Found {
    passes: u64,
    bytes: u64,
    mended: u64,
    /// Files that are damaged now, as far as is known.
    damaged: u64,
    last: Option<String>,
}

/// One ledger under the search.
struct Place {
    ledger: LedgerId,
    scrubber: Scrubber,
}

impl Scrub {
    /// Starts the search in `ledgers` of the process `own`.
    pub(crate) fn start(
        topology: &Topology,
        own: &str,
        ledgers: impl IntoIterator<Item = (LedgerId, LedgerReader)>,
        pace: Pace,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let found = Arc::new(Mutex::new(Found::default()));
        if pace.scrub_rate > 0 {
            let place = |(ledger, reader): (LedgerId, LedgerReader)| Place {
                ledger,
                scrubber: reader.scrubber(),
            };
            let search = Search {
                places: ledgers.into_iter().map(place).collect(),
                peers: peers(topology, own),
                pace,
                stopped,
                found: Arc::clone(&found),
            };
            thread::Builder::new().name("scrub".into()).spawn(move || search.run())?;
        }
        Ok(Self { found, _stop: stop })
    }

    /// For `status`.
    pub(crate) fn status(&self) -> impl Fn() -> Value + Send + Sync + use<> {
        let found = Arc::clone(&self.found);
        move || {
            let found = found.lock().unwrap_or_else(PoisonError::into_inner);
            let Found { passes, bytes, mended, damaged, last } = &*found;
            json!({ "passes": passes, "bytes": bytes, "mended": mended, "damaged": damaged, "last": last })
        }
    }
}

/// The HTTP addresses of the other processes; those of the same site first.
fn peers(topology: &Topology, own: &str) -> Vec<String> {
    let near =
        topology.sites.iter().find(|site| site.nodes.iter().any(|it| it.name.as_str() == own));
    let is_near = |name: &str| {
        near.is_some_and(|site| site.nodes.iter().any(|node| node.name.as_str() == name))
    };
    let address = topology.process(own).map(|process| process.ports().http());
    let others = topology.processes().filter(|process| Some(process.ports().http()) != address);
    let mut others: Vec<_> = others
        .map(|process| {
            (!is_near(process.name().as_str()), format!("http://{}", process.ports().http()))
        })
        .collect();
    others.sort_by_key(|(far, _)| *far);
    others.into_iter().map(|(_, url)| url).collect()
}

/// The thread's own.
struct Search {
    places: Vec<Place>,
    peers: Vec<String>,
    pace: Pace,
    stopped: Receiver<()>,
    found: Arc<Mutex<Found>>,
}

impl Search {
    fn run(mut self) {
        let mut places = std::mem::take(&mut self.places);
        loop {
            let mut damaged = 0;
            for Place { ledger, scrubber } in &mut places {
                while let Some(checked) = scrubber.step() {
                    if let Some(fault) = &checked.fault {
                        damaged += u64::from(!self.mend(ledger, scrubber, fault));
                    }
                    self.note(|found| found.bytes += checked.bytes);
                    let rate = u64::from(self.pace.scrub_rate) << 20;
                    if self.pause(Duration::from_micros(checked.bytes * 1_000_000 / rate)) {
                        return;
                    }
                }
            }
            self.note(|found| {
                found.passes += 1;
                found.damaged = damaged;
            });
            let pause = Duration::from_secs(self.pace.scrub_pause.into());
            if self.pause(if damaged > 0 { pause.min(RETRY) } else { pause }) {
                return;
            }
        }
    }

    /// Waits; whether the search is to end.
    fn pause(&self, time: Duration) -> bool {
        !matches!(self.stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    fn note(&self, change: impl FnOnce(&mut Found)) {
        change(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks one process after the other; whether the file is whole again.
    fn mend(&self, ledger: &LedgerId, scrubber: &Scrubber, fault: &Fault) -> bool {
        tracing::error!(%ledger, %fault, "bit rot; the file is to be made again from another process");
        self.note(|found| {
            found.damaged = found.damaged.max(1);
            found.last = Some(format!("{ledger}: {fault}"));
        });
        for url in &self.peers {
            let peer = match HttpPeer::new(&format!("{url}/log/{ledger}")) {
                Ok(peer) => peer,
                Err(error) => {
                    tracing::warn!(%ledger, url, error = format!("{error:#}"), "no help from here");
                    continue;
                }
            };
            match scrubber.mend(fault, &peer) {
                Ok(()) => {
                    tracing::warn!(%ledger, url, "made again; the damaged file is kept in `damaged`");
                    self.note(|found| found.mended += 1);
                    return true;
                }
                Err(error) => tracing::warn!(%ledger, url, %error, "not made again from here"),
            }
        }
        tracing::error!(%ledger, "nobody could help; tried again later");
        false
    }
}
