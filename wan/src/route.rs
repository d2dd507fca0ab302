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
        Member { name: node.name.to_string(), public_key: *node.founder().as_bytes() }
    };
    let ledger = LedgerId::new(pool.name.as_str(), shard).expect("both have the same grammar");
    Genesis {
        deployment: topology.name.to_string(),
        site: site.name.to_string(),
        ledger,
        members: topology.founding_members(pool, shard).into_iter().map(member).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Any points of the curve do.
    const KEYS: [&str; 9] = [
        "3tisoLJWv4uaZt4LvL4Jt6feAgYA8MHxW/ArFyON29o=",
        "yUxIchcIVFYF9iYCPttWv2UyAElx0EUJjQX96H3Lz7c=",
        "As/C+Ofsw7vjoYSUSUlNnwizThTmdJOXpRcEXUxl3ro=",
        "nWIP6+XwPcPJ8e7FltPB5AZakMyYNVo+G6HWZte8D80=",
        "73kRY4peN7bsQyJjjBc5O1zBmuKyKhKRy7KiZcjxYno=",
        "COBtacH/V9ugO8DZdHL59UnU2hbVOJvO8rA8Iz6XDCU=",
        "IlB2migxFR3dUdvEG4Zo/MQAPQkTV0SO2hdkcbwQqXo=",
        "wFWrYRH2Jax+9ukqV63ayQv3OvWpnR0RgO2+5C3/N5M=",
        "r7Gj71RqpRtwgoA6k2QfdmRsex6456dpcpVZlo2G4qY=",
    ];

    /// Two sites, a relay of both, a leaf that prefers the relay.
    fn topology() -> Topology {
        let mut keys = KEYS.iter().zip(1..);
        let mut process = |name: &str| {
            let (key, host) = keys.next().expect("enough keys");
            format!(
                "name = \"{name}\"\naddress = \"127.0.0.{host}\"\nport = 7000\nkey = \"{key}\"\n"
            )
        };
        let mut text = "[deployment]\nname = \"atlas\"\n".to_owned();
        for (site, nodes) in [("ams", ["a1", "a2", "a3"]), ("sfo", ["s1", "s2", "s3"])] {
            text += &format!("[sites.{site}]\nregion = \"r\"\n");
            for node in nodes {
                text += &format!("[[sites.{site}.nodes]]\n{}", process(node));
            }
        }
        for (name, parents) in [("relay", "[\"ams\", \"sfo\"]"), ("leaf", "[\"relay\", \"sfo\"]")] {
            text += &format!("[[mirrors]]\n{}region = \"r\"\n", process(name));
            text += &format!("parents = {parents}\npools = [\"flights\", \"settings\"]\n");
        }
        text += "[pools.flights]\nhome = \"ams\"\nshards = 2\n[pools.settings]\nhome = \"sfo\"\n";
        let loaded = Topology::parse(&text, Path::new("test.toml"), &[]);
        loaded.unwrap_or_else(|faults| panic!("{faults}")).topology
    }

    fn names(route: &Route) -> (Vec<&str>, Vec<String>) {
        let candidates = route.candidates.iter().map(|candidate| &*candidate.name).collect();
        (candidates, route.ledgers.iter().map(|genesis| genesis.ledger.to_string()).collect())
    }

    #[test]
    fn each_pool_comes_from_the_parents_that_offer_it() {
        let topology = topology();
        let relay = routes(&topology, "relay").unwrap();
        let mut all: Vec<_> = relay.iter().map(names).collect();
        all.iter_mut().for_each(|(candidates, _)| candidates.sort_unstable());
        all.sort_by_key(|(_, ledgers)| ledgers.clone());
        let flights = vec!["flights.0".to_owned(), "flights.1".to_owned()];
        assert_eq!(all[0], (vec!["a1", "a2", "a3"], flights.clone()));
        assert_eq!(all[1], (vec!["s1", "s2", "s3"], vec!["settings.0".to_owned()]));

        let leaf = routes(&topology, "leaf").unwrap();
        let mut all: Vec<_> = leaf.iter().map(names).collect();
        all.sort_by_key(|(_, ledgers)| ledgers.clone());
        assert_eq!(all[0], (vec!["relay"], flights), "sfo does not offer flights");
        assert_eq!(all[1].0[0], "relay");
        assert_eq!(all[1].0.len(), 4, "then the nodes of sfo");
        let at = leaf[0].candidates[0].address;
        assert_eq!(at.port(), 7_002);
        assert!(routes(&topology, "a1").is_err());
    }

    #[test]
    fn the_expected_genesis_has_the_shards_members_in_order() {
        let topology = topology();
        let genesis = expected_genesis(&topology, topology.pool("flights").unwrap(), 1);
        assert_eq!(genesis.origin(), "atlas/ams/flights/1");
        let members: Vec<_> = genesis.members.iter().map(|member| &*member.name).collect();
        assert_eq!(members, ["a1", "a2", "a3"]);
        assert_eq!(genesis.members[0].public_key, *topology.sites[0].nodes[0].key.as_bytes());
    }
}
