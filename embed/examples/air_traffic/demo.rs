//! Three towers, and what is done to them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tradewind_local::{Deployment, Plan as Layout};
use tradewind_store::GRACE;

use crate::ledgers;
use crate::plans::{Command, Reply, Version};
use crate::tower::{Event, NAME, PACE, POOL, RUNWAYS, TTL};

/// Generous: the machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much work is to be done before something happens to the towers.
const WORK: usize = 200;
/// The exit code of a tower that is to be started again.
const AGAIN: i32 = 6;

/// Plays the whole story.
pub(crate) fn run(dir: Option<PathBuf>, aloud: bool) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let dir = dir.unwrap_or_else(|| scratch.path().to_owned());
    let mut towers = Towers::start(&dir, aloud)?;
    let bound = towers.bound();
    towers.say(format_args!(
        "three towers, each a process and a member of one site; runways {}; a controller's lease lasts {TTL:?}",
        RUNWAYS.join(" and ")
    ));
    towers.work("the towers to work")?;

    let victim = towers.controller(RUNWAYS[1])?;
    towers.say(format_args!("kill -9 {victim}, which controls runway {}", RUNWAYS[1]));
    let after_kill = towers.take_over(&victim, Signal::KILL)?;
    towers.work("the others to go on")?;
    towers.spawn(&victim)?;
    towers.say(format_args!("{victim} is started again"));
    let began = towers.await_event("the killed tower to be back", |name, event| match event {
        Event::Began { applied } if name == victim => Some(*applied),
        _ => None,
    })?;
    towers.say(format_args!("{victim} begins with a snapshot of {began} commands"));
    towers.full_view()?;
    towers.work("all three to work")?;

    let victim = towers.controller(RUNWAYS[0])?;
    towers.say(format_args!("{victim}, which controls runway {}, is stopped as it is", RUNWAYS[0]));
    let after_stop = towers.take_over(&victim, Signal::STOP)?;
    towers.signal(&victim, Signal::CONT)?;
    towers.say(format_args!("{victim} goes on, and believes itself in control"));
    towers.fenced(&victim)?;
    towers.full_view()?;
    towers.work("all three to work again")?;
    let mut report = towers.end()?;
    for (key, took) in
        [("takeover_after_kill_ms", after_kill), ("takeover_after_stop_ms", after_stop)]
    {
        report[key] = json!(took.as_millis() as u64);
    }
    report["bound_ms"] = json!(bound.as_millis() as u64);
    if aloud {
        println!(
            "\nNo runway had two controllers, no flight two plans, no command came twice: in the ledgers of all three, and in what each tower was told."
        );
    } else {
        println!("{report}");
    }
    Ok(())
}

/// The processes, and what they said.
struct Towers {
    deployment: Deployment,
    running: BTreeMap<String, Child>,
    sender: Sender<(String, Event)>,
    events: Receiver<(String, Event)>,
    said: Vec<(String, Event)>,
    /// Where the present step begins in what was said.
    step: usize,
    aloud: bool,
    began: Instant,
}

impl Towers {
    fn start(dir: &Path, aloud: bool) -> anyhow::Result<Self> {
        let mut layout = Layout::one_site(3, 1);
        layout.pools[0].name = POOL.into();
        let deployment = Deployment::create(dir, Path::new("unused"), layout)?;
        let (sender, events) = channel();
        let (running, said, began) = (BTreeMap::new(), Vec::new(), Instant::now());
        let mut towers = Self { deployment, running, sender, events, said, step: 0, aloud, began };
        for name in towers.deployment.plan().process_names() {
            towers.spawn(&name)?;
        }
        Ok(towers)
    }

    /// How long a runway may be without a controller: until its lease is over, and the others have noticed that their
    /// member is lost, and looked.
    fn bound(&self) -> Duration {
        TTL + GRACE + self.deployment.topology().timeouts.suspect + 2 * PACE
    }

    fn say(&self, line: std::fmt::Arguments<'_>) {
        if self.aloud {
            println!("{:8.3} s  {line}", self.began.elapsed().as_secs_f64());
        }
    }

