//! The node's promise on disk: the last view that it accepted (docs/protocol.md, section 7). One line of text,
//! replaced as a whole.

use std::io;
use std::path::{Path, PathBuf};

use tradewind_ledger::ViewId;
use tradewind_site_protocol::{NodeId, Promise};

const MAGIC: &str = "tradewind promise 1";

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
        let text = format!("{MAGIC} {}{}\n", promise.view, members.collect::<String>());
        tradewind_ledger_disk::replace(&self.0, text.as_bytes())
    }
}

fn parse(text: &str) -> Option<Promise> {
    let mut words = text.strip_suffix('\n')?.strip_prefix(MAGIC)?.split_whitespace();
    let view = ViewId(words.next()?.parse().ok()?);
    let members: Result<_, _> = words.map(|word| word.parse().map(NodeId)).collect();
    Some(Promise { view, members: members.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_read_as_it_was_written_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = PromiseFile::new(dir.path());
        assert_eq!(file.read().unwrap(), Promise::default());
        let promise = Promise { view: ViewId(7), members: vec![NodeId(0), NodeId(2)] };
        file.write(&promise).unwrap();
        assert_eq!(file.read().unwrap(), promise);
        std::fs::write(dir.path().join("promise"), "tradewind promise 1 x\n").unwrap();
        assert!(file.read().is_err());
    }
}
