//! What to build, and how it is written down: a topology file, private keys and ports that are free on this machine.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;
use tradewind_topology::{FabricKind, Ports, PublicKey, Topology};
use tradewind_transport::{Identity, IdentityError};

use crate::network;

/// Ports of one process: client, HTTP, WAN, group.
const PORTS_A_PROCESS: u16 = 4;
/// Where to look for free ports: below the range from which the system takes ports for outgoing connections.
const PORT_RANGE: std::ops::Range<u16> = 10_240..32_000;

/// A deployment to build on this machine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The deployment's name.
    pub name: String,
    /// Its datacenters.
    pub sites: Vec<SitePlan>,
    /// Its mirrors.
    pub mirrors: Vec<MirrorPlan>,
    /// Its pools.
    pub pools: Vec<PoolPlan>,
    /// More lines for the topology file, for instance a `[timeouts]` table.
    pub extra: String,
    /// Where its processes listen.
    pub addresses: Addresses,
}

/// Where the processes of a deployment listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// All on 127.0.0.1, at ports that are free.
    #[default]
    Loopback,
    /// Each at an address of its own, that of a [`Network`](crate::Network) with the same names in the same order.
    Namespaces,
}

/// A datacenter with `nodes` nodes, named `SITE-1`, `SITE-2`, ...
#[derive(Clone, Debug)]
pub struct SitePlan {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// How many nodes it has.
    pub nodes: usize,
    /// What carries their rows.
    pub fabric: FabricKind,
    /// Whether its nodes speak TLS with each other.
    pub fabric_tls: bool,
}

/// A mirror.
#[derive(Clone, Debug)]
pub struct MirrorPlan {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Sites or mirrors it may follow, in order of preference.
    pub parents: Vec<String>,
    /// Pools it subscribes to.
    pub pools: Vec<String>,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct PoolPlan {
    /// Its name.
    pub name: String,
    /// Its home site.
    pub home: String,
    /// How many shards it has.
    pub shards: u32,
    /// How many nodes hold each shard.
    pub replicas: u32,
}

/// The client identity of a local deployment: its key is `keys/operator.key`, it may do everything.
pub const OPERATOR: &str = "operator";

/// Why a plan could not be written down.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A file or directory.
    #[error("{path}: {source}")]
    Io {
        /// What was to be written.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key could not be made or stored.
    #[error("making the key of {name}: {reason}")]
    Key {
        /// The process.
        name: String,
        /// What went wrong.
        reason: String,
    },
    /// The topology file does not hold.
    #[error("{0}")]
    Topology(String),
    /// The directory holds something else.
    #[error(
        "{path} describes another deployment, with the processes {found}; expected {expected}: choose another directory"
    )]
    Foreign {
        /// The topology file.
        path: String,
        /// The processes it names.
        found: String,
        /// The processes of the plan.
        expected: String,
    },
    /// No ports.
    #[error(
        "no {wanted} adjacent ports in a row are free on 127.0.0.1 between {from} and {to}; stop what listens there"
    )]
    Ports {
        /// How many are wanted in a row.
        wanted: u16,
        /// First port looked at.
        from: u16,
        /// End of the range.
        to: u16,
    },
}

impl Plan {
    /// One site of `nodes` nodes with the pool `bench`, no mirrors.
    #[must_use]
    pub fn one_site(nodes: usize, shards: u32) -> Self {
        Self {
            name: "local".into(),
            sites: vec![SitePlan {
                name: "ams".into(),
                region: "eu".into(),
                nodes,
                fabric: FabricKind::Auto,
                fabric_tls: true,
            }],
            mirrors: Vec::new(),
            pools: vec![PoolPlan {
                name: "bench".into(),
                home: "ams".into(),
                shards,
                replicas: u32::try_from(nodes).expect("a few nodes"),
            }],
            extra: String::new(),
            addresses: Addresses::default(),
        }
    }

