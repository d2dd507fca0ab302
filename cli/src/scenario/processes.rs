//! Starting and ending processes, asking them how they are, and waiting.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::command::{Condition, LIMIT, Verb};
use super::redact::Redact;
use super::script::presentable;
use super::stage::Stage;

impl Stage {
    pub(super) async fn process(&mut self, verb: Verb, names: &[String]) -> anyhow::Result<String> {
        match verb {
            Verb::Start => {
                self.launch(names)?;
                return self.until_ready(names, LIMIT).await;
            }
            Verb::Restart => {
                names.iter().try_for_each(|name| self.deployment.kill(name))?;
                self.launch(names)?;
                return self.until_ready(names, LIMIT).await;
            }
            Verb::Launch => self.launch(names)?,
            Verb::Kill => {
                // All signals are sent before the first end is waited for.
                names.iter().try_for_each(|name| self.deployment.signal(name, Signal::KILL))?;
                names.iter().try_for_each(|name| self.deployment.kill(name))?;
            }
            Verb::Stop => {
                names.iter().try_for_each(|name| self.deployment.signal(name, Signal::TERM))?;
                names.iter().try_for_each(|name| self.deployment.stop(name).map(drop))?;
            }
            Verb::Pause => {
                names.iter().try_for_each(|name| self.deployment.signal(name, Signal::STOP))?;
            }
            Verb::Resume => {
                names.iter().try_for_each(|name| self.deployment.signal(name, Signal::CONT))?;
            }
        }
        Ok(String::new())
    }

