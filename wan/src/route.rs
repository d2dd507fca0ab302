//! Which ledgers come from which processes, by the topology.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tradewind_ledger::entry::{Genesis, Member};
use tradewind_ledger::ids::LedgerId;
use tradewind_topology::{Mirror, Parent, Pool, Topology};
use tradewind_wan_protocol::Timing;

/// A process to be fed from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Where its WAN protocol is served.
    pub address: SocketAddr,
}

/// Ledgers that come from the same processes, which stand in order of preference.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where from; the most preferred first.
    pub candidates: Vec<Candidate>,
    /// What each ledger begins with.
    pub ledgers: Vec<Genesis>,
}

/// Why there are no routes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A name in the topology leads nowhere.
    #[error("the topology has no mirror {name:?}")]
    Mirror {
        /// The name.
        name: String,
    },
}

/// The deadlines of the mirroring protocol that follow from the topology.
#[must_use]
pub fn timing_of(topology: &Topology) -> Timing {
    let timeouts = &topology.timeouts;
    let beat = (timeouts.stall / 5).min(Duration::from_secs(1));
    let (connect, stall) = (timeouts.connect, timeouts.stall);
    Timing { connect, beat, stall, probe: stall, ..Timing::default() }
}

/// The routes of a mirror: one for each set of ledgers that all of the same processes offer.
///
/// A parent that is a site stands for those of its nodes that hold the shard, in an order that
/// depends on the mirror's name, so that mirrors spread over the nodes.
///
/// # Errors
/// If the topology has no such mirror.
pub fn routes(topology: &Topology, mirror: &str) -> Result<Vec<Route>, RouteError> {
    let own =
        topology.mirror(mirror).ok_or_else(|| RouteError::Mirror { name: mirror.to_owned() })?;
    let mut routes: BTreeMap<Vec<Candidate>, Vec<Genesis>> = BTreeMap::new();
    let pools = own.pools.iter().filter_map(|pool| topology.pool(pool.as_str()));
    for pool in pools {
        for shard in 0..pool.shards {
            let candidates = candidates(topology, own, pool, shard);
            routes.entry(candidates).or_default().push(expected_genesis(topology, pool, shard));
        }
    }
    let route = |(candidates, ledgers)| Route { candidates, ledgers };
    Ok(routes.into_iter().map(route).collect())
}

fn candidates(topology: &Topology, own: &Mirror, pool: &Pool, shard: u32) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let offering = own.parents.iter().filter(|parent| topology.offers(parent, pool.name.as_str()));
    for parent in offering {
        match parent {
            Parent::Mirror(name) => {
                candidates.extend(topology.mirror(name.as_str()).map(|mirror| Candidate {
                    name: mirror.name.to_string(),
                    address: mirror.ports.wan(),
                }));
            }
            Parent::Site(name) => {
                let site = topology.site(name.as_str()).expect("parents of a topology exist");
                let mut members = topology.shard_members(pool, shard);
                let spread = own.name.as_str().bytes().map(usize::from).sum::<usize>();
                let turn = spread % members.len();
                members.rotate_left(turn);
                candidates.extend(members.into_iter().map(|index| {
                    let node = &site.nodes[index];
                    Candidate { name: node.name.to_string(), address: node.ports.wan() }
                }));
            }
        }
    }
    candidates
}

/// What the ledger of a shard begins with, by the topology: the same at every node and mirror.
///
/// # Panics
/// If `pool` is not of this topology, or has no such shard.
#[must_use]
pub fn expected_genesis(topology: &Topology, pool: &Pool, shard: u32) -> Genesis {
    let site = topology.site(pool.home.as_str()).expect("homes of a topology exist");
    let member = |index: usize| {
        let node = &site.nodes[index];
        Member { name: node.name.to_string(), public_key: *node.key.as_bytes() }
    };
    let ledger = LedgerId::new(pool.name.as_str(), shard).expect("both have the same grammar");
    Genesis {
        deployment: topology.name.to_string(),
        site: site.name.to_string(),
        ledger,
        members: topology.shard_members(pool, shard).into_iter().map(member).collect(),
    }
}
