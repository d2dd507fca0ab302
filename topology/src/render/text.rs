//! The topology as a tree of text.

use std::fmt::Write as _;

use super::{count, fabric, is_fallback, link, pool};
use crate::model::{Mirror, Parent, Site, Topology};

/// The deployment as an indented tree: sites with their nodes and pools, mirrors under the first of
/// their parents. Ends with a newline.
#[must_use]
pub fn text(topology: &Topology) -> String {
    let mut out = format!(
        "{}: {}, {}, {}, {}\n",
        topology.name,
        count(topology.sites.len(), "site"),
        count(topology.mirrors.len(), "mirror"),
        count(topology.pools.len(), "pool"),
        count(topology.clients.len(), "client"),
    );
    for (index, own) in topology.sites.iter().enumerate() {
        site(topology, own, index + 1 == topology.sites.len(), &mut out);
    }
    out
}

fn site(topology: &Topology, site: &Site, last: bool, out: &mut String) {
    let (branch, indent) = branch(last);
    _ = writeln!(out, "{branch}site {} in {}, {}", site.name, site.region, fabric(site));
    let node = |node: &crate::Node| format!("node {} at {}", node.name, node.ports.client());
    let nodes = site.present().map(|(_, it)| node(it));
    let pools = topology.pools_of(&site.name).map(|own| format!("pool {}", pool(own)));
    let lines: Vec<String> = nodes.chain(pools).collect();
    let children: Vec<&Mirror> = topology.children(site.name.as_str()).collect();
    for (index, line) in lines.iter().enumerate() {
        let last = index + 1 == lines.len() && children.is_empty();
        _ = writeln!(out, "{indent}{}{line}", self::branch(last).0);
    }
    mirrors(topology, &children, indent, out);
}

fn mirrors(topology: &Topology, mirrors: &[&Mirror], indent: &str, out: &mut String) {
    // A stack, not recursion: a chain of mirrors may be as long as the file.
    let mut stack = Vec::new();
    push(mirrors, indent, &mut stack);
    while let Some((mirror, indent, last)) = stack.pop() {
        let (branch, deeper) = branch(last);
        let first = &mirror.parents[0];
        let pools = mirror.pools.iter().map(|pool| match topology.source(mirror, pool.as_str()) {
            Some(source) if source != first => format!("{pool} (from {})", source.name()),
            _ => pool.to_string(),
        });
        let pools: Vec<String> = pools.collect();
        let fallbacks = mirror.parents[1..].iter();
        let fallbacks = fallbacks.filter(|parent| is_fallback(topology, mirror, parent));
        let fallbacks: Vec<&str> = fallbacks.map(Parent::name).collect();
        let fallbacks = match fallbacks.as_slice() {
            [] => String::new(),
            names => format!(", else from {}", names.join(", ")),
        };
        _ = writeln!(
            out,
            "{indent}{branch}mirror {} in {} at {}, {}: {}{fallbacks}",
            mirror.name,
            mirror.region,
            mirror.ports.client(),
            link(mirror.link),
            pools.join(", "),
        );
        let children: Vec<&Mirror> = topology.children(mirror.name.as_str()).collect();
        push(&children, &format!("{indent}{deeper}"), &mut stack);
    }
}

fn push<'a>(mirrors: &[&'a Mirror], indent: &str, stack: &mut Vec<(&'a Mirror, String, bool)>) {
    let siblings = mirrors.iter().enumerate().rev();
    stack.extend(
        siblings.map(|(index, mirror)| (*mirror, indent.to_owned(), index + 1 == mirrors.len())),
    );
}

/// The branch before a line, and the indent below it.
fn branch(last: bool) -> (&'static str, &'static str) {
    if last { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}
