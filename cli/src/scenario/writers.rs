//! Clients that write until told to stop, and what they were told held against what is there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;
use tradewind_client::wire::Read;
use tradewind_client::{Client, Condition, Error, Range, Reply};
use tradewind_ledger::{KeyVersion, Version};

use super::command::LIMIT;
use super::stage::Stage;

/// What every key of a writer begins with.
const PREFIX: &str = "writer/";
/// Keys of a page of a listing.
const PAGE: u32 = 1_000;

/// What became of a write; each has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Acknowledged(Version),
    /// Certainly not executed.
    Refused,
    Unknown,
}

type Outcomes = BTreeMap<String, Outcome>;

/// Writers under way, or stopped.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Outcomes>>,
    tasks: JoinSet<()>,
}

impl Writers {
    fn count(&self) -> usize {
        let outcomes = self.outcomes.lock().expect("no panic while it is held");
        outcomes.values().filter(|outcome| matches!(outcome, Outcome::Acknowledged(_))).count()
    }
}

impl Stage {
    /// Starts writers, each at another node first, with one request at a time. An error does not end one: it goes on
    /// with the next key.
    pub(super) async fn start_writers(&mut self, count: u32) -> anyhow::Result<String> {
        let pool = self.deployment.plan().pools[0].name.clone();
        let nodes = self.deployment.plan().nodes_of_pool(&pool);
        // Writers of before keep what they were told.
        let (outcomes, mut tasks) = match self.writers.take() {
            Some(before) => (before.outcomes, before.tasks),
            None => (Arc::default(), JoinSet::new()),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let begun = outcomes.lock().expect("no panic while it is held").len();
        for index in 0..count {
            let first = index as usize % nodes.len();
            let names: Vec<&str> =
                nodes[first..].iter().chain(&nodes[..first]).map(String::as_str).collect();
            let client = self.deployment.client(&names).await?;
            let (stop, outcomes) = (Arc::clone(&stop), Arc::clone(&outcomes));
            let prefix = format!("{PREFIX}{begun}-{index}");
            tasks.spawn(write(client, pool.clone(), prefix, stop, outcomes));
        }
        self.writers = Some(Writers { stop, outcomes, tasks });
        Ok(String::new())
    }

    pub(super) async fn wait_for_writes(
        &mut self,
        more: usize,
        limit: Duration,
    ) -> anyhow::Result<String> {
        let count = |stage: &Self| stage.writers.as_ref().map(Writers::count);
        let before = count(self).context("there are no writers")?;
        let written = async |stage: &mut Self| {
            let now = count(stage).unwrap_or_default() - before;
            Ok(if now >= more { Ok(()) } else { Err(format!("{now} more writes")) })
        };
        self.eventually(limit, written).await?;
        Ok(format!("{more} more writes are acknowledged"))
    }

    pub(super) async fn stop_writers(&mut self) -> anyhow::Result<String> {
        let writers = self.writers.as_mut().context("there are no writers")?;
        writers.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = writers.tasks.join_next().await {
            ended.context("a writer")?;
        }
        Ok(String::new())
    }

    pub(super) async fn check_writes(&mut self, names: &[String]) -> anyhow::Result<String> {
        let writers = self.writers.as_ref().context("there are no writers")?;
        if !writers.tasks.is_empty() {
            bail!("the writers still write: `stop writers` first");
        }
        let outcomes = writers.outcomes.lock().expect("no panic while it is held").clone();
        if !outcomes.values().any(|outcome| matches!(outcome, Outcome::Acknowledged(_))) {
            bail!("nothing was acknowledged, so nothing is shown");
        }
        for name in names {
            let holds = async |stage: &mut Self| {
                let found = stage.written(name).await?;
                Ok(check(&outcomes, &found))
            };
            self.eventually(LIMIT, holds).await.with_context(|| name.clone())?;
        }
        let names = names.join(", ");
        Ok(format!(
            "nothing acknowledged is missing, nothing is there twice, nothing refused: {names}"
        ))
    }

    /// What a process has of the writers.
    async fn written(&self, name: &str) -> anyhow::Result<BTreeMap<String, (Version, KeyVersion)>> {
        let client = self.deployment.client_of_only(name).await?;
        let pool = &self.deployment.plan().pools[0].name;
        let (mut after, mut found): (Option<Vec<u8>>, _) = (None, BTreeMap::new());
        loop {
            let prefix = PREFIX.as_bytes();
            let range = Range { prefix, after: after.as_deref(), limit: PAGE, values: false };
            let page = client.list(pool, range, Read::default()).await?;
            found.extend(page.items.into_iter().map(|listed| {
                let key = String::from_utf8_lossy(&listed.key).into_owned();
                (key, (listed.item.version, listed.item.key_version))
            }));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
    }
}

/// Holds what the writers were told against what is there.
fn check(
    outcomes: &Outcomes,
    found: &BTreeMap<String, (Version, KeyVersion)>,
) -> Result<(), String> {
    for (key, outcome) in outcomes {
        match (outcome, found.get(key)) {
            (Outcome::Acknowledged(_), None) => {
                return Err(format!("{key} was acknowledged and is missing"));
            }
            (Outcome::Acknowledged(told), Some((version, _))) if told != version => {
                return Err(format!("{key} was acknowledged with another version"));
            }
            (Outcome::Refused, Some(_)) => {
                return Err(format!("{key} was refused, and executed nevertheless"));
            }
            (_, Some((_, changes))) if *changes != KeyVersion(1) => {
                return Err(format!("{key} was written once, and executed {changes} times"));
            }
            _ => {}
        }
    }
    match found.keys().find(|key| !outcomes.contains_key(*key)) {
        Some(key) => Err(format!("{key} was never written")),
        None => Ok(()),
    }
}

async fn write(
    client: Client,
    pool: String,
    prefix: String,
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Outcomes>>,
) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("{prefix}-{number:06}");
        let put = client.put(&pool, key.as_bytes(), key.as_bytes(), Condition::Always).await;
        let outcome = match put {
            Ok(Reply::Written { version, .. }) => Outcome::Acknowledged(version),
            Ok(_) | Err(Error::OutcomeUnknown { .. } | Error::Confused { .. }) => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        };
        outcomes.lock().expect("no panic while it is held").insert(key, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_an_answer_is_told() {
        let outcomes = Outcomes::from([
            ("a".into(), Outcome::Acknowledged(Version(3))),
            ("b".into(), Outcome::Refused),
            ("c".into(), Outcome::Unknown),
        ]);
        let found = |pairs: &[(&str, u64, u64)]| {
            let pair = |(key, version, changes): &(&str, u64, u64)| {
                ((*key).to_owned(), (Version(*version), KeyVersion(*changes)))
            };
            check(&outcomes, &pairs.iter().map(pair).collect())
        };
        assert_eq!(found(&[("a", 3, 1)]), Ok(()));
        assert_eq!(found(&[("a", 3, 1), ("c", 4, 1)]), Ok(()));
        for (wrong, told) in [
            (&[][..], "is missing"),
            (&[("a", 4, 1)], "another version"),
            (&[("a", 3, 2)], "times"),
            (&[("a", 3, 1), ("c", 4, 2)], "times"),
            (&[("a", 3, 1), ("b", 4, 1)], "nevertheless"),
            (&[("a", 3, 1), ("d", 4, 1)], "never written"),
        ] {
            assert!(found(wrong).unwrap_err().contains(told), "{wrong:?}");
        }
    }
}