    fn spawn(&mut self, name: &str) -> anyhow::Result<()> {
        let log = self.deployment.log(name);
        std::fs::create_dir_all(log.parent().context("a directory")?)?;
        let mut child = Process::new(std::env::current_exe()?)
            .args(["tower", name, "--topology"])
            .arg(self.deployment.topology_file())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(log)?)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let (sender, tower) = (self.sender.clone(), name.to_owned());
        std::thread::spawn(move || {
            // A line that is cut off is of a process that was killed.
            for event in lines.map_while(Result::ok).filter_map(|l| serde_json::from_str(&l).ok()) {
                if sender.send((tower.clone(), event)).is_err() {
                    return;
                }
            }
        });
        self.running.insert(name.into(), child);
        Ok(())
    }

    /// Waits until something is said that `find` finds, from now on.
    fn await_event<T>(
        &mut self,
        what: &str,
        mut find: impl FnMut(&str, &Event) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some((name, event)) = self.said.get(self.step) {
                self.step += 1;
                if let Some(found) = find(name, event) {
                    return Ok(found);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((name, event)) = self.events.recv_timeout(left) else {
                bail!("waited in vain for {what}");
            };
            self.narrate(&name, &event);
            self.said.push((name, event));
        }
    }

    fn narrate(&self, name: &str, event: &Event) {
        match event {
            Event::View { id, members, .. } => {
                self.say(format_args!("{name} is in view {id} of {}", members.join(", ")));
            }
            Event::Suspended { why } => self.say(format_args!("{name} is in no view: {why}")),
            Event::Told {
                command: Command::Take { runway, .. },
                reply: Reply::Granted(token),
                ..
            } => {
                self.say(format_args!("{name} controls runway {runway}, token {token}"));
            }
            Event::Told {
                command: Command::Clear { runway, token, .. } | Command::Renew { runway, token },
                reply: Reply::Fenced { newest },
                ..
            } => {
                let newest = newest.map_or("none".into(), |newest| newest.to_string());
                self.say(format_args!(
                    "{name} is refused on runway {runway}: its token {token} is over, the newest is {newest}"
                ));
            }
            _ => {}
        }
    }

    /// Waits until some more commands were answered.
    fn work(&mut self, what: &str) -> anyhow::Result<()> {
        let mut answered = 0;
        self.await_event(what, |_, event| {
            answered += usize::from(matches!(event, Event::Told { .. }));
            (answered == WORK).then_some(())
        })
    }

    /// The tower that was granted a runway last.
    fn controller(&self, runway: &str) -> anyhow::Result<String> {
        let granted =
            self.grants().filter(|(_, of, _)| *of == runway).max_by_key(|(_, _, token)| *token);
        granted
            .map(|(name, _, _)| name.to_owned())
            .ok_or_else(|| anyhow!("nobody controls {runway}"))
    }

    /// Who was granted which runway under which token.
    fn grants(&self) -> impl Iterator<Item = (&str, &str, Version)> {
        self.said.iter().filter_map(|(name, event)| granted(name, event))
    }

    fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.running[name]);
        kill_process(pid, signal).with_context(|| format!("a signal to {name}"))
    }

    /// Takes a tower out of the game and waits until others control all its runways: how long that took.
    fn take_over(&mut self, victim: &str, signal: Signal) -> anyhow::Result<Duration> {
        let mut runways: Vec<String> = RUNWAYS.iter().map(|&runway| runway.into()).collect();
        runways.retain(|runway| self.controller(runway).is_ok_and(|name| name == victim));
        let struck = Instant::now();
        self.signal(victim, signal)?;
        if signal == Signal::KILL {
            self.running.remove(victim).context("it ran")?.wait()?;
        }
        while !runways.is_empty() {
            let taken = self.await_event("a take-over", |name, event| {
                let (_, runway, _) = granted(name, event).filter(|(name, _, _)| *name != victim)?;
                Some(runway.to_owned())
            })?;
            runways.retain(|runway| *runway != taken);
        }
        let took = struck.elapsed();
        self.say(format_args!(
            "taken over after {} ms; the bound is {} ms",
            took.as_millis(),
            self.bound().as_millis()
        ));
        Ok(took)
    }

    /// Waits until a tower that was stopped learns that it is in control no more; or ends by itself, to be started again.
    fn fenced(&mut self, victim: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let child = self.running.get_mut(victim).context("it runs")?;
            if let Some(status) = child.try_wait()? {
                if status.code() != Some(AGAIN) {
                    bail!("{victim} ended with {status}");
                }
                self.say(format_args!("{victim} begins anew"));
                return self.spawn(victim);
            }
            let told = self.said[self.step..].iter().position(|(name, event)| {
                name == victim && matches!(event, Event::Told { reply: Reply::Fenced { .. }, .. })
            });
            if let Some(at) = told {
                self.step += at;
                return Ok(());
            }
            self.step = self.said.len();
            if let Ok((name, event)) = self.events.recv_timeout(PACE) {
                self.narrate(&name, &event);
                self.said.push((name, event));
            }
        }
        bail!("{victim} was never told that its token is over")
    }

    /// Waits until some tower says that all are in its view, unless that was said last.
    fn full_view(&mut self) -> anyhow::Result<()> {
        let members = |event: &Event| match event {
            Event::View { members, .. } => Some(members.len()),
            _ => None,
        };
        let last = self.said.iter().rev().find_map(|(_, event)| members(event));
        if last == Some(self.running.len()) {
            return Ok(());
        }
        let all = self.running.len();
        self.await_event("a view of all", |_, event| members(event).filter(|n| *n == all).map(drop))
    }

    /// Ends all towers, and checks their ledgers and what they were told.
    fn end(mut self) -> anyhow::Result<serde_json::Value> {
        for child in self.running.values_mut() {
            drop(child.stdin.take());
        }
        for (name, child) in &mut self.running {
            let status = child.wait()?;
            if !status.success() {
                bail!("{name} ended with {status}; see {}", self.deployment.log(name).display());
            }
        }
        self.say(format_args!("all towers ended; their ledgers are read"));
        // The threads that read their output end with it.
        let Self { deployment, sender, events, mut said, running, .. } = self;
        drop(sender);
        said.extend(events);
        let ledger = |name: &String| {
            ledgers::entries(&deployment.data(name).join("ledgers").join(format!("{POOL}.0")))
        };
        let ledgers = running.keys().map(ledger).collect::<Result<Vec<_>, _>>();
        let checked = ledgers.and_then(|ledgers| check(ledgers, &said));
        checked.map_err(|fault| anyhow!("it does not hold: {fault}"))
    }
}

