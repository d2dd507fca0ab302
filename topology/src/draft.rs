//! First pass: every value has its type, no name has been followed yet.
//!
//! What could not be read is absent (and has been complained about), so that the second pass, in
//! `check`, works on whatever is there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{
    diagnostics::{Diagnostics, Place},
    key::PublicKey,
    model::{Durability, FabricKind, Link, Right},
    names::{DeploymentName, NAME_RULE, Region},
    retain::{RETAIN_RULE, Retain},
    roster::Step,
    section::{At, Section},
    tree::{Item, Table, Value, quote},
};

/// The whole file.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) name: Option<At<DeploymentName>>,
    pub(crate) keys: Option<At<String>>,
    pub(crate) data: Option<At<String>>,
    pub(crate) timeouts: DraftTimeouts,
    pub(crate) sites: Vec<DraftSite>,
    pub(crate) mirrors: Vec<DraftMirror>,
    pub(crate) pools: Vec<DraftPool>,
    pub(crate) clients: Vec<DraftClient>,
}

/// `[timeouts]`, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct DraftTimeouts {
    pub(crate) heartbeat: Option<At<u32>>,
    pub(crate) suspect: Option<At<u32>>,
    pub(crate) slow: Option<At<u32>>,
    pub(crate) connect: Option<At<u32>>,
    pub(crate) request: Option<At<u32>>,
    pub(crate) stall: Option<At<u32>>,
}

/// `[sites.NAME]`.
#[derive(Debug)]
pub(crate) struct DraftSite {
    pub(crate) name: At<String>,
    pub(crate) region: Option<At<Region>>,
    pub(crate) fabric: FabricKind,
    pub(crate) fabric_tls: Option<At<bool>>,
    pub(crate) nodes: Vec<DraftProcess>,
    pub(crate) changes: Vec<DraftChange>,
}

/// `[[sites.NAME.changes]]`.
#[derive(Debug)]
pub(crate) struct DraftChange {
    pub(crate) place: Place,
    pub(crate) key: String,
    /// By [`CHANGES`].
    pub(crate) named: [Option<At<String>>; 3],
    pub(crate) former_key: Option<At<PublicKey>>,
    pub(crate) replicas: Option<At<u32>>,
}

/// What can become of a node, as the file says it, and as it is counted.
pub(crate) const CHANGES: [(&str, Step); 3] =
    [("add", Step::Add), ("remove", Step::Remove), ("replace", Step::Replace)];

impl DraftChange {
    /// The node and what becomes of it, if that is one thing.
    pub(crate) fn single(&self) -> Option<(&At<String>, Step)> {
        let named = self.named.iter().zip(CHANGES);
        let mut named = named.filter_map(|(name, (_, step))| Some((name.as_ref()?, step)));
        named.next().filter(|_| named.next().is_none())
    }
}

impl DraftSite {
    /// The changes by the places of their nodes; those that make no sense are left out.
    pub(crate) fn steps(&self) -> Vec<(usize, Step)> {
        let place = |name: &At<String>| {
            let named =
                |node: &DraftProcess| node.name.as_ref().is_some_and(|n| n.value == name.value);
            self.nodes.iter().position(named)
        };
        let step = |change: &DraftChange| {
            let (name, step) = change.single()?;
            Some((place(name)?, step))
        };
        self.changes.iter().filter_map(step).collect()
    }
}

/// What nodes and mirrors have in common.
#[derive(Debug)]
pub(crate) struct DraftProcess {
    pub(crate) place: Place,
    pub(crate) name: Option<At<String>>,
    /// The default's place is that of the process.
    pub(crate) address: Option<At<IpAddr>>,
    /// The default's place is that of the process.
    pub(crate) port: Option<At<u16>>,
    pub(crate) http: Option<At<SocketAddr>>,
    pub(crate) key: Option<At<PublicKey>>,
    /// Of nodes only.
    pub(crate) founding_key: Option<At<PublicKey>>,
    pub(crate) certificate: Option<At<String>>,
}

/// `[[mirrors]]`.
#[derive(Debug)]
pub(crate) struct DraftMirror {
    pub(crate) process: DraftProcess,
    pub(crate) region: Option<At<Region>>,
    pub(crate) parents: Option<At<Vec<At<String>>>>,
    pub(crate) pools: Option<At<Vec<At<String>>>>,
    pub(crate) link: Link,
}

