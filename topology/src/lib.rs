//! The topology file, parsed once into a validated [`Topology`].
//!
//! One TOML file names every site, node, mirror, pool and public key of a deployment; each process
//! finds its own role in it. Everything here is about that file and nothing else: no socket is
//! opened, no clock is read.
//!
//! | module | what it holds |
//! |---|---|
//! | `names` | newtypes of the names that the file gives to things |
//! | `key` | [`PublicKey`], and the key inside a certificate or private-key file |
//! | `model` | the validated types: [`Topology`], [`Site`], [`Node`], [`Mirror`], [`Pool`], ... |
//! | `placement` | which nodes hold which shard, and the digest that the nodes of a site must share |

mod key;
mod model;
mod names;
mod placement;

pub use key::{KeyError, PublicKey};
pub use model::{
    ClientIdentity, Durability, FabricKind, Link, Mirror, Node, Parent, Pool, Ports, Process,
    Right, Rights, Role, Site, Timeouts, Topology,
};
pub use names::{ClientName, DeploymentName, NameError, PoolName, ProcessName, Region, SiteName};
