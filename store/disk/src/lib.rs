//! A store's snapshots in files: where a start begins, so that it does not replay all history.
//!
//! A node and a mirror do the same: a ledger is [opened](open) from the newest snapshot that is whole, and only the
//! entries after it are replayed. While the process runs, a [`Snapshotter`] makes the next ones, beside the deliveries,
//! and prunes what a pool's [`Retain`] does not keep.
//!
//! | module | holds |
//! |---|---|
//! | `file` | one snapshot's file: written whole or not at all, read strictly |
//! | `folder` | the snapshots of one ledger, and the bases that are left of older ones |
//! | `open` | [`open`]: ledger and store, from the newest snapshot |
//! | `maker` | [`Snapshotter`]: the thread that makes snapshots, lets stores forget and prunes ledgers |
//! | `lend` | [`Lent`]: giving the parts of a snapshot away |
//! | `shelf` | [`Shelf`]: the newest one of a running process, for whoever lacks what was pruned |
//! | `intake` | [`Intake`]: taking them, and making a ledger's directory of them |
//! | `retain` | [`Retain`]: how much history is kept |

mod file;
mod folder;
mod intake;
mod lend;
mod maker;
mod open;
mod retain;
mod shelf;

pub use file::FileFault;
pub use intake::{Held, Intake, Next, replace_ledger};
pub use lend::Lent;
pub use maker::{Due, Snapshotter, Source};
pub use open::{Begun, Started, agreed, manifest, open};
pub use retain::{Retain, kept_bytes};
pub use shelf::{Shelf, manifest_of};