/// `[pools.NAME]`.
#[derive(Debug)]
pub(crate) struct DraftPool {
    pub(crate) name: At<String>,
    pub(crate) home: Option<At<String>>,
    pub(crate) shards: u32,
    pub(crate) replicas: Option<At<u32>>,
    pub(crate) durability: Durability,
    pub(crate) retain: Retain,
}

/// `[clients.NAME]`.
#[derive(Debug)]
pub(crate) struct DraftClient {
    pub(crate) name: At<String>,
    pub(crate) key: Option<At<PublicKey>>,
    pub(crate) rights: DraftRights,
}

/// `rights`, pools still unchecked.
#[derive(Debug)]
pub(crate) enum DraftRights {
    All(Right),
    Pools(Vec<(String, At<Right>)>),
}

/// The port that a process listens on if the file gives none.
pub(crate) const PORT_DEFAULT: u16 = 7400;
/// The base port leaves room for the three that follow it.
const PORT_MAX: u32 = 65_532;
pub(crate) const SHARDS_MAX: u32 = 1_024;
pub(crate) const NODES_MAX: usize = 32;
const TIMEOUT_MS_MAX: u32 = 600_000;
const KEY_RULE: &str =
    "an Ed25519 public key: base64 of 32 bytes, as `tradewind keys new` and `keys show` print it";
const RIGHTS_RULE: &str =
    "\"read\", \"write\" or \"admin\" for all pools, or a table { POOL = \"read|write|admin\" }";
const ADDRESS_RULE: &str = "an IPv4 or IPv6 address that others can dial, such as \"10.0.1.1\"";

const RIGHTS: [(&str, Right); 3] =
    [("read", Right::Read), ("write", Right::Write), ("admin", Right::Admin)];
const HTTP_RULE: &str = "\"ip:port\" to listen on, such as \"0.0.0.0:7401\"";

pub(crate) fn read(tree: Table, diagnostics: &mut Diagnostics) -> Draft {
    let item = Item { place: Place::File, value: Value::Table(tree) };
    let mut root = Section::new(String::new(), item, diagnostics).expect("the root is a table");

    root.need("deployment", "[deployment] with a name", diagnostics);
    let (mut name, mut keys, mut data) = (None, None, None);
    if let Some(mut section) = root.section("deployment", diagnostics) {
        section.need("name", NAME_RULE, diagnostics);
        name = section.parsed("name", NAME_RULE, diagnostics);
        keys = section.text("keys", "a directory", diagnostics);
        data = section.text("data", "a directory", diagnostics);
        section.finish(diagnostics);
    }
    let timeouts = root.section("timeouts", diagnostics);
    let timeouts = timeouts.map(|section| read_timeouts(section, diagnostics)).unwrap_or_default();

    let sites = named(&mut root, "sites", diagnostics, read_site);
    let mirrors = root.sections("mirrors", diagnostics);
    let mirrors = mirrors.into_iter().map(|section| read_mirror(section, diagnostics)).collect();
    let pools = named(&mut root, "pools", diagnostics, read_pool);
    let clients = named(&mut root, "clients", diagnostics, read_client);
    root.finish(diagnostics);
    Draft { name, keys, data, timeouts, sites, mirrors, pools, clients }
}

fn named<T>(
    root: &mut Section,
    key: &'static str,
    diagnostics: &mut Diagnostics,
    read: fn(At<String>, Section, &mut Diagnostics) -> T,
) -> Vec<T> {
    let Some(section) = root.section(key, diagnostics) else { return Vec::new() };
    let named = section.named(diagnostics).into_iter();
    named.map(|(name, section)| read(name, section, diagnostics)).collect()
}

fn read_timeouts(mut section: Section, diagnostics: &mut Diagnostics) -> DraftTimeouts {
    let mut ms = |key| section.integer(key, 1..=TIMEOUT_MS_MAX, diagnostics);
    let timeouts = DraftTimeouts {
        heartbeat: ms("heartbeat_ms"),
        suspect: ms("suspect_ms"),
        slow: ms("slow_ms"),
        connect: ms("connect_ms"),
        request: ms("request_ms"),
        stall: ms("stall_ms"),
    };
    section.finish(diagnostics);
    timeouts
}

