//! A whole deployment on one machine: keys, a topology file, and real processes of the one binary.
//!
//! `tradewind demo`, `tradewind bench` and the end-to-end tests stand on it:
//! - [`plan`]: what to build (sites, mirrors, pools) and how it is written down as a topology file with keys and free ports;
//! - `client`: clients of it, connected under the identity of its operator;
//! - [`process`]: the processes of such a deployment: start, wait until ready, kill, pause, stop.
//!
//! No process outlives its starter: each watches a pipe that closes when the starter ends, whatever ended it.

mod client;
pub mod plan;
pub mod process;

pub use plan::{MirrorPlan, OPERATOR, Plan, PlanError, PoolPlan, SitePlan};
pub use process::{Deployment, ProcessError, cpu_time};