    /// Writes the plan below `dir` unless a topology file is there already, and gives what the file says.
    pub(crate) fn write(&self, dir: &Path) -> Result<Topology, PlanError> {
        let file = dir.join("topology.toml");
        if !file.exists() {
            let io = |path: &Path| {
                let path = path.display().to_string();
                move |source| PlanError::Io { path, source }
            };
            fs::create_dir_all(dir.join("keys")).map_err(io(dir))?;
            fs::write(&file, self.topology_text(dir)?).map_err(io(&file))?;
        }
        let topology = read(&file)?;
        let names = |topology| processes(topology).map(|(name, _)| name.to_owned());
        let (mut found, mut expected) =
            (names(&topology).collect::<Vec<_>>(), self.process_names());
        found.sort_unstable();
        expected.sort_unstable();
        if found != expected {
            return Err(PlanError::Foreign {
                path: file.display().to_string(),
                found: found.join(", "),
                expected: expected.join(", "),
            });
        }
        Ok(topology)
    }

    /// The names of all its processes: nodes, then mirrors.
    #[must_use]
    pub fn process_names(&self) -> Vec<String> {
        let nodes = self.sites.iter().flat_map(SitePlan::node_names);
        nodes.chain(self.mirrors.iter().map(|mirror| mirror.name.clone())).collect()
    }

    /// The names of the nodes that may hold a pool: those of its home site.
    ///
    /// # Panics
    /// If the plan has no such pool, or the pool's home is no site of it.
    #[must_use]
    pub fn nodes_of_pool(&self, pool: &str) -> Vec<String> {
        let pool = self.pools.iter().find(|own| own.name == pool).expect("a pool of the plan");
        let home = self.sites.iter().find(|site| site.name == pool.home);
        home.expect("a site of the plan").node_names()
    }

    fn topology_text(&self, dir: &Path) -> Result<String, PlanError> {
        let mut text = format!(
            "[deployment]\nname = \"{}\"\nkeys = \"keys\"\ndata = \"data\"\n\n{}\n",
            self.name, self.extra
        );
        let mut addresses = (0..).map(network::address);
        let mut process = |name: &str| -> Result<String, PlanError> {
            let key = make_key(dir, name)?;
            Ok(match self.addresses {
                Addresses::Loopback => {
                    let port = free_ports()?;
                    format!("address = \"127.0.0.1\"\nport = {port}\nkey = \"{key}\"\n")
                }
                Addresses::Namespaces => {
                    let address = addresses.next().expect("it has no end");
                    format!("address = \"{address}\"\nhttp = \"{address}:80\"\nkey = \"{key}\"\n")
                }
            })
        };
        for site in &self.sites {
            let SitePlan { name, region, fabric, fabric_tls, .. } = site;
            put(
                &mut text,
                format_args!(
                    "[sites.{name}]\nregion = \"{region}\"\nfabric = \"{fabric}\"\nfabric_tls = {fabric_tls}\n"
                ),
            );
            for name in site.node_names() {
                let lines = process(&name)?;
                put(
                    &mut text,
                    format_args!("[[sites.{}.nodes]]\nname = \"{name}\"\n{lines}\n", site.name),
                );
            }
        }
        for mirror in &self.mirrors {
            let lines = process(&mirror.name)?;
            put(
                &mut text,
                format_args!(
                    "[[mirrors]]\nname = \"{}\"\nregion = \"{}\"\nparents = {:?}\npools = {:?}\n{lines}\n",
                    mirror.name, mirror.region, mirror.parents, mirror.pools
                ),
            );
        }
        for pool in &self.pools {
            put(
                &mut text,
                format_args!(
                    "[pools.{}]\nhome = \"{}\"\nshards = {}\nreplicas = {}\n\n",
                    pool.name, pool.home, pool.shards, pool.replicas
                ),
            );
        }
        let key = make_key(dir, OPERATOR)?;
        put(&mut text, format_args!("[clients.{OPERATOR}]\nkey = \"{key}\"\nrights = \"admin\"\n"));
        Ok(text)
    }
}