fn read_site(name: At<String>, mut section: Section, diagnostics: &mut Diagnostics) -> DraftSite {
    section.need("region", NAME_RULE, diagnostics);
    let region = section.parsed("region", NAME_RULE, diagnostics);
    let fabric = read_fabric(&mut section, diagnostics);
    let fabric_tls = section.flag("fabric_tls", diagnostics);
    let nodes = section.sections("nodes", diagnostics);
    let nodes = nodes
        .into_iter()
        .map(|mut section| {
            let mut node = read_process(&mut section, diagnostics);
            node.founding_key = section.parsed("founding_key", KEY_RULE, diagnostics);
            section.finish(diagnostics);
            node
        })
        .collect();
    let changes = section.sections("changes", diagnostics);
    let changes = changes.into_iter().map(|section| read_change(section, diagnostics)).collect();
    section.finish(diagnostics);
    DraftSite { name, region, fabric, fabric_tls, nodes, changes }
}

fn read_change(mut section: Section, diagnostics: &mut Diagnostics) -> DraftChange {
    let named = CHANGES.map(|(key, _)| section.text(key, "the name of a node", diagnostics));
    let former_key = section.parsed("former_key", KEY_RULE, diagnostics);
    let replicas = section.integer("replicas", 1..=NODES_MAX as u32, diagnostics);
    let (place, key) = (section.place.clone(), section.path.clone());
    section.finish(diagnostics);
    DraftChange { place, key, named, former_key, replicas }
}

fn read_fabric(section: &mut Section, diagnostics: &mut Diagnostics) -> FabricKind {
    const KINDS: &str = "\"auto\", \"shm\", \"tcp\" or \"verbs\"";
    if let Some(At { value, place, key }) = section.text("fabric", KINDS, diagnostics) {
        match value.as_str() {
            "auto" => return FabricKind::Auto,
            "shm" => return FabricKind::Shm,
            "tcp" => return FabricKind::Tcp,
            "verbs" => return FabricKind::Verbs,
            _ => diagnostics.error(&place, key, quote(&value), KINDS),
        }
    }
    FabricKind::Auto
}

fn read_process(section: &mut Section, diagnostics: &mut Diagnostics) -> DraftProcess {
    section.need("name", NAME_RULE, diagnostics);
    let name = section.text("name", NAME_RULE, diagnostics);
    let default = |section: &Section, key| (section.place.clone(), section.key(key));
    let address = if section.has("address") {
        section.parsed("address", ADDRESS_RULE, diagnostics).filter(|at: &At<IpAddr>| {
            let good = !at.value.is_unspecified() && !at.value.is_multicast();
            if !good {
                let found = quote(&at.value.to_string());
                diagnostics.error(&at.place, at.key.as_str(), found, ADDRESS_RULE);
            }
            good
        })
    } else {
        let (place, key) = default(section, "address");
        Some(At { value: IpAddr::V4(Ipv4Addr::LOCALHOST), place, key })
    };
    let port = if section.has("port") {
        let port = section.integer("port", 1..=PORT_MAX, diagnostics);
        port.map(|At { value, place, key }| At { value: value as u16, place, key })
    } else {
        let (place, key) = default(section, "port");
        Some(At { value: PORT_DEFAULT, place, key })
    };
    let http = section.parsed::<SocketAddr>("http", HTTP_RULE, diagnostics);
    let http = http.filter(|at| {
        let good = at.value.port() != 0 && !at.value.ip().is_multicast();
        if !good {
            let found = quote(&at.value.to_string());
            diagnostics.error(&at.place, at.key.as_str(), found, HTTP_RULE);
        }
        good
    });
    section.need("key", KEY_RULE, diagnostics);
    let key = section.parsed("key", KEY_RULE, diagnostics);
    let certificate = section.text("certificate", "path of a PEM file", diagnostics);
    let place = section.place.clone();
    DraftProcess { place, name, address, port, http, key, founding_key: None, certificate }
}

