//! A core group in one process: real fabrics, ready for a thread a member.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tradewind_ledger::{Digest, Genesis, LedgerId, Member, Replay};
use tradewind_site_protocol::{
    BulkLimits, Incarnation, Limits, NodeConfig, NodeCore, NodeId, NodeInfo, Now, Promise,
    RecoveredShard, Roster, Schedule, ShardConfig,
};
use tradewind_store::Store;
use tradewind_topology::{FabricKind, Rights, Role, SiteName};
use tradewind_transport::fabric::tcp::{Security, TcpNode, TcpOptions, Timing};
use tradewind_transport::fabric::{self, Fabric};
use tradewind_transport::tls::Credentials;
use tradewind_transport::{Directory, Identity, Peer};

/// Long enough that no member is lost because the machine is busy: this measures no failures.
const SILENCE: Duration = Duration::from_secs(20);

/// What one member is made of.
pub(super) struct Parts {
    pub(super) index: usize,
    pub(super) core: NodeCore<Store>,
    pub(super) fabric: Box<dyn Fabric>,
    pub(super) identity: Identity,
}

fn name(index: usize) -> String {
    format!("m{}", index + 1)
}

/// Members of one group with one shard, none of them running.
///
/// # Errors
/// If ports or shared memory cannot be had.
pub(super) fn create(
    members: usize,
    (kind, address): (FabricKind, IpAddr),
    tls: bool,
    now: Now,
) -> anyhow::Result<Vec<Parts>> {
    let site: SiteName = "bench".parse().context("a name for the site")?;
    let seeds = (0..members).map(|index| [index as u8 + 1; 32]);
    let identities: Vec<Identity> =
        seeds.enumerate().map(|(index, seed)| Identity::from_seed(&name(index), &seed)).collect();
    let peers = identities.iter().map(|identity| {
        let (role, rights) = (Role::Node(site.clone()), Rights::Pools(BTreeMap::new()));
        (identity.public_key(), Peer { name: identity.name().to_owned(), role, rights })
    });
    let directory = Arc::new(Directory::new(peers)?);
    // Held until all are known, so that they differ.
    let listeners: Vec<TcpListener> =
        (0..members).map(|_| TcpListener::bind((address, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<_> =
        listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    let own = |index: usize| u16::try_from(index).expect("few members");
    let mut all = Vec::new();
    for ((index, listener), identity) in listeners.into_iter().enumerate().zip(&identities) {
        let security = match tls {
            true => Security::Tls(Credentials::new(identity, Arc::clone(&directory))?),
            false => Security::Plain,
        };
        let nodes = addresses.iter().enumerate();
        let options = TcpOptions {
            own: fabric::NodeId(own(index)),
            nodes: nodes
                .map(|(i, &address)| TcpNode { name: name(i), address, is_former: false })
                .collect(),
            deployment: "bench".into(),
            site: site.to_string(),
            digest: [0; 32],
            incarnation: 1,
            security,
            timing: Timing { silence: SILENCE, ..Timing::default() },
        };
        let (fabric, _) = fabric::open_with(kind, options, listener)?;
        let config = config(NodeId(own(index)), &identities, kind)?;
        let empty = RecoveredShard { replay: Replay::new(), store: Store::new() };
        let core = NodeCore::new(config, vec![empty], Promise::default(), now)?;
        let identity = Identity::from_seed(identity.name(), &[index as u8 + 1; 32]);
        all.push(Parts { index, core, fabric, identity });
    }
    Ok(all)
}

fn config(own: NodeId, identities: &[Identity], kind: FabricKind) -> anyhow::Result<NodeConfig> {
    let schedule = match kind {
        FabricKind::Shm => Schedule::Direct,
        _ => Schedule::Chain,
    };
    let bulk = BulkLimits { schedule, ..BulkLimits::default() };
    let key = |identity: &Identity| *identity.public_key().as_bytes();
    let member =
        |identity: &Identity| Member { name: identity.name().into(), public_key: key(identity) };
    let genesis = Genesis {
        deployment: "bench".into(),
        site: "bench".into(),
        ledger: LedgerId::new("bench", 0)?,
        members: identities.iter().map(member).collect(),
    };
    let node =
        |identity: &Identity| NodeInfo { name: identity.name().into(), public_key: key(identity) };
    let nodes: Vec<NodeInfo> = identities.iter().map(node).collect();
    let members = (0..identities.len() as u16).map(NodeId).collect();
    let shards = vec![ShardConfig { genesis, members }];
    Ok(NodeConfig {
        own,
        rosters: vec![Roster::founding(Digest([0; 32]), &nodes, &shards)],
        nodes,
        shards,
        incarnation: Incarnation(1),
        limits: Limits { bulk, silence_us: SILENCE.as_micros() as u64, ..Limits::default() },
    })
}
