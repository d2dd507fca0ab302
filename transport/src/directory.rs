//! Who is who: the topology's public keys, each with the one name and role it stands for.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use tradewind_topology::{PublicKey, Rights, Role, Topology};

/// A peer as the topology names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's name: unique among processes, and among clients.
    pub name: String,
    /// What its key stands for.
    pub role: Role,
    /// What it may do by the client protocol: nothing, unless it is a client.
    pub rights: Rights,
}

/// The peer that each public key stands for.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    peers: BTreeMap<PublicKey, Arc<Peer>>,
}

/// Why a directory cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// One key for two peers: a holder of it could speak for either.
    #[error("{first} and {second} have the same public key {key}: give each a key of its own")]
    DuplicateKey {
        /// The key.
        key: PublicKey,
        /// The name that has it.
        first: String,
        /// Another name that has it too.
        second: String,
    },
}

impl Directory {
    /// The directory of a topology: all nodes, mirrors and clients.
    ///
    /// # Errors
    /// [`DirectoryError::DuplicateKey`].
    pub fn from_topology(topology: &Topology) -> Result<Self, DirectoryError> {
        Self::new(topology.identities().map(|(key, name, role)| {
            let rights = match (&role, topology.client(name)) {
                (Role::Client, Some(client)) => client.rights.clone(),
                _ => Rights::Pools(BTreeMap::new()),
            };
            (key, Peer { name: name.to_owned(), role, rights })
        }))
    }

    /// A directory of these peers.
    ///
    /// # Errors
    /// [`DirectoryError::DuplicateKey`].
    pub fn new(
        entries: impl IntoIterator<Item = (PublicKey, Peer)>,
    ) -> Result<Self, DirectoryError> {
        let mut peers = BTreeMap::new();
        for (key, peer) in entries {
            match peers.entry(key) {
                Entry::Vacant(vacant) => _ = vacant.insert(Arc::new(peer)),
                Entry::Occupied(taken) => {
                    let (first, second) = (taken.get().name.clone(), peer.name);
                    return Err(DirectoryError::DuplicateKey { key, first, second });
                }
            }
        }
        Ok(Self { peers })
    }

    /// The peer that a key stands for.
    #[must_use]
    pub fn peer(&self, key: &PublicKey) -> Option<&Arc<Peer>> {
        self.peers.get(key)
    }
}