fn read_mirror(mut section: Section, diagnostics: &mut Diagnostics) -> DraftMirror {
    const PARENTS: &str = "names of sites or mirrors, in order of preference";
    const POOLS: &str = "names of pools";
    let process = read_process(&mut section, diagnostics);
    section.need("region", NAME_RULE, diagnostics);
    let region = section.parsed("region", NAME_RULE, diagnostics);
    section.need("parents", PARENTS, diagnostics);
    let parents = section.texts("parents", PARENTS, diagnostics);
    section.need("pools", POOLS, diagnostics);
    let pools = section.texts("pools", POOLS, diagnostics);
    let mut link = Link::default();
    if let Some(mut section) = section.section("link", diagnostics) {
        if let Some(rtt) = section.integer("rtt_ms", 1..=10_000, diagnostics) {
            link.rtt_ms = rtt.value;
        }
        if let Some(bandwidth) = section.integer("bandwidth_mbps", 1..=400_000, diagnostics) {
            link.bandwidth_mbps = bandwidth.value;
        }
        section.finish(diagnostics);
    }
    section.finish(diagnostics);
    DraftMirror { process, region, parents, pools, link }
}

fn read_pool(name: At<String>, mut section: Section, diagnostics: &mut Diagnostics) -> DraftPool {
    const HOME: &str = "the name of a site";
    section.need("home", HOME, diagnostics);
    let home = section.text("home", HOME, diagnostics);
    let shards = section.integer("shards", 1..=SHARDS_MAX, diagnostics).map_or(1, |at| at.value);
    let replicas = section.integer("replicas", 1..=NODES_MAX as u32, diagnostics);
    let durability = read_durability(&mut section, diagnostics);
    let retain = section.parsed("retain", RETAIN_RULE, diagnostics);
    let retain = retain.map_or(Retain::All, |at| at.value);
    section.finish(diagnostics);
    DraftPool { name, home, shards, replicas, durability, retain }
}

fn read_durability(section: &mut Section, diagnostics: &mut Diagnostics) -> Durability {
    const KINDS: &str = "\"memory\" or \"disk\"";
    let Some(At { value, place, key }) = section.text("durability", KINDS, diagnostics) else {
        return Durability::Disk;
    };
    match value.as_str() {
        "memory" => return Durability::Memory,
        "disk" => {}
        _ if value.starts_with("mirrored(") => {
            let found = format!("{}, which is not in this build", quote(&value));
            diagnostics.error(&place, key, found, KINDS);
        }
        _ => diagnostics.error(&place, key, quote(&value), KINDS),
    }
    Durability::Disk
}

fn read_client(
    name: At<String>,
    mut section: Section,
    diagnostics: &mut Diagnostics,
) -> DraftClient {
    section.need("key", KEY_RULE, diagnostics);
    let key = section.parsed("key", KEY_RULE, diagnostics);
    section.need("rights", RIGHTS_RULE, diagnostics);
    let rights = match section.any("rights") {
        Some(At { value: value @ Value::Table(_), place, key }) => {
            let table = Section::new(key, Item { place, value }, diagnostics);
            DraftRights::Pools(table.map(|t| pool_rights(t, diagnostics)).unwrap_or_default())
        }
        Some(At { value: Value::Text(word) | Value::Override(word), place, key }) => {
            right(&word).map(DraftRights::All).unwrap_or_else(|| {
                diagnostics.error(&place, key, quote(&word), RIGHTS_RULE);
                DraftRights::Pools(Vec::new())
            })
        }
        Some(At { value, place, key }) => {
            diagnostics.error(&place, key, value.describe(), RIGHTS_RULE);
            DraftRights::Pools(Vec::new())
        }
        None => DraftRights::Pools(Vec::new()),
    };
    section.finish(diagnostics);
    DraftClient { name, key, rights }
}

fn pool_rights(table: Section, diagnostics: &mut Diagnostics) -> Vec<(String, At<Right>)> {
    const WORDS: &str = "\"read\", \"write\" or \"admin\"";
    let texts = table.named_texts(WORDS, diagnostics).into_iter();
    let rights = texts.filter_map(|(pool, At { value, place, key })| match right(&value) {
        Some(value) => Some((pool, At { value, place, key })),
        None => {
            diagnostics.error(&place, key, quote(&value), WORDS);
            None
        }
    });
    rights.collect()
}

fn right(word: &str) -> Option<Right> {
    RIGHTS.iter().find(|(own, _)| *own == word).map(|&(_, right)| right)
}
