//! `tradewind bench`: how fast, with what CPU time, next to what the machine itself can do.
//!
//! - [`load`]: keeps operations in flight and measures them
//! - [`limits`]: the machine's limits
//! - [`fractions`]: figures as fractions of them
//! - [`bulk`]: small puts beside large objects
//! - [`multicast`]: the ordered multicast of the core group, without clients and disks
//! - [`view`], [`join`]: what clients see of a change of views, and of a node that comes back far behind
//! - [`faults`]: the nodes, and the load, that these two need
//! - [`report`]: what is told

mod bulk;
mod faults;
mod fractions;
mod join;
mod limits;
mod load;
mod multicast;
mod report;
mod view;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use tokio::task::{JoinSet, block_in_place};
use tradewind_client::wire::{Level as ReadLevel, Read};
use tradewind_client::{Client, Command, Condition, Durability, Reply};
use tradewind_local::{Deployment, Plan, cpu_time};
use tradewind_topology::FabricKind;

use crate::connect::{ConnectArgs, block_on};
use crate::exit::Exit;
use crate::output::Output;
use crate::scratch::Scratch;
use fractions::{Line, Needs};
use load::{Cpu, Row, Shape};
use report::{Report, Setting};

/// The pool of [`Plan::one_site`].
const POOL: &str = "bench";
/// All nodes must be ready after this time.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long one limit of the machine is measured.
const LIMIT_TIME: Duration = Duration::from_millis(500);

/// Measure operations on nodes that it starts itself, or the machine
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tradewind bench put --size 256 --inflight 1,16,256 -o json
  tradewind bench get --inflight 256 --keys 1000000
  tradewind bench put --topology atlas.toml --pool scratch
  tradewind bench view --times 20 --suspect-ms 300
  tradewind bench join --state 10MB,1GB
  tradewind bench bulk --object 104857600 --objects 2 --inflight 1,16
  tradewind bench multicast --members 2,4,8,16 --size 100 --fabric shm
  tradewind bench limits")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Puts: from the call until the acknowledgement
    Put(Load),
    /// Gets of keys that were put before
    Get(Load),
    /// Puts without and with large objects being written beside them: both latencies, and their ratio
    Bulk(bulk::Objects),
    /// The core group's ordered multicast in memory, by members, senders, size and fabric
    Multicast(multicast::Multicast),
    /// Nodes that are killed and stopped under load: detection, the change of views, and what clients see of it
    View(view::View),
    /// A node that comes back and lacks much: what clients see while it learns, and when it is let in
    Join(join::Join),
    /// Append and fdatasync, loopback TCP, shared memory, memory copy: what the machine itself can do
    Limits {
        /// Where files are written
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// How long each limit is measured
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
}