impl SitePlan {
    /// The names of its nodes.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|index| format!("{}-{index}", self.name)).collect()
    }
}

fn put(text: &mut String, lines: std::fmt::Arguments<'_>) {
    text.write_fmt(lines).expect("a String takes everything");
}

/// Makes the private key of `name` in the deployment's `keys` directory and gives the public one.
fn make_key(dir: &Path, name: &str) -> Result<PublicKey, PlanError> {
    let key =
        |error: IdentityError| PlanError::Key { name: name.into(), reason: error.to_string() };
    let identity = Identity::generate(name).map_err(key)?;
    identity.save(&dir.join("keys").join(format!("{name}.key"))).map_err(key)?;
    Ok(identity.public_key())
}

/// The topology in a file.
pub(crate) fn read(file: &Path) -> Result<Topology, PlanError> {
    let loaded = Topology::load(file);
    Ok(loaded.map_err(|faults| PlanError::Topology(faults.to_string()))?.topology)
}

/// The processes of a topology with the ports they listen on.
pub(crate) fn processes(topology: &Topology) -> impl Iterator<Item = (&str, Ports)> {
    let nodes = topology.sites.iter().flat_map(|site| &site.nodes);
    let nodes = nodes.map(|node| (node.name.as_str(), node.ports));
    nodes.chain(topology.mirrors.iter().map(|mirror| (mirror.name.as_str(), mirror.ports)))
}

/// A row of adjacent free ports. Nothing keeps them free until the process binds them: good enough on one machine.
///
/// # Errors
/// When there is none.
pub fn free_ports() -> Result<u16, PlanError> {
    /// Rows handed out by this program, so that two of its deployments do not meet.
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let rows = u32::from((PORT_RANGE.end - PORT_RANGE.start) / PORTS_A_PROCESS);
    // Start at a place of one's own, so that deployments of programs that run at the same time rarely meet.
    let own = std::process::id().wrapping_mul(97);
    for _ in 0..rows {
        let row = own.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % rows;
        let base =
            PORT_RANGE.start + u16::try_from(row).expect("fewer rows than ports") * PORTS_A_PROCESS;
        if (base..base + PORTS_A_PROCESS).all(is_free) {
            return Ok(base);
        }
    }
    Err(PlanError::Ports { wanted: PORTS_A_PROCESS, from: PORT_RANGE.start, to: PORT_RANGE.end })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = Plan::one_site(3, 2);
        plan.mirrors.push(MirrorPlan {
            name: "leaf".into(),
            region: "us".into(),
            parents: vec!["ams".into()],
            pools: vec!["bench".into()],
        });
        plan
    }

    #[test]
    fn a_plan_becomes_a_topology_that_holds_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let topology = plan().write(dir.path()).unwrap();
        let names: Vec<&str> = processes(&topology).map(|(name, _)| name).collect();
        assert_eq!(names, ["ams-1", "ams-2", "ams-3", "leaf"]);
        let text = fs::read_to_string(dir.path().join("topology.toml")).unwrap();
        assert_eq!(
            plan().write(dir.path()).unwrap(),
            topology,
            "a second start finds the same ports"
        );
        assert_eq!(fs::read_to_string(dir.path().join("topology.toml")).unwrap(), text);
        for name in plan().process_names().iter().map(String::as_str).chain([OPERATOR]) {
            Identity::load(name, &dir.path().join(format!("keys/{name}.key"))).unwrap();
        }
    }

    #[test]
    fn a_directory_of_another_deployment_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        plan().write(dir.path()).unwrap();
        let error = Plan::one_site(5, 1).write(dir.path()).unwrap_err();
        assert!(matches!(error, PlanError::Foreign { .. }), "{error}");
    }

    #[test]
    fn rows_of_ports_do_not_overlap() {
        let mut bases: Vec<u16> = (0..20).map(|_| free_ports().unwrap()).collect();
        bases.sort_unstable();
        assert!(bases.windows(2).all(|pair| pair[1] - pair[0] >= PORTS_A_PROCESS), "{bases:?}");
    }
}
