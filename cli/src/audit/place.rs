//! Where an auditor reads: directories and URLs, of one ledger or of many.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{bail, ensure};
use serde::Deserialize;
use tradewind_audit::{DirSource, Source, SourceError};
use tradewind_ledger::LedgerId;

use crate::{http_source::HttpSource, output::Output, progress::Progress};

/// Longest list of ledgers that a process may give.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// A data directory, a ledger's directory, a process' HTTP address, or the URL of a ledger.
///
/// # Errors
/// If there is no such directory, or the process does not tell its ledgers.
pub(super) fn whole(text: &str) -> anyhow::Result<Box<dyn Source>> {
    if !is_url(text) {
        ensure!(Path::new(text).is_dir(), "{text}: no such directory, and no http:// URL");
        return Ok(Box::new(DirSource::new(text)));
    }
    let http = HttpSource::new(text)?;
    if text.contains("/log/") { Ok(Box::new(http)) } else { Ok(Box::new(Process::new(http)?)) }
}

/// One ledger of a source.
///
/// # Errors
/// If the source has several and none is named.
pub(super) fn ledger(text: &str, ledger: Option<&LedgerId>) -> anyhow::Result<Box<dyn Source>> {
    match ledger {
        None if is_url(text) && !text.contains("/log/") => {
            bail!("{text} is a process: say which of its ledgers by --ledger POOL.SHARD")
        }
        None if Path::new(text).join("ledgers").is_dir() => {
            bail!("{text} has several ledgers: say which by --ledger POOL.SHARD")
        }
        None => whole(text),
        Some(ledger) if is_url(text) => {
            let url = format!("{}/log/{ledger}", text.trim_end_matches('/'));
            Ok(Box::new(HttpSource::new(&url)?))
        }
        Some(ledger) => {
            let directory = Path::new(text).join("ledgers").join(ledger.to_string());
            ensure!(directory.is_dir(), "{}: no such directory", directory.display());
            Ok(Box::new(DirSource::new(directory)))
        }
    }
}

fn is_url(text: &str) -> bool {
    text.contains("://")
}

/// All ledgers of a process over HTTP, laid out as in a data directory.
struct Process {
    http: HttpSource,
    ledgers: Vec<LedgerId>,
}

/// What `GET /log` answers.
#[derive(Deserialize)]
struct Ledgers {
    ledgers: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    ledger: LedgerId,
}

impl Process {
    fn new(http: HttpSource) -> anyhow::Result<Self> {
        let Some(list) = http.read("log", LIST_BYTES_MAX)? else {
            bail!("{}/log: not found; is it the HTTP address of a node or mirror?", http.name());
        };
        let Ledgers { ledgers } = serde_json::from_slice(&list)?;
        Ok(Self { http, ledgers: ledgers.into_iter().map(|listed| listed.ledger).collect() })
    }
}

impl Source for Process {
    fn name(&self) -> String {
        self.http.name()
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        match path.strip_prefix("ledgers/") {
            Some(path) => self.http.read(&format!("log/{path}"), limit),
            None => Ok(None),
        }
    }

    fn list(&self, directory: &str) -> Result<Option<Vec<String>>, SourceError> {
        // Which ledgers there are is known; what lies below each is not.
        let path = |ledger: &LedgerId| format!("ledgers/{ledger}/checkpoint");
        Ok((directory == "ledgers").then(|| self.ledgers.iter().map(path).collect()))
    }
}

/// Another source, watched: how many bytes were read of it.
pub(super) struct Watched<'a> {
    source: &'a dyn Source,
    progress: Progress,
    bytes: AtomicU64,
    files: AtomicU64,
}

impl<'a> Watched<'a> {
    pub(super) fn new(source: &'a dyn Source, output: &Output) -> Self {
        let progress = Progress::new("verifying", None, output);
        Self { source, progress, bytes: AtomicU64::new(0), files: AtomicU64::new(0) }
    }
}

impl Source for Watched<'_> {
    fn name(&self) -> String {
        self.source.name()
    }

    fn read_part(
        &self,
        path: &str,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        self.source.read_part(path, offset, len)
    }

    fn length(&self, path: &str) -> Result<Option<u64>, SourceError> {
        self.source.length(path)
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let read = self.source.read(path, limit);
        if let Ok(Some(file)) = &read {
            let length = file.len() as u64;
            let bytes = self.bytes.fetch_add(length, Ordering::Relaxed) + length;
            let files = self.files.fetch_add(1, Ordering::Relaxed) + 1;
            self.progress.tell(|| format!("{files} files, {} MiB", bytes >> 20));
        }
        read
    }

    fn list(&self, directory: &str) -> Result<Option<Vec<String>>, SourceError> {
        self.source.list(directory)
    }
}
