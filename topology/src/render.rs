//! Pictures of a topology: pure functions from [`Topology`] to text, DOT and SVG.
//!
//! All of them show the same forest: a site at each root, each mirror under the first of its
//! parents, the other parents as fallbacks.

mod dot;
mod svg;
mod text;

pub use dot::dot;
pub use svg::svg;
pub use text::text;

use crate::model::{Durability, Link, Mirror, Parent, Pool, Site, Topology};

fn fabric(site: &Site) -> String {
    format!("{}{}", site.fabric, if site.fabric_tls { " + tls" } else { ", not encrypted" })
}

fn pool(pool: &Pool) -> String {
    let Pool { name, shards, replicas, durability, .. } = pool;
    let durability = match durability {
        Durability::Memory => "memory",
        Durability::Disk => "disk",
    };
    format!("{name} ({}, {durability})", placement(*shards, *replicas))
}

fn placement(shards: u32, replicas: u32) -> String {
    format!("{} x {}", count(shards as usize, "shard"), count(replicas as usize, "replica"))
}

/// Whether `parent` only serves when another one is down.
fn is_fallback(topology: &Topology, mirror: &Mirror, parent: &Parent) -> bool {
    !mirror.pools.iter().any(|pool| topology.source(mirror, pool.as_str()) == Some(parent))
}

fn link(link: Link) -> String {
    let Link { rtt_ms, bandwidth_mbps } = link;
    if bandwidth_mbps >= 1_000 && bandwidth_mbps.is_multiple_of(1_000) {
        format!("{rtt_ms} ms, {} Gbit/s", bandwidth_mbps / 1_000)
    } else {
        format!("{rtt_ms} ms, {bandwidth_mbps} Mbit/s")
    }
}

fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
