//! Who the nodes of a site are, from its founding to the last change that the file tells of, and which of them hold
//! which shard.
//!
//! A *roster* is the nodes of a site between two changes, each with the key that it has there; roster 0 is the
//! founders. Nodes keep their place in the file for ever, those that were removed too: it is their identity inside
//! the site.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::key::PublicKey;
use crate::model::{Node, Pool, Site, Topology};

/// One change of who the nodes of a site are. The file tells all of them, in order, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Index into the site's nodes.
    pub node: usize,
    /// What became of it.
    pub kind: ChangeKind,
    /// From this change on each shard of the site has so many members, as far as there are nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
}

/// What becomes of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is one from here on.
    Add,
    /// It is none any more.
    Remove,
    /// It lost its disk, and goes on in its place under a new key.
    Replace {
        /// The key that it had before.
        former_key: PublicKey,
    },
}

/// The nodes of a site between two changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Ascending by node.
    pub seats: Vec<Seat>,
    /// SHA-256 over all that the nodes of the site must agree on, this roster and those before it included.
    pub digest: [u8; 32],
}

/// A node on a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Index into the site's nodes.
    pub node: usize,
    /// The key that it has there.
    pub key: PublicKey,
}

/// The nodes before the first change and after each: the places of those on the roster.
pub(crate) fn histories(nodes: usize, changes: &[(usize, Step)]) -> Vec<BTreeSet<usize>> {
    let added = |node: &usize| changes.iter().any(|(it, step)| it == node && *step == Step::Add);
    let mut now: BTreeSet<usize> = (0..nodes).filter(|node| !added(node)).collect();
    let mut all = vec![now.clone()];
    for (node, step) in changes {
        match step {
            Step::Add => _ = now.insert(*node),
            Step::Remove => _ = now.remove(node),
            Step::Replace => {}
        }
        all.push(now.clone());
    }
    all
}

/// A change without what does not matter to who is on a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Add,
    Remove,
    Replace,
}

impl Change {
    fn step(&self) -> (usize, Step) {
        let step = match self.kind {
            ChangeKind::Add => Step::Add,
            ChangeKind::Remove => Step::Remove,
            ChangeKind::Replace { .. } => Step::Replace,
        };
        (self.node, step)
    }
}

/// The members of one shard on each roster of a site.
///
/// On the first they are `replicas` nodes that follow each other in the ring of the founders, starting at `start`. A
/// change moves as little as can be: who is removed leaves; while the shard has fewer members than are wanted, nodes
/// that are none join, whoever was just added first of all.
pub(crate) fn shard_history(
    rosters: &[BTreeSet<usize>],
    changes: &[(usize, Step)],
    wanted: impl Fn(usize) -> usize,
    (start, shard): (usize, usize),
) -> Vec<BTreeSet<usize>> {
    let founders: Vec<usize> = rosters[0].iter().copied().collect();
    let place = |replica: usize| founders[(start + replica) % founders.len()];
    let mut members: BTreeSet<usize> = (0..wanted(0).min(founders.len())).map(place).collect();
    let mut all = vec![members.clone()];
    for (at, (roster, change)) in (1..).zip(rosters[1..].iter().zip(changes)) {
        members.retain(|node| roster.contains(node));
        while members.len() < wanted(at) {
            let others: Vec<usize> = roster.difference(&members).copied().collect();
            let added = others.iter().find(|node| **node == change.0);
            let Some(next) = added.or_else(|| others.get(shard % others.len().max(1))) else {
                break;
            };
            members.insert(*next);
        }
        all.push(members.clone());
    }
    all
}

/// How many members each shard of a pool is to have that began with `first`, after changes of which some give a number.
pub(crate) fn wanted(first: u32, changes: impl Iterator<Item = Option<u32>>) -> usize {
    changes.flatten().fold(first, u32::max) as usize
}

impl Site {
    /// The nodes of the site, with their indexes into [`Site::nodes`], which has those that were removed as well.
    pub fn present(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(index, _)| !self.is_removed(*index))
    }

    /// Whether a node was removed.
    #[must_use]
    pub fn is_removed(&self, node: usize) -> bool {
        let of = |change: &&Change| change.node == node && change.kind == ChangeKind::Remove;
        self.changes.iter().any(|change| of(&change))
    }

    fn steps(&self) -> Vec<(usize, Step)> {
        self.changes.iter().map(Change::step).collect()
    }

    /// The key that a node has on a roster.
    fn key_on(&self, node: usize, roster: usize) -> PublicKey {
        let later = self.changes[roster.min(self.changes.len())..].iter();
        let former =
            later.filter(|change| change.node == node).find_map(|change| match change.kind {
                ChangeKind::Replace { former_key } => Some(former_key),
                _ => None,
            });
        former.unwrap_or(self.nodes[node].key)
    }

    /// How many members each shard of a pool is to have on a roster.
    fn wanted(&self, pool: &Pool, roster: usize) -> usize {
        wanted(pool.replicas, self.changes[..roster].iter().map(|change| change.replicas))
    }
}

