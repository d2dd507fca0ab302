//! Asking as a client, and telling the answer without what differs from run to run.

use std::time::Duration;

use anyhow::Context as _;
use tradewind_client::wire::{Level, Read};
use tradewind_client::{
    Client, Command, Compare, Condition, Error, ItemValue, Range, Reply, Test, TxnOp,
};
use tradewind_ledger::{RequestId, Version};
use tradewind_local::ProcessError;

use super::redact::Redact;
use super::request::{Change, OnlyIf, Options, Request, What};
use super::stage::Stage;

/// How long a request is tried.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most keys that are listed.
const LISTED_MAX: u32 = 100;

/// A request and its answer, kept for later.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pool: String,
    command: Command,
    request: RequestId,
    reply: Option<Reply>,
}

impl Kept {
    fn version(&self) -> Option<Version> {
        match &self.reply {
            Some(Reply::Written { version, .. }) => Some(*version),
            Some(Reply::Txn { written, .. }) => written.as_ref().map(|stamp| stamp.version),
            _ => None,
        }
    }
}

/// Why there is no answer.
enum NoAnswer {
    Unreachable(ProcessError),
    Error(Error),
}

impl Stage {
    pub(super) async fn request(&mut self, request: &Request) -> anyhow::Result<String> {
        let Request { what, options } = request;
        match what {
            What::Get { key } => {
                let read = self.read(options)?;
                let got = async |client: Client, pool: String| {
                    client.get(&pool, key.as_bytes(), read).await.map(|(item, _)| item)
                };
                Ok(match self.ask(options, got).await {
                    Ok(Some(item)) => format!("{} (value {})", text(&item.value), item.key_version),
                    Ok(None) => "no such key".into(),
                    Err(error) => self.told(&error),
                })
            }
            What::List { prefix } => {
                let read = self.read(options)?;
                let prefix = prefix.as_bytes();
                let range = Range { prefix, after: None, limit: LISTED_MAX, values: true };
                let got =
                    async |client: Client, pool: String| client.list(&pool, range, read).await;
                Ok(match self.ask(options, got).await {
                    Ok(page) if page.items.is_empty() => "no keys".into(),
                    Ok(page) => {
                        let line = |listed: &tradewind_client::wire::Listed| {
                            let key = String::from_utf8_lossy(&listed.key).into_owned();
                            format!("{key} = {}", text(&listed.item.value))
                        };
                        page.items.iter().map(line).collect::<Vec<_>>().join("\n")
                    }
                    Err(error) => self.told(&error),
                })
            }
            What::Put { key, value } => {
                let condition = self.condition(options)?;
                let (key, mut value) = (key.clone().into_bytes(), value.clone().into_bytes());
                if let Some(length) = options.padded {
                    value.resize(value.len().max(length as usize), b' ');
                }
                self.write(Command::Put { key, value, condition }, options).await
            }
            What::Delete { key } => {
                let condition = self.condition(options)?;
                self.write(Command::Delete { key: key.clone().into_bytes(), condition }, options)
                    .await
            }
            What::Txn { when, then } => self.write(transaction(when, then), options).await,
            What::Retry { answer, other } => self.retry(answer, other.as_deref(), options).await,
        }
    }

    async fn write(&mut self, command: Command, options: &Options) -> anyhow::Result<String> {
        let sent = command.clone();
        let write = async |client: Client, pool: String| {
            let request = client.request_number();
            Ok((request, client.execute_numbered(&pool, &sent, request).await))
        };
        let (request, answer) = match self.ask(options, write).await {
            Ok(answered) => answered,
            Err(error) => return Ok(self.told(&error)),
        };
        if let Some(name) = &options.keep {
            let (pool, reply) = (self.pool_of(options), answer.as_ref().ok().cloned());
            self.answers
                .insert(name.clone(), Kept { pool, command: command.clone(), request, reply });
        }
        Ok(match answer {
            Ok(reply) => replied(&reply, &command),
            Err(error) => self.told(&NoAnswer::Error(error)),
        })
    }

    async fn retry(
        &mut self,
        answer: &str,
        other: Option<&str>,
        options: &Options,
    ) -> anyhow::Result<String> {
        let Kept { pool, mut command, request, reply } =
            self.answers.get(answer).cloned().context("the request was never sent")?;
        if let (Some(other), Command::Put { value, .. }) = (other, &mut command) {
            *value = other.as_bytes().to_vec();
        }
        let sent = &command;
        let again = async |client: Client, _| client.execute_numbered(&pool, sent, request).await;
        let again = match self.ask(options, again).await {
            Ok(again) => again,
            Err(error) => return Ok(self.told(&error)),
        };
        let told = replied(&again, &command);
        Ok(match reply {
            Some(first) if first == again => format!("the first answer: {told}"),
            Some(_) => format!("ANOTHER ANSWER THAN THE FIRST: {told}"),
            None => {
                if let Some(kept) = self.answers.get_mut(answer) {
                    kept.reply = Some(again);
                }
                told
            }
        })
    }

