//! What the core is told, from the topology.

use tradewind_ledger::{Digest, Genesis, LedgerId, Member};
use tradewind_site_protocol::{Incarnation, Limits, NodeConfig, NodeId, NodeInfo, ShardConfig};
use tradewind_topology::{Node, Site, Topology};

/// The configuration of the node `own` of `site`.
pub(crate) fn node_config(
    topology: &Topology,
    site: &Site,
    own: usize,
    incarnation: Incarnation,
) -> NodeConfig {
    let timeouts = &topology.timeouts;
    let limits = Limits {
        heartbeat_us: timeouts.heartbeat.as_micros() as u64,
        silence_us: timeouts.suspect.as_micros() as u64,
        ..Limits::default()
    };
    NodeConfig {
        own: node_id(own),
        nodes: site.nodes.iter().map(node_info).collect(),
        shards: shards(topology, site),
        incarnation,
        topology_digest: Digest(topology.site_digest(site)),
        limits,
    }
}

/// All shards of a site: pools in the order of their names, so that the order of the file does not matter.
pub(crate) fn shards(topology: &Topology, site: &Site) -> Vec<ShardConfig> {
    let mut pools: Vec<_> = topology.pools_of(&site.name).collect();
    pools.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let shards =
        pools.into_iter().flat_map(|pool| (0..pool.shards).map(move |shard| (pool, shard)));
    shards
        .map(|(pool, shard)| {
            let members = topology.shard_members(pool, shard);
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

fn member(node: &Node) -> Member {
    Member { name: node.name.as_str().into(), public_key: *node.key.as_bytes() }
}

fn node_info(node: &Node) -> NodeInfo {
    NodeInfo { name: node.name.as_str().into(), public_key: *node.key.as_bytes() }
}

fn node_id(index: usize) -> NodeId {
    NodeId(u16::try_from(index).expect("a site has far fewer nodes than 2^16"))
}
