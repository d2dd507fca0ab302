//! The topology for Graphviz.

use std::fmt::Write as _;

use super::{fabric, is_fallback, link, pool};
use crate::{
    model::{Node, Topology},
    names::PoolName,
};

/// The deployment as a DOT digraph: solid edges from parents in use, dashed ones from fallbacks.
///
/// Names are `[a-z0-9-]`, so quoting them is all the escaping there is.
#[must_use]
pub fn dot(topology: &Topology) -> String {
    let mut out = format!("digraph \"{}\" {{\n", topology.name);
    out += "  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n";
    out += "  edge [fontname=\"sans-serif\", fontsize=10];\n";
    for site in &topology.sites {
        let nodes: Vec<&str> =
            site.present().map(|(_, node): (usize, &Node)| node.name.as_str()).collect();
        let pools: Vec<String> = topology.pools_of(&site.name).map(pool).collect();
        let nodes = nodes.join(" ");
        let mut label =
            format!("site {} ({})\\n{}\\n{nodes}", site.name, site.region, fabric(site));
        for pool in pools {
            _ = write!(label, "\\n{pool}");
        }
        _ = writeln!(out, "  \"{}\" [label=\"{label}\", style=\"rounded,bold\"];", site.name);
    }
    for mirror in &topology.mirrors {
        let pools: Vec<&str> = mirror.pools.iter().map(PoolName::as_str).collect();
        let pools = pools.join(", ");
        let label = format!("mirror {} ({})\\n{pools}", mirror.name, mirror.region);
        _ = writeln!(out, "  \"{}\" [label=\"{label}\"];", mirror.name);
        for (index, parent) in mirror.parents.iter().enumerate() {
            let style = match index {
                0 => format!("label=\"{}\"", link(mirror.link)),
                _ if is_fallback(topology, mirror, parent) => "style=dashed, color=gray".to_owned(),
                _ => "style=solid".to_owned(),
            };
            _ = writeln!(out, "  \"{}\" -> \"{}\" [{style}];", parent.name(), mirror.name);
        }
    }
    out + "}\n"
}