    fn launch(&mut self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            let log = std::fs::read(self.deployment.log(name)).unwrap_or_default();
            self.log_starts.insert(name.clone(), log.len());
            self.deployment.start(name)?;
        }
        Ok(())
    }

    async fn until_ready(&mut self, names: &[String], limit: Duration) -> anyhow::Result<String> {
        for name in names {
            let ready = async |stage: &mut Self| Ok(stage.deployment.ready(name)?);
            self.eventually(limit, ready).await?;
        }
        Ok(format!("ready: {}", names.join(", ")))
    }

    pub(super) async fn exit(&mut self, name: &str) -> anyhow::Result<String> {
        let ended = async |stage: &mut Self| {
            Ok(stage.deployment.exited(name)?.ok_or_else(|| "it still runs".to_owned()))
        };
        let status = self.eventually(LIMIT, ended).await?;
        let log = self.log(name);
        let reason = log.lines().rev().find_map(|line| line.strip_prefix("error: "));
        let reason = reason.map(|reason| self.redact(Redact::Numbers, &format!(": {reason}")));
        let reason = reason.unwrap_or_default();
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => format!("{name} ended by itself with exit code {code}{reason}"),
            (None, signal) => format!("{name} was ended by signal {}", signal.unwrap_or_default()),
        })
    }

    /// What a process has logged since its latest start.
    fn log(&self, name: &str) -> String {
        let log = std::fs::read(self.deployment.log(name)).unwrap_or_default();
        let from = self.log_starts.get(name).copied().unwrap_or_default();
        String::from_utf8_lossy(&log[from.min(log.len())..]).into_owned()
    }

    pub(super) fn status(&self, names: &[String]) -> String {
        let lines: Vec<String> =
            names.iter().map(|name| format!("{name}: {}", self.state(name).1)).collect();
        lines.join("\n")
    }

    /// The state of a process, in one word and in its own words.
    fn state(&self, name: &str) -> (String, String) {
        if self.deployment.pid(name).is_none() {
            return ("stopped".into(), "does not run".into());
        }
        let Ok((_, text)) = self.deployment.fetch(name, "/status") else {
            return ("silent".into(), "does not answer".into());
        };
        let status: Value = serde_json::from_str(&text).unwrap_or_default();
        let explanation =
            status["explanation"].as_str().map(|text| self.redact(Redact::Numbers, text));
        match (status["state"].as_str(), explanation) {
            (Some(state), Some(explanation)) => (state.into(), explanation),
            _ => match self.deployment.fetch(name, "/readyz") {
                Ok((200, _)) => ("ready".into(), "ready".into()),
                Ok((_, text)) => ("waiting".into(), self.redact(Redact::Numbers, text.trim())),
                Err(_) => ("silent".into(), "does not answer".into()),
            },
        }
    }

    /// Calls the command line as the operator of this deployment.
    pub(super) fn tradewind(&self, arguments: &[String]) -> anyhow::Result<String> {
        let dir = self.deployment.dir();
        let put_in = |argument: &String| argument.replace("DIR", &dir.to_string_lossy());
        let output = std::process::Command::new(std::env::current_exe()?)
            .args(arguments.iter().map(put_in))
            .env("TRADEWIND_TOPOLOGY", self.deployment.topology_file())
            .env("TRADEWIND_AS", tradewind_local::OPERATOR)
            .env_remove("TRADEWIND_ENDPOINTS")
            .env_remove("TRADEWIND_CONTEXT")
            .env("COLUMNS", "100")
            .current_dir(dir)
            .stdin(Stdio::null())
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = self.redact(Redact::Places, &String::from_utf8_lossy(&said));
        Ok(match output.status.code() {
            Some(0) => said,
            Some(code) => format!("{}\nexit code {code}", said.trim_end()),
            None => format!("{}\n{}", said.trim_end(), output.status),
        })
    }

    pub(super) async fn wait(
        &mut self,
        until: &Condition,
        limit: Duration,
    ) -> anyhow::Result<String> {
        match until {
            Condition::Ready { names } => self.until_ready(names, limit).await,
            Condition::State { name, state } => {
                let is = async |stage: &mut Self| {
                    let (found, words) = stage.state(name);
                    Ok(if found == *state { Ok(words) } else { Err(words) })
                };
                Ok(format!("{name}: {}", self.eventually(limit, is).await?))
            }
            Condition::Says { name, text } => {
                let says = async |stage: &mut Self| {
                    let log = stage.log(name);
                    let last = log.lines().last().unwrap_or("nothing").to_owned();
                    Ok(if log.contains(text.as_str()) { Ok(()) } else { Err(last) })
                };
                self.eventually(limit, says).await?;
                Ok(format!("{name} says: {text}"))
            }
            Condition::Parent { name, parent } => {
                let follows = async |stage: &mut Self| {
                    let text = stage.deployment.fetch(name, "/status").map_err(|e| e.to_string());
                    let status: Value =
                        serde_json::from_str(&text.unwrap_or_default().1).unwrap_or_default();
                    let found =
                        status["routes"][0]["parent"].as_str().unwrap_or("nobody").to_owned();
                    Ok(if found == *parent { Ok(()) } else { Err(found) })
                };
                self.eventually(limit, follows).await?;
                Ok(format!("{name} follows {parent}"))
            }
            Condition::Value { key, value, name } => {
                let has = async |stage: &mut Self| {
                    let found = stage.local_value(key, name).await;
                    Ok(match found {
                        Ok(found) if found == *value => Ok(()),
                        Ok(found) => Err(found.unwrap_or_else(|| "absent".into())),
                        Err(error) => Err(error.to_string()),
                    })
                };
                self.eventually(limit, has).await?;
                Ok(format!("{name} has it"))
            }
            Condition::Calls { more } => self.wait_for_calls(*more as usize, limit).await,
            Condition::Writes { more } => self.wait_for_writes(*more as usize, limit).await,
            Condition::Sealed { name } => {
                let sealed = async |stage: &mut Self| {
                    let found = super::checks::sealed_segments(&stage.deployment, name);
                    Ok(if found.is_empty() { Err("no sealed segment".into()) } else { Ok(()) })
                };
                self.eventually(limit, sealed).await?;
                Ok(format!("{name} has a sealed segment"))
            }
        }
    }
}

/// The lines that a scenario shows of what a command printed.
pub(super) fn lines(printed: &anyhow::Result<String>, stage: &Stage) -> Vec<String> {
    match printed {
        Ok(text) => presentable(text),
        Err(error) => {
            let words = crate::exit::words(error);
            presentable(&format!("cannot: {}", stage.redact(Redact::Numbers, &words)))
        }
    }
}
