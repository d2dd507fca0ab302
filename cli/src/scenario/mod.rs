//! `tradewind scenario run`: narrated text with golden output, played with real processes.
//!
//! - [`script`]: a file's prose, commands and expectations; [`command`], [`request`], [`words`]: the language
//! - [`stage`]: the deployment it is played on; [`processes`], [`disks`], [`requests`], [`writers`], [`checks`]: what
//!   the commands do; [`redact`]: what is left out of what they print
//!
//! A scenario that cuts links or fills disks runs in a container: the command starts itself again in there, so that the
//! kernel takes everything down when it ends, however it ends.

mod checks;
mod command;
mod disks;
mod history;
mod processes;
mod redact;
mod request;
mod requests;
mod script;
mod stage;
mod words;
mod writers;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tradewind_local::container;

use crate::connect::block_on;
use crate::exit::Exit;
use crate::output::Output;
use crate::scratch::Scratch;
use script::Script;
use stage::Stage;

/// Play scenarios: processes, faults and requests told in a text file, with what is expected of them
#[derive(Subcommand, Debug)]
pub(crate) enum ScenarioCommand {
    Run(RunArgs),
}

/// Play scenario files and hold what happens against what they expect
#[derive(Args, Debug)]
#[command(after_help = "\
A file mixes prose, commands, and below each command the output that is expected:

  # A node that is cut off takes no writes.
  > site ams with 3 nodes
  > start all
  ready: ams-1, ams-2, ams-3
  > cut ams-3 -- ams-1
  > put runway/27L open --at ams-3 --within 3 s
  certainly not executed: [..]

docs/scenarios.md has the whole language. Links are cut and disks filled for real, in namespaces of the
kernel that vanish with the command: that needs root, or user namespaces, and the packages util-linux,
mount, iproute2, nftables.

Exit code 1 if something else happens than is expected; it is then shown. 2 if a file makes no sense.

Examples:
  tradewind scenario run tests/scenarios/one-way-cut.txt
  tradewind scenario run --keep /tmp/look my.txt
  tradewind scenario run --bless my.txt && git diff my.txt")]
pub(crate) struct RunArgs {
    /// The scenarios
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Keep topology, keys, data and logs of each scenario below this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Write what happens into the files, as what is expected from now on
    #[arg(long, env = "BLESS", hide_env = true, value_parser = clap::builder::FalseyValueParser::new())]
    bless: bool,
}

/// What came of a scenario.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    file: PathBuf,
    holds: bool,
    /// Commands that were played.
    steps: usize,
    /// The first command that did something else than expected.
    mismatch: Option<Mismatch>,
    /// Whether the file was written anew.
    blessed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mismatch {
    line: usize,
    command: String,
    expected: Vec<String>,
    found: Vec<String>,
    /// The end of each process' log.
    logs: Vec<String>,
}

impl ScenarioCommand {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Exit> {
        let Self::Run(args) = self;
        args.run(output)
    }
}