#[derive(Debug, clap::Args)]
struct Load {
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Operations in flight; several numbers give one line each
    #[arg(long, value_delimiter = ',', default_value = "1,16,256")]
    inflight: Vec<usize>,
    /// Nodes to start
    #[arg(long, default_value_t = 3, conflicts_with = "pool")]
    nodes: usize,
    /// Shards of their pool
    #[arg(long, default_value_t = 1, conflicts_with = "pool")]
    shards: u32,
    /// Measure this pool of a running deployment (see Connection) instead of nodes of its own; keys `key-...` are
    /// written there
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Clients (connections), each at another node first; at most as many as there are operations in flight
    #[arg(long, default_value_t = 3)]
    clients: usize,
    /// Different keys
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// How long each line is measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long it runs before it is measured
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// When a put is acknowledged
    #[arg(long, value_enum, default_value_t = Level::Disk)]
    durability: Level,
    /// Gets see all that was acknowledged before, not only what the node asked happens to have
    #[arg(long)]
    linearizable: bool,
    /// What carries the nodes' rows
    #[arg(long, value_enum, default_value_t = FabricChoice::Auto)]
    fabric: FabricChoice,
    /// Let the nodes speak with each other without TLS
    #[arg(long)]
    no_fabric_tls: bool,
    /// Where the nodes' data lie during the run, and the machine's disk is measured
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What is measured.
struct Target {
    pool: Arc<str>,
    clients: Arc<[Client]>,
    /// The nodes that were started for it; none if somebody else runs them.
    own: Option<Deployment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// In the memory of all members
    Memory,
    /// On disk at a majority of the members
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FabricChoice {
    /// Shared memory if the machine has it
    Auto,
    /// Shared memory
    Shm,
    /// TCP
    Tcp,
    /// RDMA (the core group alone, at --address)
    Verbs,
}

impl From<FabricChoice> for FabricKind {
    fn from(choice: FabricChoice) -> Self {
        match choice {
            FabricChoice::Auto => Self::Auto,
            FabricChoice::Shm => Self::Shm,
            FabricChoice::Tcp => Self::Tcp,
            FabricChoice::Verbs => Self::Verbs,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Put,
    Get,
}

impl BenchArgs {
    /// Runs the benchmark; the report goes to stdout.
    ///
    /// # Errors
    /// When nodes cannot be started, or no operation succeeds.
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Exit> {
        let report = match self.what {
            What::Multicast(load) => {
                let report = multicast::measure(&load)?;
                output.print(&report, ToString::to_string)?;
                return Ok(Exit::Done);
            }
            What::View(view) => {
                let report = block_on(view::measure(&view, output))?;
                output.print(&report, ToString::to_string)?;
                return Ok(Exit::Done);
            }
            What::Join(join) => {
                let report = block_on(join::measure(&join, output))?;
                output.print(&report, ToString::to_string)?;
                return Ok(Exit::Done);
            }
            What::Bulk(objects) => {
                let report = block_on(bulk::measure(&objects))?;
                output.print(&report, ToString::to_string)?;
                return Ok(Exit::Done);
            }
            What::Limits { dir, seconds } => {
                let limits = limits::measure(&dir, duration(seconds)?)?;
                Report { setting: None, rows: Vec::new(), limits }
            }
            What::Put(load) => block_on(measure(Operation::Put, load))?,
            What::Get(load) => block_on(measure(Operation::Get, load))?,
        };
        output.print(&report, ToString::to_string)?;
        Ok(Exit::Done)
    }
}

async fn measure(operation: Operation, load: Load) -> anyhow::Result<Report> {
    ensure!(!load.inflight.contains(&0), "--inflight: found 0, allowed is 1 or more");
    ensure!(
        load.fabric != FabricChoice::Verbs,
        "--fabric verbs: nodes that this starts are on loopback, where no RDMA device is; start a deployment on the \
         device's address and measure it with --pool"
    );
    ensure!(load.clients > 0 && load.keys > 0, "--clients and --keys: allowed is 1 or more");
    let home = Scratch::new("bench", load.dir.as_deref())?;
    let limits = block_in_place(|| limits::measure(home.path(), LIMIT_TIME))?;
    let target = match &load.pool {
        None => start(&load, home.path()).await?,
        Some(pool) => attach(&load, pool).await?,
    };
    if operation == Operation::Get {
        fill(&load, &target).await?;
    }
    let setting = setting(operation, &load, &target)?;
    let needs = setting.needs(operation, &load);
    let mut rows = Vec::new();
    for &inflight in &load.inflight {
        let row = measure_one(operation, &load, inflight, &target).await;
        let row = row.with_context(|| format!("with {inflight} in flight"))?;
        rows.push(Line::new(row, &needs, &limits, setting.cores));
    }
    if let Some(mut own) = target.own {
        own.stop_all()?;
    }
    Ok(Report { setting: Some(setting), rows, limits })
}

/// Starts nodes; one connection a client, each to another node first.
async fn start(load: &Load, dir: &Path) -> anyhow::Result<Target> {
    let binary = std::env::current_exe().context("finding the own executable")?;
    let mut plan = Plan::one_site(load.nodes, load.shards);
    for site in &mut plan.sites {
        site.fabric = load.fabric.into();
        site.fabric_tls = !load.no_fabric_tls;
    }
    let mut own = Deployment::create(dir, &binary, plan)?;
    own.start_all()?;
    block_in_place(|| own.wait_ready(READY_LIMIT))?;
    let nodes = own.plan().process_names();
    let mut clients = Vec::new();
    for index in 0..load.clients {
        clients.push(own.client(&[&nodes[index % nodes.len()]]).await?);
    }
    Ok(Target { pool: POOL.into(), clients: clients.into(), own: Some(own) })
}

/// Connects to nodes that run already.
async fn attach(load: &Load, pool: &str) -> anyhow::Result<Target> {
    let connector = load.connect.connector()?;
    let mut clients = Vec::new();
    for _ in 0..load.clients {
        clients.push(connector.client(Some(pool)).await?);
    }
    Ok(Target { pool: pool.into(), clients: clients.into(), own: None })
}

fn setting(operation: Operation, load: &Load, target: &Target) -> anyhow::Result<Setting> {
    let welcome = target.clients[0].welcome();
    let pool = welcome.pools.iter().find(|pool| *pool.name == *target.pool);
    let pool = pool.with_context(|| format!("{} has no pool {}", welcome.server, target.pool))?;
    let members: BTreeSet<u32> =
        pool.shards.iter().flat_map(|shard| shard.members.iter().copied()).collect();
    Ok(Setting {
        operation: format!("{operation:?}").to_lowercase(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
        nodes: members.len(),
        shards: pool.shards.len(),
        replicas: pool.shards.first().map_or(0, |shard| shard.members.len()),
        fabric: target.own.is_some().then(|| FabricKind::from(load.fabric)),
        fabric_tls: target.own.is_some().then_some(!load.no_fabric_tls),
        client_tls: true,
        level: match (operation, load.linearizable) {
            (Operation::Put, _) => format!("durability {:?}", load.durability).to_lowercase(),
            (Operation::Get, true) => "linearizable".into(),
            (Operation::Get, false) => "local".into(),
        },
        value_bytes: load.size,
        keys: load.keys,
        clients: load.clients,
        seconds: load.seconds,
    })
}

impl Setting {
    /// What each operation needs of the machine.
    fn needs(&self, operation: Operation, load: &Load) -> Needs {
        let alone = operation == Operation::Get && !load.linearizable;
        // Nodes of one host share memory unless told otherwise; of those that somebody else runs nothing is known.
        let fabric = self.fabric.unwrap_or(FabricKind::Auto);
        let sync = operation == Operation::Put && load.durability == Level::Disk;
        Needs {
            client: true,
            members: (!alone && self.replicas > 1).then_some(fabric),
            sync,
            bytes: load.size,
            copies: if operation == Operation::Put { self.replicas.saturating_sub(1) } else { 0 },
            // Those that were started here share the disk that was measured.
            disks: if sync && load.pool.is_none() { self.replicas } else { 0 },
        }
    }
}

async fn measure_one(
    operation: Operation,
    load: &Load,
    inflight: usize,
    target: &Target,
) -> anyhow::Result<Row> {
    let shape =
        Shape { inflight, warm_up: duration(load.warm_up)?, measured: duration(load.seconds)? };
    let cpu = || -> anyhow::Result<Cpu> {
        let of_all = |own: &Deployment| {
            own.running().into_iter().map(|name| own.cpu_time(&name)).sum::<Result<_, _>>()
        };
        let servers = target.own.as_ref().map(of_all).transpose()?;
        Ok(Cpu { client: cpu_time(std::process::id())?, servers })
    };
    let (clients, pool) = (Arc::clone(&target.clients), Arc::clone(&target.pool));
    let (size, keys, durability) = (load.size, load.keys, load.durability);
    let level = if load.linearizable { ReadLevel::Linearizable } else { ReadLevel::Local };
    load::drive(shape, cpu, move |number| {
        // Neighbouring numbers go to different clients, so that all of them are busy with few operations in flight.
        let client = clients[number as usize % clients.len().min(inflight)].clone();
        let pool = Arc::clone(&pool);
        async move {
            match operation {
                Operation::Put => put(&client, &pool, number % keys, size, durability).await,
                Operation::Get => get(&client, &pool, scatter(number, keys), level).await,
            }
        }
    })
    .await
}

/// Puts every key once, with many in flight.
async fn fill(load: &Load, target: &Target) -> anyhow::Result<()> {
    const WORKERS: u64 = 256;
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let client = target.clients[worker as usize % target.clients.len()].clone();
        let pool = Arc::clone(&target.pool);
        let (size, keys, durability) = (load.size, load.keys, load.durability);
        workers.spawn(async move {
            for number in (worker..keys).step_by(WORKERS as usize) {
                put(&client, &pool, number, size, durability).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

async fn put(
    client: &Client,
    pool: &str,
    number: u64,
    size: usize,
    durability: Level,
) -> anyhow::Result<()> {
    let durability = match durability {
        Level::Memory => Durability::Memory,
        Level::Disk => Durability::Disk,
    };
    /// No two values are alike: equal ones that are large would share a file.
    static STAMP: AtomicU64 = AtomicU64::new(0);
    // The rest need not be random, nothing compresses it.
    let mut value = vec![0x5a; size];
    let stamp = STAMP.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let length = stamp.len().min(size);
    value[..length].copy_from_slice(&stamp[..length]);
    let command = Command::Put { key: key(number), value, condition: Condition::Always };
    match client.execute(pool, &command, Some(durability)).await? {
        Reply::Written { .. } => Ok(()),
        other => bail!("put: {other:?}"),
    }
}

async fn get(client: &Client, pool: &str, number: u64, level: ReadLevel) -> anyhow::Result<()> {
    let read = Read { level, ..Read::default() };
    let (item, _) = client.get(pool, &key(number), read).await?;
    item.with_context(|| format!("key {number} is not there")).map(drop)
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number:012}").into_bytes()
}

/// Visits all keys in an order that no cache line likes.
fn scatter(number: u64, keys: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys
}

fn duration(seconds: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .with_context(|| format!("found {seconds} seconds, allowed is 0 and more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_one_length_and_scattered_numbers_are_keys() {
        assert_eq!(key(0).len(), key(99_999).len());
        assert!((0..1_000).all(|number| scatter(number, 7) < 7));
    }

    #[test]
    fn negative_times_are_refused() {
        assert!(duration(-1.0).is_err() && duration(f64::NAN).is_err());
    }
}
