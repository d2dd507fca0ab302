//! The public face of a ledger over HTTP, as an auditor's source.

use std::time::Duration;

use anyhow::ensure;
use tradewind_audit::{Source, SourceError};
use ureq::Agent;

/// One file must have come after this time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Files below a URL, such as `http://127.0.0.1:7401/log/flights.0`.
#[derive(Debug)]
pub(crate) struct HttpSource {
    url: String,
    agent: Agent,
}

impl HttpSource {
    /// # Errors
    /// If `url` does not begin with `http://`.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        ensure!(
            url.starts_with("http://"),
            "{url}: only http:// is spoken; use a local proxy for TLS"
        );
        let config = Agent::config_builder().timeout_global(Some(TIMEOUT));
        let agent = config.http_status_as_error(false).build().new_agent();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), agent })
    }
}

impl Source for HttpSource {
    fn name(&self) -> String {
        self.url.clone()
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let failed = |reason: String| SourceError::Io { path: path.to_owned(), reason };
        let mut answer = self
            .agent
            .get(format!("{}/{path}", self.url))
            .call()
            .map_err(|error| failed(error.to_string()))?;
        match answer.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            status => return Err(failed(format!("the server answers {status}"))),
        }
        let read = answer.body_mut().with_config().limit(limit + 1).read_to_vec();
        match read {
            Ok(bytes) if bytes.len() as u64 <= limit => Ok(Some(bytes)),
            Ok(_) | Err(ureq::Error::BodyExceedsLimit(_)) => {
                Err(SourceError::TooLong { path: path.to_owned(), len: limit + 1, limit })
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn list(&self, _: &str) -> Result<Option<Vec<String>>, SourceError> {
        Ok(None)
    }
}