impl RunArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        // All of them are read first: a mistake in the last one shows before the first one is played.
        let scripts: Vec<Script> =
            self.files.iter().map(|file| read(file)).collect::<anyhow::Result<_>>()?;
        let mut outcomes = Vec::new();
        for (file, script) in self.files.iter().zip(scripts) {
            let isolated = script.scope.wants_container && container::inside().is_none();
            let outcome = match isolated {
                true => self.play_in_container(file)?,
                false => block_on(self.play(file, &script, output))?,
            };
            if !output.is_json() {
                output.print(&outcome, text)?;
            }
            outcomes.push(outcome);
        }
        if output.is_json() {
            output.print(&outcomes, |_| String::new())?;
        }
        let holds = outcomes.iter().all(|outcome| outcome.holds || outcome.blessed);
        Ok(if holds { Exit::Done } else { Exit::No })
    }

    fn play_in_container(&self, file: &Path) -> anyhow::Result<Outcome> {
        let binary = std::env::current_exe().context("finding the own executable")?;
        let mut command = container::command(&binary)?;
        command.args(["scenario", "run", "-o", "json"]).arg(file);
        if let Some(keep) = &self.keep {
            command.arg("--keep").arg(keep);
        }
        command.env_remove("BLESS");
        if self.bless {
            command.arg("--bless");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting a container")?;
        // Held until the end: its closing tells the program in there that this one is gone.
        let _stdin = child.stdin.take();
        let output = child.wait_with_output()?;
        let outcomes = serde_json::from_slice::<Vec<Outcome>>(&output.stdout).unwrap_or_default();
        match outcomes.into_iter().next() {
            Some(outcome) => Ok(outcome),
            None => {
                let said = String::from_utf8_lossy(&output.stderr);
                let error: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
                let reason = error["error"].as_str().unwrap_or(said.trim());
                bail!("{} was not played: {reason}", file.display())
            }
        }
    }

    async fn play(&self, file: &Path, script: &Script, output: &Output) -> anyhow::Result<Outcome> {
        let interrupted = watch_interrupts()?;
        container::loopback_up()?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let container = container::inside().unwrap_or_default();
        let keep = self.keep.as_ref().map(|keep| keep.join(&*name));
        let home = Scratch::new(&format!("scenario-{container}-{name}"), keep.as_deref())?;
        let mut stage = Stage::set_up(&script.scope, home.path(), interrupted)?;
        let mut outcome = Outcome {
            file: file.into(),
            holds: true,
            steps: 0,
            mismatch: None,
            blessed: self.bless,
        };
        let mut found = Vec::new();
        for step in &script.steps {
            if output.shows_progress() {
                output.note(&format!("{}:{}: {}", file.display(), step.line, step.text));
            }
            let printed = stage.perform(&step.command).await;
            stage.check_interrupted()?;
            let lines = processes::lines(&printed, &stage);
            outcome.steps += 1;
            if !script::matches(&step.expected, &lines) {
                outcome.holds = false;
                let (expected, found) = (step.expected.clone(), lines.clone());
                let (line, command) = (step.line, step.text.clone());
                let mismatch = Mismatch { line, command, expected, found, logs: logs(&stage) };
                outcome.mismatch.get_or_insert(mismatch);
                if !self.bless {
                    break;
                }
            }
            found.push(lines);
        }
        if self.bless {
            let blessed = script.blessed(&found);
            std::fs::write(file, blessed).with_context(|| file.display().to_string())?;
        }
        drop(stage);
        Ok(outcome)
    }
}

fn read(file: &Path) -> anyhow::Result<Script> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Script::parse(&text).map_err(|faults| {
        let line = |fault: &words::SyntaxError| format!("{}: {fault}", file.display());
        anyhow::anyhow!(faults.iter().map(line).collect::<Vec<_>>().join("\n"))
    })
}

/// The last lines that each process logged.
fn logs(stage: &Stage) -> Vec<String> {
    let names = stage.deployment.plan().process_names();
    let tail = |name: &String| {
        let log = std::fs::read_to_string(stage.deployment.log(name)).ok()?;
        let lines: Vec<&str> = log.lines().collect();
        Some(format!("{name}:\n    {}", lines[lines.len().saturating_sub(6)..].join("\n    ")))
    };
    names.iter().filter_map(tail).collect()
}

fn text(outcome: &Outcome) -> String {
    let (file, steps) = (outcome.file.display(), outcome.steps);
    let Some(Mismatch { line, command, expected, found, logs }) = &outcome.mismatch else {
        return format!("holds    {file}: {steps} commands");
    };
    if outcome.blessed {
        return format!("blessed  {file}: {steps} commands; read the diff");
    }
    let diff = script::diff(expected, found);
    let logs = logs.join("\n  ");
    format!(
        "DIFFERS  {file}:{line}: (- expected, + found)\n    > {command}\n{diff}  The ends of the logs:\n  {logs}"
    )
}

/// A flag that is raised when the command is to end: by a signal, or, in a container, when its starter ends.
fn watch_interrupts() -> anyhow::Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signal, raise) = (signal(kind)?, Arc::clone(&raised));
        tokio::spawn(async move {
            signal.recv().await;
            raise.store(true, Ordering::Relaxed);
        });
    }
    if container::inside().is_some() {
        let raise = Arc::clone(&raised);
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while std::io::stdin().read(&mut bytes).is_ok_and(|read| read > 0) {}
            raise.store(true, Ordering::Relaxed);
        });
    }
    Ok(raised)
}
