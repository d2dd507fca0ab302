//! The node's promise on disk: the last view that it accepted, and the roster that this is of (docs/protocol.md,
//! section 7). Two lines of text, replaced as a whole; a site that never had another roster may have the first line alone.

use std::io;
use std::path::{Path, PathBuf};

use tradewind_ledger::ViewId;
use tradewind_site_protocol::{NodeId, Promise, RosterId};

const MAGIC: &str = "tradewind promise 1";
const ROSTER: &str = "roster";

/// Where the promise lies, in the node's data directory.
pub(crate) struct PromiseFile(PathBuf);

impl PromiseFile {
    pub(crate) fn new(directory: &Path) -> Self {
        Self(directory.join("promise"))
    }

    /// What was written last; nothing before the first.
    pub(crate) fn read(&self) -> io::Result<Promise> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => parse(&text).ok_or_else(|| {
                let path = self.0.display();
                let problem = format!(
                    "{path}: not \"{MAGIC} VIEW NODES..\": restore it; without it the node could help to make two views of one number"
                );
                io::Error::new(io::ErrorKind::InvalidData, problem)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Promise::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes and syncs: after a crash the old or the new one is there.
    pub(crate) fn write(&self, promise: &Promise) -> io::Result<()> {
        let members = promise.members.iter().map(|node| format!(" {}", node.0));
        let Promise { view, roster, digest, established, .. } = promise;
        let text = format!(
            "{MAGIC} {view}{}\n{ROSTER} {} {digest} {}\n",
            members.collect::<String>(),
            roster.0,
            established.0
        );
        tradewind_ledger_disk::replace(&self.0, text.as_bytes())
    }
}

fn parse(text: &str) -> Option<Promise> {
    let text = text.strip_suffix('\n')?;
    let (first, second) = text.split_once('\n').map_or((text, None), |(a, b)| (a, Some(b)));
    let mut words = first.strip_prefix(MAGIC)?.split_whitespace();
    let view = ViewId(words.next()?.parse().ok()?);
    let members: Result<_, _> = words.map(|word| word.parse().map(NodeId)).collect();
    let mut promise = Promise { view, members: members.ok()?, ..Promise::default() };
    if let Some(second) = second {
        let words: Vec<&str> = second.strip_prefix(ROSTER)?.split_whitespace().collect();
        let [roster, digest, established] = words[..] else { return None };
        promise.roster = RosterId(roster.parse().ok()?);
        promise.digest = digest.parse().ok()?;
        promise.established = RosterId(established.parse().ok()?);
    }
    Some(promise)
}

#[cfg(test)]
mod tests {
    use tradewind_ledger::Digest;

    use super::*;

    #[test]
    fn a_promise_is_read_as_it_was_written_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = PromiseFile::new(dir.path());
        assert_eq!(file.read().unwrap(), Promise::default());
        let promise = Promise {
            view: ViewId(7),
            members: vec![NodeId(0), NodeId(2)],
            roster: RosterId(2),
            digest: Digest([9; 32]),
            established: RosterId(1),
        };
        file.write(&promise).unwrap();
        assert_eq!(file.read().unwrap(), promise);
        let write = |text: &str| std::fs::write(dir.path().join("promise"), text).unwrap();
        write("tradewind promise 1 7 0 2\n");
        let (view, members) = (promise.view, promise.members);
        assert_eq!(file.read().unwrap(), Promise { view, members, ..Promise::default() });
        for bad in [
            "tradewind promise 1 x\n",
            "tradewind promise 1 7 0\nroster 1\n",
            "tradewind promise 1 7\n\n",
        ] {
            write(bad);
            assert!(file.read().is_err(), "{bad}");
        }
    }
}
