//! The deployment that a scenario plays on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tradewind_local::network::LinkFault;
use tradewind_local::{
    Addresses, Contenders, Deployment, Faults, Launcher, Network, Shim, SmallDisk,
};

use super::command::{Command, Scope};
use super::redact::Redact;
use super::requests::Kept;
use super::writers::Writers;

/// How often a state that can only be polled is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A deployment with everything that makes its life hard. Fields are dropped in this order: clients, processes, disks.
pub(crate) struct Stage {
    pub(crate) writers: Option<Writers>,
    pub(crate) contenders: Option<Contenders>,
    pub(crate) answers: BTreeMap<String, Kept>,
    pub(crate) deployment: Deployment,
    pub(crate) network: Option<Network>,
    pub(crate) disks: BTreeMap<String, SmallDisk>,
    pub(crate) faults: BTreeMap<String, Faults>,
    /// Where in its log the latest start of a process begins.
    pub(crate) log_starts: BTreeMap<String, usize>,
    interrupted: Arc<AtomicBool>,
}

impl Stage {
    /// Writes the deployment into `dir`, and sets up what its scenario wants; nothing is started.
    ///
    /// # Errors
    /// What cannot be had.
    pub(crate) fn set_up(
        scope: &Scope,
        dir: &Path,
        interrupted: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("finding the own executable")?;
        let names = scope.plan.process_names();
        let mut deployment = Deployment::create(dir, &binary, scope.plan.clone())?;
        let isolated = scope.plan.addresses == Addresses::Namespaces;
        let network = match isolated {
            true => Some(Network::create(names.iter().map(String::as_str))?),
            false => None,
        };
        let mut disks = BTreeMap::new();
        for (name, mib) in &scope.disks {
            let disk = SmallDisk::mount(&deployment.data(name), *mib);
            disks.insert(name.clone(), disk.with_context(|| format!("a disk for {name}"))?);
        }
        let mut faults = BTreeMap::new();
        if scope.wants_faults {
            let beside = dir.join("faults");
            std::fs::create_dir_all(&beside)?;
            let shim = Shim::build(&beside)?;
            for name in &names {
                faults.insert(name.clone(), shim.faults(name, &deployment.data(name))?);
            }
        }
        for name in &names {
            let mut launcher = Launcher::default();
            if isolated {
                launcher.prefix = Network::prefix(name);
            }
            if let Some((_, files)) = scope.limits.iter().find(|(limited, _)| limited == name) {
                launcher.prefix.push("prlimit".into());
                launcher.prefix.push(format!("--nofile={files}").into());
            }
            if let Some(faults) = faults.get(name) {
                launcher.environment = faults.environment();
            }
            deployment.set_launcher(name, launcher);
        }
        let (writers, contenders, answers, log_starts) = Default::default();
        Ok(Self {
            writers,
            contenders,
            answers,
            deployment,
            network,
            disks,
            faults,
            log_starts,
            interrupted,
        })
    }

    /// Does what a command says; gives the lines to print.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub(crate) async fn perform(&mut self, command: &Command) -> anyhow::Result<String> {
        match command {
            Command::Declared => Ok(String::new()),
            Command::Process { verb, names } => self.process(*verb, names).await,
            Command::Exit { name } => self.exit(name).await,
            Command::Link { ways, fault } => {
                let network = self.network()?;
                ways.iter().try_for_each(|(from, to)| network.set(from, to, *fault))?;
                Ok(String::new())
            }
            Command::Flap { one, other, times } => self.flap(one, other, *times).await,
            Command::RefuseMemory { name } => {
                self.deployment.refuse_memory(name)?;
                Ok(String::new())
            }
            Command::Partition { groups } => self.partition(groups),
            Command::HealLinks => {
                self.network()?.heal()?;
                Ok(String::new())
            }
            Command::Disk { name, change } => self.disk(name, *change),
            Command::Files(change) => self.files(change),
            Command::Request(request) => self.request(request).await,
            Command::Tradewind(arguments) => self.tradewind(arguments),
            Command::Writers(count) => self.start_writers(*count).await,
            Command::StopWriters => self.stop_writers().await,
            Command::Contenders(count) => self.start_contenders(*count).await,
            Command::CheckHistory => self.check_history().await,
            Command::CheckViews { names, most } => self.check_views(names, *most),
            Command::CheckWrites { names } => self.check_writes(names).await,
            Command::Status { names } => Ok(self.status(names)),
            Command::Audit { names } => self.audit(names).await,
            Command::Compare { names } => self.compare(names).await,
            Command::Wait { until, limit } => self.wait(until, *limit).await,
        }
    }

    fn network(&mut self) -> anyhow::Result<&mut Network> {
        self.network.as_mut().context("the links of this deployment cannot be cut")
    }

    /// Cuts a link for longer than the others wait for a sign of life, and heals it for about as long.
    async fn flap(&mut self, one: &str, other: &str, times: u32) -> anyhow::Result<String> {
        let suspect = self.deployment.topology().timeouts.suspect;
        let ways = [(one, other), (other, one)];
        for _ in 0..times {
            for fault in [Some(LinkFault::Cut), None] {
                let network = self.network()?;
                ways.iter().try_for_each(|(from, to)| network.set(from, to, fault))?;
                // Not to wait for anything: it is the pace of the fault.
                tokio::time::sleep(suspect * 3 / 2).await;
            }
        }
        Ok(String::new())
    }

    fn partition(&mut self, groups: &[Vec<String>]) -> anyhow::Result<String> {
        let network = self.network()?;
        for (index, group) in groups.iter().enumerate() {
            let others = groups.iter().enumerate().filter(|(other, _)| *other != index);
            for (from, to) in others.flat_map(|(_, other)| pairs(group, other)) {
                network.set(from, to, Some(tradewind_local::network::LinkFault::Cut))?;
            }
        }
        Ok(String::new())
    }

    /// The text without what differs from run to run.
    pub(crate) fn redact(&self, what: Redact, text: &str) -> String {
        what.text(text, self.deployment.dir())
    }

    /// Asks until the answer is `Ok`.
    ///
    /// # Errors
    /// The last answer, when it is not within `limit`; that the scenario was interrupted.
    pub(crate) async fn eventually<T>(
        &mut self,
        limit: Duration,
        mut ask: impl AsyncFnMut(&mut Self) -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            match ask(self).await? {
                Ok(answer) => return Ok(answer),
                Err(last) if Instant::now() > deadline => {
                    let last = self.redact(Redact::Numbers, &last);
                    bail!("not within {} s: {last}", limit.as_secs())
                }
                Err(_) => self.check_interrupted()?,
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// # Errors
    /// If the scenario was interrupted.
    pub(crate) fn check_interrupted(&self) -> anyhow::Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

fn pairs<'a>(
    from: &'a [String],
    to: &'a [String],
) -> impl Iterator<Item = (&'a String, &'a String)> {
    from.iter().flat_map(|from| to.iter().map(move |to| (from, to)))
}