impl Topology {
    /// The rosters of a site: that of its founding, then one for each change.
    ///
    /// # Panics
    /// If `site` is not of this topology.
    #[must_use]
    pub fn rosters(&self, site: &Site) -> Vec<Roster> {
        let mut digest = self.site_digest(site);
        let histories = histories(site.nodes.len(), &site.steps());
        let rosters = histories.iter().enumerate().map(|(at, nodes)| {
            if let Some(before) = at.checked_sub(1) {
                let Change { node, kind, replicas } = &site.changes[before];
                let (name, key) = (&site.nodes[*node].name, site.key_on(*node, at));
                let mut text =
                    format!("tradewind roster v1 {at}\n{}\n{name} {key}\n", hex(&digest));
                _ = writeln!(text, "{kind:?} {replicas:?}");
                digest = Sha256::digest(text.as_bytes()).into();
            }
            let seat = |node: &usize| Seat { node: *node, key: site.key_on(*node, at) };
            Roster { seats: nodes.iter().map(seat).collect(), digest }
        });
        rosters.collect()
    }

    /// The members of one shard on each roster of its home, as indexes into the home site's nodes, ascending.
    ///
    /// On the first roster they are `pool.replicas` nodes that follow each other in the ring of the site's founders,
    /// starting at a place that a hash of the pool's name and the shard's number gives, so that the load spreads. A
    /// change moves as little as can be: who is removed leaves; while the shard has fewer members than are wanted,
    /// nodes that are none join, whoever was just added first of all. Stable for ever: data lies where this function
    /// says.
    ///
    /// # Panics
    /// If `pool` is not of this topology (its home is missing) or `shard` is not below `pool.shards`.
    #[must_use]
    pub fn shard_members_on(&self, pool: &Pool, shard: u32) -> Vec<Vec<usize>> {
        assert!(shard < pool.shards, "shard {shard} of {} in pool {}", pool.shards, pool.name);
        let site = self.site(pool.home.as_str()).expect("a validated pool has its home");
        let steps = site.steps();
        let rosters = histories(site.nodes.len(), &steps);
        let start = ring_start(pool.name.as_str(), rosters[0].len()) + shard as usize;
        let wanted = |roster| site.wanted(pool, roster);
        let all = shard_history(&rosters, &steps, wanted, (start, shard as usize));
        all.into_iter().map(|members| members.into_iter().collect()).collect()
    }

    /// The members of one shard today: see [`Topology::shard_members_on`], which has its panics too.
    #[must_use]
    pub fn shard_members(&self, pool: &Pool, shard: u32) -> Vec<usize> {
        self.shard_members_on(pool, shard).pop().expect("a site has a first roster")
    }

    /// The members that a shard began with, and that its ledger's first entry names; panics as
    /// [`Topology::shard_members_on`].
    #[must_use]
    pub fn founding_members(&self, pool: &Pool, shard: u32) -> Vec<usize> {
        self.shard_members_on(pool, shard).swap_remove(0)
    }

    /// SHA-256 over all that the nodes of `site` must agree on before they may speak to each other:
    /// the deployment's name, the site's founders with their keys in order, and the pools at home
    /// there. Addresses, deadlines, mirrors and clients are not in it: they may change one process
    /// at a time. Changes of the roster are told apart by [`Roster::digest`].
    ///
    /// # Panics
    /// If `site` is not of this topology.
    #[must_use]
    pub fn site_digest(&self, site: &Site) -> [u8; 32] {
        assert!(self.site(site.name.as_str()).is_some(), "site {} of another file", site.name);
        let mut text = format!("tradewind site v1\n{}\n{}\n", self.name, site.name);
        for node in &histories(site.nodes.len(), &site.steps())[0] {
            let (found, key) = (&site.nodes[*node], site.key_on(*node, 0));
            _ = writeln!(text, "node {} {key}", found.name);
            if let Some(founding) = found.founding_key.filter(|founding| *founding != key) {
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

/// Where the first shard of a pool begins in a ring of so many nodes; each further one a place later: even, whatever
/// the hash.
pub(crate) fn ring_start(pool: &str, nodes: usize) -> usize {
    let hash: [u8; 32] = Sha256::digest(pool.as_bytes()).into();
    let word = u64::from_be_bytes(hash[..8].try_into().expect("eight of 32 bytes"));
    (word % nodes as u64) as usize
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
