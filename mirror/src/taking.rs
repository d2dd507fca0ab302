//! Taking a snapshot of a parent, when all of them have pruned the entries that come next here.
//!
//! It lies in a folder of its own until all of it is there; the ledger is replaced by the next start, in one step that a crash
//! cannot divide. Nothing is believed but what a majority of the home site's nodes has signed for, and what is here already must
//! be the beginning of it.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use tradewind_ledger::note::VerifierKeyError;
use tradewind_ledger::tree::root_at;
use tradewind_ledger::{Manifest, ManifestError, Member, Policy, Version};
use tradewind_ledger_disk::Face;
use tradewind_store_disk::{Intake, Next};
use tradewind_topology::Topology;
use tradewind_wan::Lender;
use tradewind_wan::protocol::wire::Part;

use crate::replica::Replica;

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("{0}")]
    Parent(String),
    #[error("it has no snapshot to give yet")]
    None,
    #[error("it does not give {0:?} of this snapshot any more")]
    Gone(Next),
    #[error("its manifest does not hold: {0}")]
    Manifest(#[from] ManifestError),
    #[error("the ledger's members have unusable keys: {0}")]
    Members(#[from] VerifierKeyError),
    #[error("its snapshot is of another ledger")]
    Lineage,
    #[error("its snapshot is of {found} entries, of which {here} are here")]
    Old { found: Version, here: Version },
    #[error("it gave other bytes than the ledger commits to for {0:?}")]
    Wrong(Next),
    #[error("what is here is no beginning of what it has, although both are signed for")]
    Fork,
    #[error("the snapshot's folder: {0}")]
    Disk(#[from] std::io::Error),
    #[error(transparent)]
    Plant(#[from] tradewind_ledger_disk::PlantError),
    #[error("a thread panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// The folder in which a snapshot of a ledger is taken, below the mirror's data.
pub(crate) fn folder(data: &Path, ledger: &str) -> PathBuf {
    data.join("taking").join(ledger)
}

/// Takes the newest snapshot of a parent into `folder`, or goes on with it.
pub(crate) async fn take(
    replica: &Replica,
    folder: PathBuf,
    topology: &Topology,
    parent: &Lender,
) -> Result<(), NotTaken> {
    let lending = parent.connect(topology.name.as_str()).await.map_err(NotTaken::Parent)?;
    let manifest = lending.part(Version::ZERO, Part::Manifest).await.map_err(NotTaken::Parent)?;
    let manifest = Manifest::decode(&manifest.ok_or(NotTaken::None)?)?;
    let size = believe(replica, topology, &manifest)?;
    let ledger = replica.id();
    tracing::info!(%ledger, %size, from = parent.name(), "taking a snapshot");
    let mut intake = spawn_blocking(move || Intake::begin(&folder, manifest)).await??;
    while let Some(next) = intake.next() {
        let part = match next {
            Next::Block(index) => Part::Block(index),
            Next::Chunk(index) => Part::Chunk(index),
            Next::Value(_, digest) => Part::Value(digest),
        };
        let bytes = lending.part(size, part).await.map_err(NotTaken::Parent)?;
        let bytes = bytes.ok_or(NotTaken::Gone(next))?;
        let kept;
        (intake, kept) = spawn_blocking(move || {
            let kept = intake.keep(next, &bytes);
            (intake, kept)
        })
        .await?;
        if !kept? {
            return Err(NotTaken::Wrong(next));
        }
    }
    let reader = replica.reader.0.clone();
    spawn_blocking(move || {
        let here = reader.durable_size();
        let own = root_at(&reader, here).map_err(std::io::Error::other)?;
        if intake.root_at(here)? != Some(own) {
            return Err(NotTaken::Fork);
        }
        Ok(intake.finish(Face::Static)?)
    })
    .await?
}

/// Whether a majority of the shard's members has signed for what the manifest says, be it those that it began with or those
/// of today; how many entries it is of.
fn believe(
    replica: &Replica,
    topology: &Topology,
    manifest: &Manifest,
) -> Result<Version, NotTaken> {
    let origin = replica.genesis.origin();
    let founders = Policy::majority(&origin, replica.genesis.members.clone())?;
    if manifest.verify(&founders).is_err() {
        manifest.verify(&Policy::majority(&origin, members(replica, topology))?)?;
    }
    let (found, here) = (manifest.base.size(), replica.reader.0.durable_size());
    if manifest.base.lineage() != replica.lineage {
        return Err(NotTaken::Lineage);
    }
    if found <= here { Err(NotTaken::Old { found, here }) } else { Ok(found) }
}

/// The shard's members of today, by the topology.
fn members(replica: &Replica, topology: &Topology) -> Vec<Member> {
    let ledger = replica.id();
    let Some(pool) = topology.pool(ledger.pool()) else { return Vec::new() };
    let Some(site) = topology.site(pool.home.as_str()) else { return Vec::new() };
    let member = |index: usize| {
        let node = &site.nodes[index];
        Member { name: node.name.to_string(), public_key: *node.key.as_bytes() }
    };
    topology.shard_members(pool, ledger.shard()).into_iter().map(member).collect()
}