fn granted<'a>(name: &'a str, event: &'a Event) -> Option<(&'a str, &'a str, Version)> {
    match event {
        Event::Told {
            command: Command::Take { runway, .. }, reply: Reply::Granted(token), ..
        } => Some((name, runway, *token)),
        _ => None,
    }
}

fn check(
    ledgers: Vec<Vec<tradewind_ledger::Entry>>,
    said: &[(String, Event)],
) -> Result<serde_json::Value, String> {
    let members = ledgers.len();
    let played = ledgers::play(&ledgers::one_history(ledgers)?, NAME)?;
    let counts = ledgers::check(&played)?;
    let told: Vec<_> = said
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Told { strip, version, reply, .. } => {
                Some((strip.clone(), *version, reply.clone()))
            }
            _ => None,
        })
        .collect();
    ledgers::check_told(&played, &told)?;
    let mut refused = 0;
    for (name, event) in said {
        match event {
            Event::Failed { strip, not_applied: true, .. } => {
                refused += 1;
                if played.iter().any(|played| played.sent.strip == *strip) {
                    return Err(format!(
                        "{strip:?} was applied, and {name} was told that it was not"
                    ));
                }
            }
            Event::Ended { applied, last } => {
                let there = played.iter().filter(|played| played.at.version.0 <= *last).count();
                if *applied != there as u64 {
                    return Err(format!(
                        "{name} applied {applied} commands; up to version {last} there are {there}"
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(json!({
        "members": members,
        "commands": counts.commands,
        "plans": counts.plans,
        "clearances": counts.clearances,
        "grants": counts.grants,
        "fenced": counts.fenced,
        "told": told.len(),
        "not_applied": refused,
    }))
}
