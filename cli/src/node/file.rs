//! Changing the text of a topology file: what somebody wrote into it stays, comments and order included.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use tradewind_topology::{Diagnostics, Loaded, Site, Topology};

/// A topology file to be changed.
pub(super) struct TopologyFile {
    path: PathBuf,
    pub(super) text: String,
    pub(super) topology: Topology,
}

/// A text that holds in its place.
pub(super) struct Changed {
    text: String,
    pub(super) topology: Topology,
    pub(super) warnings: Diagnostics,
}

impl TopologyFile {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let topology = crate::topology::load(path)?;
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.into(), text, topology })
    }

    /// Looks at a changed text as at any topology file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn check(&self, text: String) -> anyhow::Result<Changed> {
        let Loaded { topology, warnings } = Topology::parse(&text, &self.path, &[])
            .map_err(|faults| anyhow!("the file is not changed: it would not hold\n{faults}"))?;
        Ok(Changed { text, topology, warnings })
    }

    /// Writes it so that there is the old one or the new one at any time.
    pub(super) fn replace(&self, changed: &Changed) -> anyhow::Result<()> {
        let beside = self.path.with_extension("toml.new");
        let write = || {
            let mut file = fs::File::create(&beside)?;
            file.write_all(changed.text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        };
        write().with_context(|| self.path.display().to_string())
    }
}

/// The text with one more `[[sites.SITE.KIND]]`: behind the last one of them, or else behind the last of `after`.
pub(super) fn with_table(text: &str, site: &str, kind: &str, after: &str, lines: &str) -> String {
    let header = |kind: &str| format!("[[sites.{site}.{kind}]]");
    let all: Vec<&str> = text.lines().collect();
    let last = |kind: &str| all.iter().rposition(|line| line.trim().starts_with(&header(kind)));
    let block = format!("{}\n{lines}", header(kind));
    let Some(begin) = last(kind).or_else(|| last(after)) else {
        return format!("{}\n\n{block}", text.trim_end());
    };
    let is_header = |line: &&str| line.trim_start().starts_with('[');
    let end = all[begin + 1..].iter().position(is_header);
    let end = end.map_or(all.len(), |end| begin + 1 + end);
    // Comments and empty lines before the next table are that one's.
    let is_content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let end = begin + all[begin..end].iter().rposition(is_content).map_or(1, |at| at + 1);
    let (before, behind) = (all[..end].join("\n"), all[end..].join("\n"));
    match behind.trim().is_empty() {
        true => format!("{before}\n\n{block}"),
        false => format!("{before}\n\n{block}\n{}\n", behind.trim_start_matches('\n')),
    }
}

/// The names of the nodes of a site that were not removed.
pub(super) fn names(site: &Site) -> Vec<String> {
    site.present().map(|(_, node)| node.name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[sites.s]\nregion = \"r\"\n[[sites.s.nodes]]\nname = \"a1\"\n\n# The second.\n[[sites.s.nodes]]\nname = \"a2\"\n# its port\nport = 1\n\n# Pools.\n[pools.p]\nhome = \"s\"\n";

    #[test]
    fn a_table_comes_behind_its_like_and_all_else_stays() {
        let changed = with_table(FILE, "s", "nodes", "nodes", "name = \"a3\"\n");
        let expected =
            FILE.replace("port = 1\n\n", "port = 1\n\n[[sites.s.nodes]]\nname = \"a3\"\n\n");
        assert_eq!(changed, expected);
        let again = with_table(&changed, "s", "changes", "nodes", "add = \"a3\"\n");
        let change = "name = \"a3\"\n\n[[sites.s.changes]]\nadd = \"a3\"\n\n# Pools.";
        assert_eq!(again, expected.replace("name = \"a3\"\n\n# Pools.", change));
        let last = with_table(&again, "s", "changes", "nodes", "remove = \"a1\"\n");
        assert!(
            last.contains("add = \"a3\"\n\n[[sites.s.changes]]\nremove = \"a1\"\n\n# Pools."),
            "{last}"
        );
    }

    #[test]
    fn a_table_at_the_end_of_the_file_is_followed_too() {
        let text = "[[sites.s.nodes]]\nname = \"a1\"\n";
        let changed = with_table(text, "s", "nodes", "nodes", "name = \"a2\"\n");
        assert_eq!(
            changed,
            "[[sites.s.nodes]]\nname = \"a1\"\n\n[[sites.s.nodes]]\nname = \"a2\"\n"
        );
    }
}
