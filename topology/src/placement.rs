//! Which nodes hold which shard, and what the nodes of one site must agree on.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::model::{Pool, Site, Topology};

impl Topology {
    /// The members of one shard, as indexes into the home site's nodes, in ascending order.
    ///
    /// `pool.replicas` nodes that follow each other in the ring of the site's nodes, starting at a
    /// place that a hash of the pool's name and the shard's number gives, so that the load
    /// spreads. Stable for ever: data lies where this function says.
    ///
    /// # Panics
    /// If `pool` is not of this topology (its home is missing) or `shard` is not below
    /// `pool.shards`.
    #[must_use]
    pub fn shard_members(&self, pool: &Pool, shard: u32) -> Vec<usize> {
        assert!(shard < pool.shards, "shard {shard} of {} in pool {}", pool.shards, pool.name);
        let site = self.site(pool.home.as_str()).expect("a validated pool has its home");
        let nodes = site.nodes.len();
        // One place for the pool, then one further for each shard: even, whatever the hash.
        let start = (first_word(pool.name.as_str()) % nodes as u64) as usize + shard as usize;
        let mut members: Vec<usize> =
            (0..pool.replicas as usize).map(|replica| (start + replica) % nodes).collect();
        members.sort_unstable();
        members
    }

    /// SHA-256 over all that the nodes of `site` must agree on before they may form a group:
    /// the deployment's name, the site's nodes with their keys in order, and the pools at home
    /// there. Addresses, deadlines, mirrors and clients are not in it: they may change one process
    /// at a time.
    ///
    /// # Panics
    /// If `site` is not of this topology.
    #[must_use]
    pub fn site_digest(&self, site: &Site) -> [u8; 32] {
        assert!(self.site(site.name.as_str()).is_some(), "site {} of another file", site.name);
        let mut text = format!("tradewind site v1\n{}\n{}\n", self.name, site.name);
        for node in &site.nodes {
            _ = writeln!(text, "node {} {}", node.name, node.key);
            if let Some(founding) = &node.founding_key {
                _ = writeln!(text, "founded by {founding}");
            }
        }
        let mut pools: Vec<&Pool> = self.pools_of(&site.name).collect();
        pools.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for Pool { name, shards, replicas, durability, .. } in pools {
            _ = writeln!(text, "pool {name} {shards} {replicas} {durability:?}");
        }
        Sha256::digest(text.as_bytes()).into()
    }
}

/// The first eight bytes of SHA-256 of a text, as a big-endian number.
fn first_word(text: &str) -> u64 {
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    u64::from_be_bytes(hash[..8].try_into().expect("eight of 32 bytes"))
}
