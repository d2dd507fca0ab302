//! Clients that contend for a few keys, and record what they asked and were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tradewind_client::wire::{Level, Read};
use tradewind_client::{Client, Command, Condition, Error, Item, Reply};

use crate::linear::History;
use crate::process::{Deployment, ProcessError};

/// A client whose calls are recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    client: Client,
    pool: String,
    index: usize,
    log: Arc<Log>,
}

#[derive(Debug)]
struct Log {
    start: Instant,
    history: Mutex<History>,
    errors: Mutex<Vec<String>>,
}

impl Log {
    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

impl Recorded {
    /// Executes a command; `None` if it failed.
    ///
    /// # Panics
    /// If another recorded client did.
    pub async fn execute(&self, command: &Command) -> Option<Reply> {
        let began = self.log.now();
        let result = self.client.execute(&self.pool, command, None).await;
        let ended = self.log.now();
        let mut history = self.log.history.lock().expect("no panic while it is held");
        match &result {
            Ok(reply) => history.record(self.index, command, began, Some((ended, reply))),
            // Certainly without an effect.
            Err(Error::NotExecuted { .. } | Error::Command(_)) => {}
            Err(_) => history.record(self.index, command, began, None),
        }
        drop(history);
        self.succeeded(result)
    }

    /// Reads a key, linearizably; `None` if that failed.
    ///
    /// # Panics
    /// If another recorded client did.
    pub async fn get(&self, key: &[u8]) -> Option<Option<Item>> {
        let began = self.log.now();
        let read = Read { level: Level::Linearizable, wait_ms: 60_000, ..Read::default() };
        let (item, _) = self.succeeded(self.client.get(&self.pool, key, read).await)?;
        let times = (began, self.log.now());
        let mut history = self.log.history.lock().expect("no panic while it is held");
        history.record_get(self.index, key, times, item.as_ref());
        Some(item)
    }

    fn succeeded<T>(&self, result: Result<T, Error>) -> Option<T> {
        result
            .map_err(|error| {
                let text = format!("client {}: {error}", self.index);
                self.log.errors.lock().expect("no panic while it is held").push(text);
            })
            .ok()
    }
}

/// Contending clients under way.
#[derive(Debug)]
pub struct Contenders {
    stop: Arc<AtomicBool>,
    log: Arc<Log>,
    tasks: JoinSet<()>,
}

impl Contenders {
    /// Starts `count` clients that read, put, compare and delete `keys` of a pool, each at another node first, with one
    /// request at a time that may take `deadline`. An error does not end a client.
    ///
    /// # Errors
    /// If a client cannot be connected.
    ///
    /// # Panics
    /// If the plan has no such pool.
    pub async fn start(
        deployment: &Deployment,
        pool: &str,
        keys: &[&str],
        count: usize,
        deadline: Duration,
    ) -> Result<Self, ProcessError> {
        let nodes = deployment.plan().nodes_of_pool(pool);
        let (stop, history, errors) = <(Arc<AtomicBool>, _, _)>::default();
        let log = Arc::new(Log { start: Instant::now(), history, errors });
        let mut tasks = JoinSet::new();
        for index in 0..count {
            let first = index % nodes.len();
            let names: Vec<&str> =
                nodes[first..].iter().chain(&nodes[..first]).map(String::as_str).collect();
            let client = deployment.client_within(&names, deadline).await?;
            let recorded = Recorded { client, pool: pool.to_owned(), index, log: Arc::clone(&log) };
            let keys = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
            tasks.spawn(contend(recorded, keys, Arc::clone(&stop)));
        }
        Ok(Self { stop, log, tasks })
    }

    /// How many calls were recorded so far.
    ///
    /// # Panics
    /// If a client did.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.log.history.lock().expect("no panic while it is held").calls()
    }

    /// What went wrong so far, in words.
    ///
    /// # Panics
    /// If a client did.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        self.log.errors.lock().expect("no panic while it is held").clone()
    }

    /// Ends the clients; gives what they recorded, and their errors.
    ///
    /// # Panics
    /// If a client did.
    pub async fn stop(mut self) -> (History, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client");
        }
        let take = "no panic while it is held";
        let history = std::mem::take(&mut *self.log.history.lock().expect(take));
        let errors = std::mem::take(&mut *self.log.errors.lock().expect(take));
        (history, errors)
    }
}

async fn contend(recorded: Recorded, keys: Vec<Vec<u8>>, stop: Arc<AtomicBool>) {
    for number in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // Any pattern will do that brings each operation to each key from each client.
        let key = keys[(number / 7 + recorded.index) % keys.len()].clone();
        let value = format!("{}-{number}", recorded.index).into_bytes();
        let command = match (number + recorded.index) % 7 {
            0 => Command::Put { key, value, condition: Condition::Always },
            1 => Command::Put { key, value, condition: Condition::Absent },
            2 if number % 3 == 0 => Command::Delete { key, condition: Condition::Always },
            3 | 4 => {
                let Some(item) = recorded.get(&key).await else { continue };
                let condition =
                    item.map_or(Condition::Absent, |item| Condition::Version(item.version));
                Command::Put { key, value, condition }
            }
            _ => {
                recorded.get(&key).await;
                continue;
            }
        };
        recorded.execute(&command).await;
    }
}
