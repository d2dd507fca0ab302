//! A whole deployment on one machine: keys, a topology file, and real processes of the one binary.
//!
//! `tradewind demo`, `tradewind bench` and the end-to-end tests stand on it:
//! - [`plan`]: what to build (sites, mirrors, pools) and how it is written down as a topology file with keys and free ports;
//! - `client`: clients of it, connected under the identity of its operator;
//! - [`process`]: the processes of such a deployment: start, wait until ready, kill, pause, stop.
//!
//! And what is held against it:
//! - [`contenders`]: clients that contend for a few keys, and record what they asked and were told
//! - [`linear`]: whether such a history is that of a single copy
//!
//! And what makes their life hard:
//! - [`container`]: a room for a program, with network, mounts and processes of its own that vanish with it
//! - [`network`]: in there, a network namespace for each process, and links that are cut or lossy
//! - [`small_disk`]: in there, disks that can be full
//! - [`faults`]: disks that fail or stall, clocks that are wrong
//!
//! No process outlives its starter: each watches a pipe that closes when the starter ends, whatever ended it.

mod client;
pub mod container;
pub mod contenders;
pub mod faults;
pub mod linear;
pub mod network;
pub mod plan;
pub mod process;
pub mod small_disk;

pub use contenders::{Contenders, Recorded};
pub use faults::{Faults, Shim};
pub use network::Network;
pub use plan::{Addresses, MirrorPlan, OPERATOR, Plan, PlanError, PoolPlan, SitePlan};
pub use process::{Deployment, Launcher, ProcessError, cpu_time};
pub use small_disk::SmallDisk;
