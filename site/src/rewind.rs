//! A suffix of a ledger that a majority went on without: the group thread asks for its end, the next start cuts it off,
//! before anything else looks at the ledger.

use std::io;
use std::path::{Path, PathBuf};

use tradewind_ledger::Version;
use tradewind_ledger_disk::{Options, RewindError, replace};

const MAGIC: &str = "tradewind rewind 1";

/// The data directory that a ledger's directory lies in, and the file that asks.
fn places(ledger: &Path) -> (PathBuf, PathBuf) {
    let data = ledger.parent().and_then(Path::parent).unwrap_or(Path::new(".")).to_path_buf();
    let name = ledger.file_name().unwrap_or_default().to_string_lossy();
    let ask = data.join(format!("rewind-{name}.ask"));
    (data, ask)
}

/// Asks that the ledger in this directory be cut to `to` entries at the next start.
pub(crate) fn ask(ledger: &Path, to: Version) -> io::Result<()> {
    replace(&places(ledger).1, format!("{MAGIC} {to}\n").as_bytes())
}

/// Does what was asked for. What is cut off stays in `<data>/cut`.
pub(crate) fn perform(ledger: &Path, options: &Options) -> Result<(), RewindError> {
    let (data, ask) = places(ledger);
    let io = |source| RewindError::Io { path: ask.clone(), source };
    let text = match std::fs::read_to_string(&ask) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    let to = text.strip_prefix(MAGIC).and_then(|rest| rest.trim().parse().ok()).map(Version);
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("not \"{MAGIC} SIZE\""));
    let to = to.ok_or_else(|| io(invalid()))?;
    let dropped = tradewind_ledger_disk::rewind(ledger, &data.join("cut"), options, to)?;
    tracing::warn!(ledger = %ledger.display(), dropped, %to, "entries that nobody was told of are cut off; they stay in `cut`");
    std::fs::remove_file(&ask).map_err(io)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_makes_no_sense_is_refused_and_none_is_none() {
        let data = tempfile::tempdir().unwrap();
        let ledger = data.path().join("ledgers").join("flights.0");
        perform(&ledger, &Options::default()).unwrap();
        std::fs::write(data.path().join("rewind-flights.0.ask"), "cut it").unwrap();
        let refused = perform(&ledger, &Options::default()).unwrap_err().to_string();
        assert!(refused.contains("rewind-flights.0.ask"), "{refused}");
    }
}