    /// What a process shows for a key, at level local.
    pub(super) async fn local_value(
        &mut self,
        key: &str,
        name: &str,
    ) -> anyhow::Result<Option<String>> {
        let within = Some(Duration::from_secs(2));
        let options = Options { at: Some(name.into()), within, local: true, ..Options::default() };
        let read = self.read(&options)?;
        let got = async |client: Client, pool: String| {
            client.get(&pool, key.as_bytes(), read).await.map(|(item, _)| item)
        };
        match self.ask(&options, got).await {
            Ok(item) => Ok(item.map(|item| text(&item.value))),
            Err(error) => anyhow::bail!(self.told(&error)),
        }
    }

    async fn ask<T>(
        &mut self,
        options: &Options,
        request: impl AsyncFnOnce(Client, String) -> Result<T, Error>,
    ) -> Result<T, NoAnswer> {
        let deadline = options.within.unwrap_or(DEADLINE);
        let client = match &options.at {
            Some(name) => self.deployment.client_of_only_within(name, deadline).await,
            None => {
                let names = self.deployment.plan().process_names();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.deployment.client_within(&names, deadline).await
            }
        };
        let client = client.map_err(NoAnswer::Unreachable)?;
        request(client, self.pool_of(options)).await.map_err(NoAnswer::Error)
    }

    pub(super) fn pool_of(&self, options: &Options) -> String {
        let first = || self.deployment.plan().pools[0].name.clone();
        options.pool.clone().unwrap_or_else(first)
    }

    fn read(&self, options: &Options) -> anyhow::Result<Read> {
        let mut read = Read { level: Level::Linearizable, ..Read::default() };
        if options.local || options.since.is_some() {
            read.level = Level::Local;
        }
        if let Some(answer) = &options.since {
            read.min_version = Some(self.version(answer)?);
            // The server is to give up first, and to say why.
            let wait = options.within.unwrap_or(DEADLINE) * 3 / 4;
            read.wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        }
        Ok(read)
    }

    fn condition(&self, options: &Options) -> anyhow::Result<Condition> {
        Ok(match &options.only_if {
            None => Condition::Always,
            Some(OnlyIf::Absent) => Condition::Absent,
            Some(OnlyIf::Version(answer)) => Condition::Version(self.version(answer)?),
        })
    }

    fn version(&self, answer: &str) -> anyhow::Result<Version> {
        let kept = self.answers.get(answer);
        kept.and_then(Kept::version).with_context(|| format!("{answer} wrote nothing"))
    }

    /// Why there is no answer, in a line that is the same in each run.
    fn told(&self, error: &NoAnswer) -> String {
        let told = match error {
            NoAnswer::Unreachable(error) => format!("no answer: {error}"),
            NoAnswer::Error(Error::NotExecuted { last, .. }) => {
                format!("certainly not executed: {last}")
            }
            NoAnswer::Error(Error::OutcomeUnknown { .. }) => {
                "not known whether it was executed".into()
            }
            NoAnswer::Error(error) => format!("refused: {error}"),
        };
        self.redact(Redact::Numbers, &told)
    }
}

fn transaction(when: &[(String, Option<String>)], then: &[Change]) -> Command {
    let compare = when.iter().map(|(key, value)| Compare {
        key: key.clone().into_bytes(),
        test: match value {
            Some(value) => Test::Value(value.clone().into_bytes()),
            None => Test::Exists(false),
        },
    });
    let change = |Change { key, value }: &Change| {
        let key = key.clone().into_bytes();
        match value {
            Some(value) => TxnOp::Put { key, value: value.clone().into_bytes() },
            None => TxnOp::Delete { key },
        }
    };
    Command::Txn {
        compare: compare.collect(),
        then: then.iter().map(change).collect(),
        otherwise: Vec::new(),
    }
}

/// What a reply says of a command.
fn replied(reply: &Reply, command: &Command) -> String {
    let (key, what) = match command {
        Command::Put { key, .. } => (key.as_slice(), "written"),
        Command::Delete { key, .. } => (key.as_slice(), "deleted"),
        _ => (&b""[..], "done"),
    };
    let key = String::from_utf8_lossy(key);
    match reply {
        Reply::Written { key_version, .. } => format!("{what}: change {key_version} of {key}"),
        Reply::Conflict { current: Some(current) } => {
            format!("not {what}: {key} is at its change {}", current.key_version)
        }
        Reply::Conflict { current: None } | Reply::Absent => {
            format!("not {what}: {key} does not exist")
        }
        Reply::Txn { succeeded: true, .. } => what.into(),
        Reply::Txn { .. } => format!("not {what}: a comparison does not hold"),
        Reply::Refused(refusal) => format!("refused: {refusal}"),
    }
}

pub(super) fn text(value: &ItemValue) -> String {
    match value {
        ItemValue::Inline(bytes) => match String::from_utf8_lossy(bytes).trim_end() {
            text if bytes.len() > text.len() => format!("{text}, padded to {} bytes", bytes.len()),
            text => text.into(),
        },
        _ => "a value that is not inline".into(),
    }
}
