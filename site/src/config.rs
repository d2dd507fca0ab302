//! What the core is told, from the topology.

use tradewind_ledger::{Digest, Genesis, LedgerId, Member};
use tradewind_site_protocol::{
    BulkLimits, Incarnation, Limits, NodeConfig, NodeId, NodeInfo, Roster, Schedule, Seat,
    ShardConfig,
};
use tradewind_store::SnapshotRule;
use tradewind_store_disk::Retain;
use tradewind_topology::{self as topology, FabricKind, Node, Pool, Site, Topology};

/// What the rings of one row may take together, as long as each has a useful size.
const ROW_RINGS_BYTES: usize = 64 << 20;
/// And its bulk rings.
const ROW_BULK_BYTES: usize = 16 << 20;
/// The smallest ring: sixteen small batches, or pieces of a large value, on their way.
const RING_BYTES_MIN: usize = 128 << 10;

/// The configuration of the node `own` of `site`.
pub(crate) fn node_config(
    topology: &Topology,
    site: &Site,
    own: usize,
    incarnation: Incarnation,
) -> NodeConfig {
    let timeouts = &topology.timeouts;
    let shards = shards(topology, site);
    let rosters = rosters(topology, site);
    let defaults = Limits::default();
    let ring_bytes = ring_bytes(shards.len());
    let limits = Limits {
        bulk: bulk(site, shards.len()),
        ring_bytes,
        message_bytes: defaults.message_bytes.min(ring_bytes / 4),
        heartbeat_us: timeouts.heartbeat.as_micros() as u64,
        silence_us: timeouts.suspect.as_micros() as u64,
        slow_us: timeouts.slow.as_micros() as u64,
        formation_us: timeouts.suspect.as_micros() as u64,
        snapshots: SnapshotRule::every(topology.snapshot_bytes(&site.name)),
        ..defaults
    };
    NodeConfig {
        own: node_id(own),
        nodes: site.nodes.iter().map(node_info).collect(),
        shards,
        incarnation,
        rosters,
        limits,
    }
}

/// The bulk lane. A row's bulk rings share what it may have, like its other rings. Blocks go straight to all where all
/// nodes are processes of one host, which share memory.
fn bulk(site: &Site, shards: usize) -> BulkLimits {
    let defaults = BulkLimits::default();
    let share = ROW_BULK_BYTES / shards.max(1);
    let ring_bytes = (share.clamp(RING_BYTES_MIN, defaults.ring_bytes) / 64) * 64;
    let block_bytes = defaults.block_bytes.min(ring_bytes / 8);
    let addresses = || site.nodes.iter().map(|node| node.ports.address);
    let one_host = addresses().all(|address| Some(address) == addresses().next());
    let schedule = match site.fabric {
        FabricKind::Shm => Schedule::Direct,
        FabricKind::Auto if one_host => Schedule::Direct,
        _ => Schedule::Chain,
    };
    BulkLimits { ring_bytes, block_bytes, schedule, ..defaults }
}

/// How much history of a pool is kept.
pub(crate) fn retain(topology: &Topology, pool: &str) -> Retain {
    let pool = topology.pools.iter().find(|other| other.name.as_str() == pool);
    match pool.map_or(topology::Retain::All, |pool| pool.retain) {
        topology::Retain::All => Retain::All,
        topology::Retain::Age(age) => Retain::Age(age),
        topology::Retain::Bytes(bytes) => Retain::Bytes(bytes),
    }
}

/// Bytes of each ring: a row holds one for every shard of the site, so many shards share what a row may have. The same
/// at all nodes, who agree on the shards.
fn ring_bytes(shards: usize) -> usize {
    let share = ROW_RINGS_BYTES / shards.max(1);
    (share.clamp(RING_BYTES_MIN, Limits::default().ring_bytes) / 64) * 64
}

/// All shards of a site: pools in the order of their names, so that the order of the file does not matter.
pub(crate) fn shards(topology: &Topology, site: &Site) -> Vec<ShardConfig> {
    places(topology, site)
        .map(|(pool, shard)| {
            let members = topology.founding_members(pool, shard);
            let genesis = Genesis {
                deployment: topology.name.as_str().into(),
                site: site.name.as_str().into(),
                ledger: LedgerId::new(pool.name.as_str(), shard).expect("a checked name"),
                members: members.iter().map(|node| member(&site.nodes[*node])).collect(),
            };
            ShardConfig { genesis, members: members.into_iter().map(node_id).collect() }
        })
        .collect()
}

fn places<'a>(topology: &'a Topology, site: &Site) -> impl Iterator<Item = (&'a Pool, u32)> {
    let mut pools: Vec<_> = topology.pools_of(&site.name).collect();
    pools.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    pools.into_iter().flat_map(|pool| (0..pool.shards).map(move |shard| (pool, shard)))
}

/// The rosters of a site, each with the members of all shards.
fn rosters(topology: &Topology, site: &Site) -> Vec<Roster> {
    let members: Vec<_> = places(topology, site)
        .map(|(pool, shard)| topology.shard_members_on(pool, shard))
        .collect();
    let seat =
        |seat: &topology::Seat| Seat { node: node_id(seat.node), public_key: *seat.key.as_bytes() };
    let rosters = topology.rosters(site).into_iter().enumerate();
    rosters
        .map(|(at, roster)| Roster {
            digest: Digest(roster.digest),
            seats: roster.seats.iter().map(seat).collect(),
            shards: members
                .iter()
                .map(|rosters| rosters[at].iter().copied().map(node_id).collect())
                .collect(),
        })
        .collect()
}

fn member(node: &Node) -> Member {
    Member { name: node.name.as_str().into(), public_key: *node.founder().as_bytes() }
}

fn node_info(node: &Node) -> NodeInfo {
    NodeInfo { name: node.name.as_str().into(), public_key: *node.key.as_bytes() }
}

fn node_id(index: usize) -> NodeId {
    NodeId(u16::try_from(index).expect("a site has far fewer nodes than 2^16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_s_own_rule_for_snapshots_is_that_of_a_pool_that_keeps_everything() {
        let usual = topology::Retain::All.snapshot_bytes();
        assert_eq!(SnapshotRule::every(usual), SnapshotRule::default());
    }
}
