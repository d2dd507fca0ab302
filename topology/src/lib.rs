//! The topology file, parsed once into a validated [`Topology`].
//!
//! One TOML file names every site, node, mirror, pool and public key of a deployment; each process
//! finds its own role in it. Everything here is about that file and nothing else: no socket is
//! opened, no clock is read.
//!
//! | module | what it holds |
//! |---|---|
//! | `load` | [`Topology::load`]: the three passes in a row |
//! | `tree` | TOML with lines, environment overrides laid over it |
//! | `section` | reading one table key by key, never stopping at a fault |
//! | `draft` | first pass: every value has its type |
//! | `check` | second pass: every name leads somewhere, and the whole makes sense |
//! | `files` | certificates and private keys that lie beside the file |
//! | `build` | third pass: a faultless draft becomes a [`Topology`] |
//! | `diagnostics` | place, key, found, allowed |
//! | `names` | newtypes of the names that the file gives to things |
//! | `key` | [`PublicKey`], and the key inside a certificate or private-key file |
//! | `model` | the validated types: [`Topology`], [`Site`], [`Node`], [`Mirror`], [`Pool`], ... |
//! | `roster` | who the nodes of a site are from change to change, which of them hold which shard, and the digests that they must share |
//! | `init` | a file to start from |
//! | [`render`] | the topology as text, DOT and SVG |

mod build;
mod check;
mod diagnostics;
mod draft;
mod files;
mod init;
mod key;
mod load;
mod model;
mod names;
pub mod render;
mod retain;
mod roster;
mod section;
mod tree;

pub use diagnostics::{Diagnostic, Diagnostics, Place, Severity};
pub use init::{InitOptions, init};
pub use key::{KeyError, PublicKey};
pub use load::Loaded;
pub use model::{
    ClientIdentity, Durability, FabricKind, Link, Mirror, Node, Parent, Pool, Ports, Process,
    Right, Rights, Role, Site, Timeouts, Topology,
};
pub use names::{ClientName, DeploymentName, NameError, PoolName, ProcessName, Region, SiteName};
pub use retain::Retain;
pub use roster::{Change, ChangeKind, Roster, Seat};
pub use tree::ENVIRONMENT_PREFIX;
