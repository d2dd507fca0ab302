//! What the node remembers of the other nodes, on disk: whoever comes back with less lost its data, and is refused
//! (docs/protocol.md, section 7). A few lines of text, replaced as a whole.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use tradewind_ledger::{LedgerId, Version, ViewId};
use tradewind_site_protocol::{Incarnation, NodeConfig, Recollection};
use tradewind_topology::Site;

const MAGIC: &str = "tradewind peers 1";

/// Where it lies, in the node's data directory, and whom and what it may name.
pub(crate) struct PeersFile {
    path: PathBuf,
    /// By node: its name and key. What was known of another key was known of another identity.
    nodes: Vec<(String, String)>,
    /// By shard.
    ledgers: Vec<LedgerId>,
}

impl PeersFile {
    pub(crate) fn new(directory: &Path, site: &Site, config: &NodeConfig) -> Self {
        let nodes = site.nodes.iter().map(|node| (node.name.to_string(), node.key.to_string()));
        let ledgers = config.shards.iter().map(|shard| shard.genesis.ledger.clone());
        Self { path: directory.join("peers"), nodes: nodes.collect(), ledgers: ledgers.collect() }
    }

    /// A file of nobody.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { path: PathBuf::new(), nodes: Vec::new(), ledgers: Vec::new() }
    }

    /// What was written last, by node; nothing before the first.
    pub(crate) fn read(&self) -> io::Result<Vec<Recollection>> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        self.parse(&text).map_err(|line| {
            let problem = format!(
                "{}: line {line} is not as this program writes it: restore it from a backup, or remove it: then a node that lost its disk is not refused by this one",
                self.path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })
    }

    /// Writes and syncs: after a crash the old or the new content is there.
    pub(crate) fn write(&self, all: &[Recollection]) -> io::Result<()> {
        tradewind_ledger_disk::replace(&self.path, self.format(all).as_bytes())
    }

    fn format(&self, all: &[Recollection]) -> String {
        let mut text = format!("{MAGIC}\n");
        for ((name, key), known) in self.nodes.iter().zip(all) {
            if *known == Recollection::default() {
                continue;
            }
            _ = writeln!(text, "node {name} {key} {} {}", known.incarnation.0, known.view);
            let sizes = self.ledgers.iter().zip(&known.sizes);
            for (ledger, size) in sizes.filter(|(_, size)| **size > Version::ZERO) {
                _ = writeln!(text, "had {ledger} {size}");
            }
        }
        text
    }

    /// The recollections in a text; else the number of the first line that is none.
    fn parse(&self, text: &str) -> Result<Vec<Recollection>, usize> {
        let mut all = vec![Recollection::default(); self.nodes.len()];
        let mut lines = text.lines().zip(1..);
        lines.next().filter(|(line, _)| *line == MAGIC).ok_or(1_usize)?;
        // Whom the next lines are about: nobody, if that is not a node any more, or under another key.
        let mut about = None;
        for (line, number) in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let number_of = |word: &str| word.parse::<u64>().map_err(|_| number);
            match words[..] {
                ["node", name, key, incarnation, view] => {
                    about = self.nodes.iter().position(|(n, k)| n == name && k == key);
                    let incarnation = Incarnation(number_of(incarnation)?);
                    let (view, sizes) = (ViewId(number_of(view)?), Vec::new());
                    if let Some(at) = about {
                        all[at] = Recollection { incarnation, view, sizes };
                    }
                }
                ["had", ledger, size] => {
                    let size = Version(number_of(size)?);
                    let ledger: LedgerId = ledger.parse().map_err(|_| number)?;
                    let shard = self.ledgers.iter().position(|known| *known == ledger);
                    if let (Some(at), Some(shard)) = (about, shard) {
                        all[at].sizes.resize(self.ledgers.len(), Version::ZERO);
                        all[at].sizes[shard] = size;
                    }
                }
                _ => return Err(number),
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &Path, keys: [&str; 2]) -> PeersFile {
        let node = |(name, key): (&str, &str)| (name.to_owned(), key.to_owned());
        PeersFile {
            path: directory.join("peers"),
            nodes: ["a1", "a2"].into_iter().zip(keys).map(node).collect(),
            ledgers: (0..2).map(|shard| LedgerId::new("flights", shard).unwrap()).collect(),
        }
    }

    #[test]
    fn what_was_written_is_read_again_unless_the_key_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let written = file(dir.path(), ["k1", "k2"]);
        assert_eq!(written.read().unwrap(), []);
        let known = Recollection {
            incarnation: Incarnation(3),
            view: ViewId(8),
            sizes: vec![Version(0), Version(70)],
        };
        let all = vec![Recollection::default(), known.clone()];
        written.write(&all).unwrap();
        assert_eq!(written.read().unwrap(), all);
        let replaced = file(dir.path(), ["k1", "k3"]);
        assert_eq!(replaced.read().unwrap(), vec![Recollection::default(); 2]);
    }

    #[test]
    fn damage_is_an_error_that_names_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), ["k1", "k2"]);
        for (text, line) in [
            ("tradewind peers 2\n", 1),
            ("tradewind peers 1\nnode a1 k1 x 8\n", 2),
            ("tradewind peers 1\nnode a1 k1 1 8\nhad flights.0\n", 3),
        ] {
            std::fs::write(dir.path().join("peers"), text).unwrap();
            let refused = file.read().unwrap_err().to_string();
            assert!(refused.contains(&format!("line {line} ")), "{refused}");
        }
    }
}
