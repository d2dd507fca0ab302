//! The processes of a local deployment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use thiserror::Error;
use tradewind_topology::{Ports, Topology};

use crate::plan::{self, Plan, PlanError};

/// How often a state that can only be polled is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What can go wrong with the processes of a deployment.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The deployment could not be written down.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A process could not be started or reached.
    #[error("{name}: {action}: {source}")]
    Io {
        /// The process.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A name that the deployment does not have, or a process in the wrong state.
    #[error("{name}: {found}; the deployment runs: {running}")]
    State {
        /// The process.
        name: String,
        /// What was found.
        found: &'static str,
        /// The names of the running processes.
        running: String,
    },
    /// The process ended instead of becoming ready.
    #[error("{name} ended with {status} before it was ready; the end of {log}:\n{tail}", log = .log.display())]
    Ended {
        /// The process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A client could not be connected.
    #[error("connecting a client to {names}: {reason}")]
    Client {
        /// To whom.
        names: String,
        /// What went wrong.
        reason: String,
    },
    /// The process did not become ready in time.
    #[error("{name} was not ready after {waited:?}: {last}; its log is {log}", log = .log.display())]
    NotReady {
        /// The process.
        name: String,
        /// How long was waited.
        waited: Duration,
        /// The last answer.
        last: String,
        /// Its log file.
        log: PathBuf,
    },
}

/// A deployment on this machine: its files and its running processes.
///
/// Dropping it kills what still runs.
#[derive(Debug)]
pub struct Deployment {
    plan: Plan,
    topology: Topology,
    dir: PathBuf,
    binary: PathBuf,
    launchers: BTreeMap<String, Launcher>,
    running: BTreeMap<String, Child>,
}

/// What a process is started with.
#[derive(Clone, Debug, Default)]
pub struct Launcher {
    /// A program, and its arguments, that becomes the process: it is put before the command.
    pub prefix: Vec<OsString>,
    /// Variables of its environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl Deployment {
    /// Writes topology and keys of `plan` into `dir` (made if missing; an existing deployment there is used as it is).
    /// `binary` is the `tradewind` executable to run.
    ///
    /// # Errors
    /// When `dir` cannot be written or no ports are free.
    pub fn create(dir: &Path, binary: &Path, plan: Plan) -> Result<Self, ProcessError> {
        let topology = plan.write(dir)?;
        let (dir, binary) = (dir.into(), binary.into());
        let (launchers, running) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { plan, topology, dir, binary, launchers, running })
    }

    /// The topology file.
    #[must_use]
    pub fn topology_file(&self) -> PathBuf {
        self.dir.join("topology.toml")
    }

    /// The topology that the file describes.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Reads the topology file again, which somebody changed.
    ///
    /// # Errors
    /// When it does not hold.
    pub fn reload(&mut self) -> Result<(), ProcessError> {
        self.topology = plan::read(&self.topology_file())?;
        Ok(())
    }

    /// The directory that holds everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory of one process.
    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.join("data").join(name)
    }

    /// The plan that was written down.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The log file of one process.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// The HTTP address of one process, without a trailing slash.
    ///
    /// # Panics
    /// If the plan has no such process.
    #[must_use]
    pub fn http(&self, name: &str) -> String {
        format!("http://{}", self.ports(name).http())
    }

    /// The client address of one process.
    ///
    /// # Panics
    /// If the plan has no such process.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> String {
        self.ports(name).client().to_string()
    }

    fn ports(&self, name: &str) -> Ports {
        let mut processes = plan::processes(&self.topology);
        let found = processes.find(|(own, _)| *own == name);
        found.unwrap_or_else(|| panic!("no process {name}")).1
    }

    /// Starts every process of the plan that does not run yet.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start_all(&mut self) -> Result<(), ProcessError> {
        for name in self.plan.process_names() {
            if !self.running.contains_key(&name) {
                self.start(&name)?;
            }
        }
        Ok(())
    }

    /// Sets what one process is started with, from its next start on.
    pub fn set_launcher(&mut self, name: &str, launcher: Launcher) {
        self.launchers.insert(name.into(), launcher);
    }

    /// Starts one process; its log is appended to `logs/NAME.log`.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn start(&mut self, name: &str) -> Result<(), ProcessError> {
        if self.running.contains_key(name) {
            return Err(self.state_error(name, "runs already"));
        }
        let io = |action| move |source| ProcessError::Io { name: name.into(), action, source };
        fs::create_dir_all(self.dir.join("logs")).map_err(io("making the log directory"))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(name))
            .map_err(io("opening the log file"))?;
        let launcher = self.launchers.get(name).cloned().unwrap_or_default();
        let mut words = launcher.prefix;
        words.push(self.binary.clone().into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(launcher.environment)
            .arg("serve")
            .arg("--topology")
            .arg(self.topology_file())
            .arg("--exit-with-stdin")
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // A Ctrl-C on the terminal reaches the starter alone, which then ends its processes in order.
            .process_group(0)
            .spawn()
            .map_err(io("starting the process"))?;
        self.running.insert(name.into(), child);
        Ok(())
    }

    /// Waits until every running process says it is ready.
    ///
    /// # Errors
    /// When one ends, or is not ready within `limit`.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), ProcessError> {
        let deadline = Instant::now() + limit;
        for name in self.running() {
            self.wait_ready_one(&name, deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// Waits until one process is [`ready`](Self::ready).
    ///
    /// # Errors
    /// When it ends, or is not ready within `limit`.
    pub fn wait_ready_one(&mut self, name: &str, limit: Duration) -> Result<(), ProcessError> {
        let deadline = Instant::now() + limit;
        loop {
            let Err(last) = self.ready(name)? else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(ProcessError::NotReady {
                    name: name.into(),
                    waited: limit,
                    last,
                    log: self.log(name),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether a process says it is ready: `GET /readyz` answers 200. If not, what it says instead.
    ///
    /// # Errors
    /// When it does not run, or has ended.
    pub fn ready(&mut self, name: &str) -> Result<Result<(), String>, ProcessError> {
        if let Some(status) = self.exited(name)? {
            let tail = tail(&self.log(name));
            return Err(ProcessError::Ended {
                name: name.into(),
                status,
                log: self.log(name),
                tail,
            });
        }
        Ok(match self.fetch(name, "/readyz") {
            Ok((200, _)) => Ok(()),
            Ok((status, text)) => Err(format!("/readyz says {status}: {}", text.trim())),
            Err(error) => Err(error.to_string()),
        })
    }

    /// How a process ended, if it did; it then no longer counts as running.
    ///
    /// # Errors
    /// When no such process runs or the system cannot tell.
    pub fn exited(&mut self, name: &str) -> Result<Option<ExitStatus>, ProcessError> {
        let unknown = self.state_error(name, "does not run");
        let child = self.running.get_mut(name).ok_or(unknown)?;
        let status = child.try_wait().map_err(|source| ProcessError::Io {
            name: name.into(),
            action: "asking for the exit status",
            source,
        })?;
        if status.is_some() {
            self.running.remove(name);
        }
        Ok(status)
    }

    /// Waits until a process ends by itself.
    ///
    /// # Errors
    /// When no such process runs, or it still runs after `limit`.
    pub fn wait_exit(&mut self, name: &str, limit: Duration) -> Result<ExitStatus, ProcessError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited(name)? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(self.state_error(name, "still runs"));
            }
            std::thread::sleep(POLL);
        }
    }

    /// What a process answers to `GET PATH`: the HTTP status and the text.
    ///
    /// # Errors
    /// When it cannot be reached within some seconds.
    pub fn fetch(&self, name: &str, path: &str) -> Result<(u16, String), ProcessError> {
        let failed = |error: ureq::Error| ProcessError::Io {
            name: name.into(),
            action: "an HTTP request",
            source: std::io::Error::other(error),
        };
        let mut answer =
            agent().get(format!("{}{path}", self.http(name))).call().map_err(failed)?;
        let text = answer.body_mut().read_to_string().map_err(failed)?;
        Ok((answer.status().as_u16(), text))
    }

    /// CPU time that a running process has used, in user and system mode together; resolution 10 ms.
    ///
    /// # Errors
    /// When no such process runs.
    pub fn cpu_time(&self, name: &str) -> Result<Duration, ProcessError> {
        let pid = self.pid(name).ok_or_else(|| self.state_error(name, "does not run"))?;
        cpu_time(pid).map_err(|source| ProcessError::Io {
            name: name.into(),
            action: "reading its CPU time",
            source,
        })
    }

    /// The process id of a running process.
    #[must_use]
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.running.get(name).map(Child::id)
    }

    /// The names of the running processes, sorted.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        self.running.keys().cloned().collect()
    }

    /// Kills one process (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// When no such process runs.
    pub fn kill(&mut self, name: &str) -> Result<(), ProcessError> {
        self.end(name, Signal::KILL).map(drop)
    }

    /// Kills every process at once: all signals are sent before the first end is waited for.
    ///
    /// # Errors
    /// When the system refuses a signal.
    pub fn kill_all(&mut self) -> Result<(), ProcessError> {
        let names = self.running();
        for name in &names {
            self.signal(name, Signal::KILL)?;
        }
        names.iter().try_for_each(|name| self.end(name, Signal::KILL).map(drop))
    }

    /// Asks one process to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When no such process runs.
    pub fn stop(&mut self, name: &str) -> Result<ExitStatus, ProcessError> {
        self.end(name, Signal::TERM)
    }

    /// Asks all processes to end, then waits for each.
    ///
    /// # Errors
    /// When the system refuses a signal.
    pub fn stop_all(&mut self) -> Result<(), ProcessError> {
        let names = self.running();
        for name in &names {
            self.signal(name, Signal::TERM)?;
        }
        names.iter().try_for_each(|name| self.end(name, Signal::TERM).map(drop))
    }

    /// Sends a signal to a running process (to pause it: STOP and CONT).
    ///
    /// # Errors
    /// When no such process runs or the system refuses.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<(), ProcessError> {
        let child = self.running.get(name).ok_or_else(|| self.state_error(name, "does not run"))?;
        let pid = Pid::from_child(child);
        rustix::process::kill_process(pid, signal).map_err(|errno| ProcessError::Io {
            name: name.into(),
            action: "sending a signal",
            source: errno.into(),
        })
    }

    /// Lets a running process get no more memory: the limit of its address space (RLIMIT_AS) is set below what it has.
    ///
    /// # Errors
    /// When no such process runs or the system refuses.
    pub fn refuse_memory(&self, name: &str) -> Result<(), ProcessError> {
        let child = self.running.get(name).ok_or_else(|| self.state_error(name, "does not run"))?;
        let least = Some(1 << 20);
        let limit = Rlimit { current: least, maximum: least };
        let set = rustix::process::prlimit(Some(Pid::from_child(child)), Resource::As, limit);
        set.map(drop).map_err(|errno| ProcessError::Io {
            name: name.into(),
            action: "limiting its memory",
            source: errno.into(),
        })
    }

    fn end(&mut self, name: &str, signal: Signal) -> Result<ExitStatus, ProcessError> {
        self.signal(name, signal)?;
        let missing = self.state_error(name, "does not run");
        let mut child = self.running.remove(name).ok_or(missing)?;
        child.wait().map_err(|source| ProcessError::Io {
            name: name.into(),
            action: "waiting for the end",
            source,
        })
    }

    fn state_error(&self, name: &str, found: &'static str) -> ProcessError {
        ProcessError::State { name: name.into(), found, running: self.running().join(", ") }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // An error here means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// CPU time that a process has used, in user and system mode together, from `/proc/PID/stat` (proc(5)).
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> std::io::Result<Duration> {
    cpu_time_in(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
        .ok_or_else(|| std::io::Error::other(format!("/proc/{pid}/stat is not as proc(5) says")))
}

/// Fields 14 and 15, in ticks of 1/100 s; the second field is the name in parentheses and may hold anything.
fn cpu_time_in(stat: &str) -> Option<Duration> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * ticks()?.checked_add(ticks()?)?))
}

/// An HTTP agent with short time limits that takes any status for an answer.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        .http_status_as_error(false)
        .build()
        .new_agent()
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_process_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1 2 3";
        assert_eq!(cpu_time_in(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_time_in("42 (a) S 1"), None);
        assert_eq!(cpu_time_in(""), None);
    }

    #[test]
    fn own_cpu_time_grows_with_work() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut sum = 0u64;
        while cpu_time(std::process::id()).unwrap() < before + Duration::from_millis(30) {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
