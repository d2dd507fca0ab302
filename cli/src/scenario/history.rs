//! Clients that contend for a few keys, and whether what they were told is as of a single copy.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tradewind_local::Contenders;

use super::command::LIMIT;
use super::stage::Stage;

/// What they contend for: few enough that calls meet.
const KEYS: [&str; 3] = ["shared/a", "shared/b", "shared/c"];

impl Stage {
    /// Starts clients that read, put, compare and delete, each at another node first, with one request at a time.
    pub(super) async fn start_contenders(&mut self, count: u32) -> anyhow::Result<String> {
        if self.contenders.is_some() {
            bail!("there are contenders already: `check history` ends them");
        }
        let pool = self.deployment.plan().pools[0].name.clone();
        let started =
            Contenders::start(&self.deployment, &pool, &KEYS, count as usize, LIMIT).await;
        self.contenders = Some(started?);
        Ok(String::new())
    }

    pub(super) async fn wait_for_calls(
        &mut self,
        more: usize,
        limit: Duration,
    ) -> anyhow::Result<String> {
        let calls = |stage: &Self| stage.contenders.as_ref().map(Contenders::calls);
        let before = calls(self).context("there are no contenders")?;
        let called = async |stage: &mut Self| {
            let now = calls(stage).unwrap_or_default() - before;
            Ok(if now >= more { Ok(()) } else { Err(format!("{now} more calls")) })
        };
        self.eventually(limit, called).await?;
        Ok(format!("{more} more calls are answered"))
    }

    /// Ends the contenders. A call whose outcome they do not know may have been done at any later time, or never.
    pub(super) async fn check_history(&mut self) -> anyhow::Result<String> {
        let contenders = self.contenders.take().context("there are no contenders")?;
        let (history, errors) = contenders.stop().await;
        ensure!(history.calls() > 0, "no call was answered, so nothing is shown: {errors:?}");
        history.check().map_err(|violation| anyhow::anyhow!("{violation}"))?;
        Ok("each key is as of a single copy".into())
    }
}
