//! A network of network namespaces: one for each process, joined by a bridge, with faults on single directions.
//!
//! Only inside a [`container`](crate::container): names and addresses are not kept apart from those of others, and
//! nothing is taken down here. Clients run beside the bridge and are called [`CLIENTS`].

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use thiserror::Error;

use crate::container::{inside, run, tool};

/// Whoever is in no namespace of a process: the clients.
pub const CLIENTS: &str = "clients";
/// Address of the clients; that of the n-th process is n + 1 further.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Packets longer than this do not come through where large ones are lost.
const LARGE: u32 = 1_000;

/// Why the network is not as wanted.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// Not in a container.
    #[error(
        "network namespaces are made only inside a container: start this program by `container::command`"
    )]
    Outside,
    /// A tool failed.
    #[error("{0}")]
    Tool(String),
    /// No such member.
    #[error("{found} is not in the network; there are {known}")]
    Member {
        /// The name.
        found: String,
        /// The members.
        known: String,
    },
}

/// What happens to packets from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// None comes through.
    Cut,
    /// Those beyond some 1,000 bytes do not come through, and nobody is told: an MTU black hole.
    LargeLost,
    /// So many of a hundred are lost.
    Lossy(u8),
}

/// The network.
#[derive(Debug)]
pub struct Network {
    members: BTreeMap<String, Ipv4Addr>,
    faults: BTreeMap<(String, String), LinkFault>,
}

/// The address of the process with this index.
pub(crate) fn address(index: usize) -> Ipv4Addr {
    let index = u32::try_from(index).expect("a few processes");
    Ipv4Addr::from_bits(FIRST.to_bits() + 1 + index)
}

impl Network {
    /// Makes a namespace for each name, in order.
    ///
    /// # Errors
    /// When the system refuses, or outside a container.
    pub fn create<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, NetworkError> {
        if inside().is_none() {
            return Err(NetworkError::Outside);
        }
        // The names of namespaces are mounts: those of this container are to be its own.
        std::fs::create_dir_all("/run/netns").map_err(|e| NetworkError::Tool(e.to_string()))?;
        call(tool("mount").args(["-t", "tmpfs", "tmpfs", "/run/netns"]))?;
        let mut members = BTreeMap::from([(CLIENTS.to_owned(), FIRST)]);
        members.extend(
            names.into_iter().enumerate().map(|(index, name)| (name.to_owned(), address(index))),
        );
        let network = Self { members, faults: BTreeMap::new() };
        ip("link add bridge type bridge")?;
        ip(&format!("address add {FIRST}/24 dev bridge"))?;
        ip("link set bridge up")?;
        for (name, address) in &network.members {
            if name != CLIENTS {
                network.join(name, *address)?;
            }
            network.rules(name)?;
        }
        Ok(network)
    }

    fn join(&self, name: &str, address: Ipv4Addr) -> Result<(), NetworkError> {
        let link = format!("member-{}", address.octets()[3]);
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {link} type veth peer name eth0 netns {name}"))?;
        ip(&format!("link set {link} master bridge up"))?;
        ip(&format!("-n {name} address add {address}/24 dev eth0"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {name} link set lo up"))
    }

    /// What to put before a command so that it runs as this member; the process stays the same.
    #[must_use]
    pub fn prefix(name: &str) -> Vec<std::ffi::OsString> {
        let program = tool("nsenter").get_program().to_owned();
        vec![program, format!("--net=/run/netns/{name}").into()]
    }

    /// Lets a fault happen to packets from one member to another, instead of what happened to them before; `None`
    /// heals that direction.
    ///
    /// # Errors
    /// When there is no such member, or the system refuses.
    pub fn set(
        &mut self,
        from: &str,
        to: &str,
        fault: Option<LinkFault>,
    ) -> Result<(), NetworkError> {
        for name in [from, to] {
            if !self.members.contains_key(name) {
                let known = self.members.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(NetworkError::Member { found: name.into(), known });
            }
        }
        let direction = (from.to_owned(), to.to_owned());
        let before = match fault {
            Some(fault) => self.faults.insert(direction, fault),
            None => self.faults.remove(&direction),
        };
        if before == fault { Ok(()) } else { self.rules(to) }
    }

    /// Heals every direction.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn heal(&mut self) -> Result<(), NetworkError> {
        let faults = std::mem::take(&mut self.faults);
        faults.keys().try_for_each(|(_, to)| self.rules(to))
    }

    /// Writes the rules of one member anew, all at once.
    fn rules(&self, to: &str) -> Result<(), NetworkError> {
        let mut rules = String::from("add table inet faults\ndelete table inet faults\n");
        rules += "table inet faults {\nchain input {\ntype filter hook input priority 0;\n";
        for ((from, _), fault) in self.faults.iter().filter(|((_, own), _)| own == to) {
            let condition = match fault {
                LinkFault::Cut => String::new(),
                LinkFault::LargeLost => format!("meta length > {LARGE}"),
                LinkFault::Lossy(percent) => format!("numgen random mod 100 < {percent}"),
            };
            rules += &format!("ip saddr {} {condition} drop\n", self.members[from]);
        }
        rules += "}\n}\n";
        let mut nft = if to == CLIENTS {
            tool("nft")
        } else {
            let mut nft = Command::new(tool("nsenter").get_program());
            nft.arg(format!("--net=/run/netns/{to}")).arg(tool("nft").get_program());
            nft
        };
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let failed = |why: String| NetworkError::Tool(format!("nft: {why}\n{rules}"));
        let mut child = nft.spawn().map_err(|error| failed(error.to_string()))?;
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(rules.as_bytes()).map_err(|error| failed(error.to_string()))?;
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().into())),
        }
    }
}

fn ip(arguments: &str) -> Result<(), NetworkError> {
    call(tool("ip").args(arguments.split(' ')))
}

fn call(command: &mut Command) -> Result<(), NetworkError> {
    run(command).map_err(NetworkError::Tool)
}
