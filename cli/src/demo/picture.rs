//! Draws the figures of a demo as text: the tree of sites and mirrors, the ledgers, what was measured.

use std::fmt;

use comfy_table::{CellAlignment, Table};

use crate::output;

use super::figures::{Figures, Ledger, Mirror, Site};

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tree(self, f)?;
        writeln!(f, "\n{}\n", table(self).trim_fmt())?;
        let Self { import, writes, crash, audit, .. } = self;
        writeln!(
            f,
            "imported   {} records in {:.1} s: {:.0}/s, each on disk at a majority before it was acknowledged",
            import.records, import.seconds, import.records_per_second
        )?;
        writeln!(
            f,
            "written    {} records by {} clients meanwhile: {:.0}/s",
            writes.records, writes.clients, writes.records_per_second
        )?;
        writeln!(
            f,
            "killed     {} in mid-stream; it came back {} writes behind and had them {:.0} ms later",
            crash.killed, crash.writes_meanwhile, crash.caught_up_ms
        )?;
        writeln!(
            f,
            "verified   {} ledgers ({} of them over HTTP), {} entries: {:.0}/s, {:.0} MB/s",
            audit.ledgers,
            audit.over_http,
            audit.entries,
            audit.entries_per_second,
            audit.bytes_per_second / 1e6
        )?;
        let equal: Vec<String> = self
            .mirrors
            .iter()
            .map(|mirror| format!("{} at {}", mirror.records_equal, mirror.name))
            .collect();
        writeln!(f, "compared   records equal to the site's: {}", equal.join(", "))
    }
}

/// Sites, each with the mirrors that it feeds first, those with the mirrors that they feed first.
fn tree(figures: &Figures, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for Site { name, region, view, nodes, pools } in &figures.sites {
        writeln!(
            f,
            "{name} ({region})  site, view {}, {}; home of {}",
            view.map_or_else(|| "unknown".into(), |view| view.to_string()),
            nodes.join(" "),
            pools.join(" ")
        )?;
        branches(figures, name, "", f)?;
    }
    Ok(())
}

fn branches(
    figures: &Figures,
    parent: &str,
    indent: &str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let children: Vec<&Mirror> = figures
        .mirrors
        .iter()
        .filter(|mirror| mirror.parents.iter().any(|own| own == parent))
        .collect();
    for (index, Mirror { name, region, lag, parents, .. }) in children.iter().enumerate() {
        let (fork, rest) =
            if index + 1 == children.len() { ("└─", "   ") } else { ("├─", "│  ") };
        // A mirror of several parents is drawn in full at the first and mentioned at the others.
        if parents[0] != parent {
            writeln!(f, "{indent}{fork} {name} (see {})", parents[0])?;
            continue;
        }
        writeln!(
            f,
            "{indent}{fork} {name} ({region})  mirror, lag p50 {:.0} ms, p99 {:.0} ms ({} samples)",
            lag.p50_ms, lag.p99_ms, lag.samples
        )?;
        branches(figures, name, &format!("{indent}{rest}"), f)?;
    }
    Ok(())
}

/// A line a ledger, a column a place: up to which version it is proven there.
fn table(figures: &Figures) -> Table {
    let places: Vec<&str> = figures.mirrors.iter().map(|mirror| mirror.name.as_str()).collect();
    let head = ["ledger", "home", "version", "proven at home"].into_iter();
    let mut table = output::table(&head.chain(places.iter().copied()).collect::<Vec<_>>());
    for Ledger { ledger, home, version, places: proven } in &figures.ledgers {
        let is_mirror = |place: &str| places.contains(&place);
        let at_home = proven.iter().filter(|proven| !is_mirror(&proven.place));
        let at_home = at_home.map(|proven| proven.proven).min();
        let at = |place: &&str| proven.iter().find(|proven| proven.place == **place);
        let at_mirrors = places.iter().map(|place| at(place).map(|proven| proven.proven));
        let cells = std::iter::once(at_home).chain(at_mirrors);
        let cells = cells.map(|cell| cell.map_or_else(|| "-".into(), |end| format!("0..{end}")));
        let first = [ledger.clone(), home.clone(), version.to_string()];
        table.add_row(first.into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::figures::{Audit, Crash, Lag, Proven, Rate};
    use super::*;

    fn figures() -> Figures {
        let mirror = |name: &str, parents: &[&str]| Mirror {
            name: name.into(),
            region: "ap".into(),
            parents: parents.iter().map(ToString::to_string).collect(),
            lag: Lag::of((1..=100).map(Duration::from_millis).collect()),
            records_equal: 7,
        };
        let proven = |place: &str| Proven {
            place: place.into(),
            proven: 9,
            root: "00".into(),
            signers: vec!["ams-1".into()],
        };
        Figures {
            seconds: 12.0,
            cores: 2,
            directory: "/somewhere".into(),
            sites: vec![Site {
                name: "ams".into(),
                region: "eu".into(),
                view: Some(1),
                nodes: vec!["ams-1".into(), "ams-2".into()],
                pools: vec!["airports".into()],
            }],
            import: Rate::new(7, 1, Duration::from_secs(1)),
            writes: Rate::new(7, 4, Duration::from_secs(1)),
            crash: Crash { killed: "leaf-1".into(), writes_meanwhile: 3, caught_up_ms: 20.0 },
            mirrors: vec![mirror("relay", &["ams"]), mirror("leaf-1", &["relay"])],
            audit: Audit { ledgers: 3, over_http: 1, entries: 27, ..Audit::default() },
            ledgers: vec![Ledger {
                ledger: "airports.0".into(),
                home: "ams".into(),
                version: 9,
                places: ["ams-1", "ams-2", "relay"].into_iter().map(proven).collect(),
            }],
        }
    }

    #[test]
    fn the_picture_shows_the_tree_and_the_proven_ranges() {
        let text = figures().to_string();
        let expected = "ams (eu)  site, view 1, ams-1 ams-2; home of airports\n\
            └─ relay (ap)  mirror, lag p50 51 ms, p99 100 ms (100 samples)\n   \
               └─ leaf-1 (ap)  mirror, lag p50 51 ms, p99 100 ms (100 samples)\n";
        assert!(text.starts_with(expected), "{text}");
        let row = text.lines().find(|line| line.contains("airports.0")).expect("a row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells, ["airports.0", "ams", "9", "0..9", "0..9", "-"]);
    }

    #[test]
    fn quantiles_of_no_samples_are_zero() {
        assert_eq!(Lag::of(Vec::new()).p99_ms, 0.0);
    }
}
