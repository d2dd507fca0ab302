//! Second pass: every name leads somewhere, and the whole makes sense.
//!
//! Each `check_*` looks at one question, over the whole draft, and only complains.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    diagnostics::{Diagnostics, Place},
    draft::{Draft, DraftProcess, DraftRights, DraftTimeouts, NODES_MAX},
    key::PublicKey,
    model::Timeouts,
    names::{NAME_RULE, SiteName},
    roster::histories,
    section::At,
    tree::quote,
};

mod changes;
mod listeners;
mod tree_of_mirrors;

pub(crate) use listeners::ports;

/// Complains about everything that the first pass could not see.
pub(crate) fn check(draft: &Draft, diagnostics: &mut Diagnostics) {
    let names = check_names(draft, diagnostics);
    check_keys(draft, diagnostics);
    check_timeouts(&draft.timeouts, diagnostics);
    changes::check(draft, diagnostics);
    check_sites(draft, diagnostics);
    check_pools(draft, &names, diagnostics);
    check_clients(draft, diagnostics);
    listeners::check(draft, diagnostics);
    tree_of_mirrors::check(draft, &names, diagnostics);
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Site,
    Node,
    Mirror,
    Client,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Site => "a site",
            Self::Node => "a node",
            Self::Mirror => "a mirror",
            Self::Client => "a client",
        }
    }
}

type Names<'a> = HashMap<&'a str, (Kind, &'a Place)>;

/// Nodes, then mirrors.
fn processes(draft: &Draft) -> impl Iterator<Item = (&DraftProcess, Kind)> {
    let nodes = draft.sites.iter().flat_map(|site| &site.nodes).map(|node| (node, Kind::Node));
    nodes.chain(draft.mirrors.iter().map(|mirror| (&mirror.process, Kind::Mirror)))
}

/// Sites, nodes, mirrors and clients share one namespace: `parents` and `serve` take names of
/// several kinds, and key files are named after them.
fn check_names<'a>(draft: &'a Draft, diagnostics: &mut Diagnostics) -> Names<'a> {
    let sites = draft.sites.iter().map(|site| (&site.name, Kind::Site));
    let running =
        processes(draft).filter_map(|(process, kind)| Some((process.name.as_ref()?, kind)));
    let clients = draft.clients.iter().map(|client| (&client.name, Kind::Client));
    let mut names = Names::new();
    for (name, kind) in sites.chain(running).chain(clients) {
        check_name(name, diagnostics);
        match names.get(name.value.as_str()) {
            None => {
                names.insert(&name.value, (kind, &name.place));
            }
            Some((first, place)) => {
                let first = first.words();
                let found = format!("{}, also the name of {first} at {place}", quote(&name.value));
                let allowed = "a name that no other site, node, mirror or client has";
                diagnostics.error(&name.place, name.key.as_str(), found, allowed);
            }
        }
    }
    for pool in &draft.pools {
        check_name(&pool.name, diagnostics);
    }
    names
}

/// Any of the name types would do: they share one grammar.
fn check_name(name: &At<String>, diagnostics: &mut Diagnostics) {
    if name.value.parse::<SiteName>().is_err() {
        diagnostics.error(&name.place, name.key.as_str(), quote(&name.value), NAME_RULE);
    }
}

fn check_keys(draft: &Draft, diagnostics: &mut Diagnostics) {
    let running = processes(draft).filter_map(|(process, _)| process.key.as_ref());
    let clients = draft.clients.iter().filter_map(|client| client.key.as_ref());
    let founding = processes(draft).filter_map(|(process, _)| process.founding_key.as_ref());
    let is_founding = |key: &PublicKey| {
        processes(draft)
            .any(|(process, _)| process.founding_key.as_ref().is_some_and(|at| at.value == *key))
    };
    let changes = draft.sites.iter().flat_map(|site| &site.changes);
    let former = changes.filter_map(|change| change.former_key.as_ref());
    let former = former.filter(|at| !is_founding(&at.value));
    let mut seen: HashMap<_, &At<_>> = HashMap::new();
    for key in running.chain(clients).chain(founding).chain(former) {
        if let Some(first) = seen.get(&key.value) {
            let found = format!("the same key as {} at {}", first.key, first.place);
            let allowed = "a key of its own: whoever holds a key is taken for its name";
            diagnostics.error(&key.place, key.key.as_str(), found, allowed);
        } else {
            seen.insert(key.value, key);
        }
    }
}

/// One deadline that must be at least a multiple of another.
struct AtLeast<'a> {
    longer: (&'static str, &'a Option<At<u32>>, u32),
    times: u32,
    shorter: (&'static str, &'a Option<At<u32>>, u32),
    because: &'static str,
}

fn check_timeouts(timeouts: &DraftTimeouts, diagnostics: &mut Diagnostics) {
    let ms = |duration: std::time::Duration| duration.as_millis() as u32;
    let default = Timeouts::default();
    let heartbeat = ("heartbeat_ms", &timeouts.heartbeat, ms(default.heartbeat));
    let suspect = ("suspect_ms", &timeouts.suspect, ms(default.suspect));
    // As long as the other if need be, where the file says nothing.
    let slow_default = suspect.1.as_ref().map_or(suspect.2, |at| at.value).max(ms(default.slow));
    let slow = ("slow_ms", &timeouts.slow, slow_default);
    let connect = ("connect_ms", &timeouts.connect, ms(default.connect));
    let request = ("request_ms", &timeouts.request, ms(default.request));
    let stall = ("stall_ms", &timeouts.stall, ms(default.stall));
    let rules = [
        AtLeast {
            longer: suspect,
            times: 3,
            shorter: heartbeat,
            because: "one late heartbeat must not evict a node",
        },
        AtLeast {
            longer: slow,
            times: 1,
            shorter: suspect,
            because: "a node that is silent is lost before it is slow",
        },
        AtLeast {
            longer: request,
            times: 2,
            shorter: suspect,
            because: "a request must outlive the failure of a node",
        },
        AtLeast {
            longer: request,
            times: 1,
            shorter: connect,
            because: "a request must outlive one failed connection",
        },
        AtLeast {
            longer: stall,
            times: 2,
            shorter: heartbeat,
            because: "a parent shows progress once in a heartbeat",
        },
    ];
    for AtLeast { longer, times, shorter, because } in rules {
        let value = |(_, at, default): (_, &Option<At<u32>>, u32)| {
            at.as_ref().map_or(default, |at| at.value)
        };
        let least = value(shorter).saturating_mul(times);
        let Some(at) = longer.1.as_ref().or(shorter.1.as_ref()) else { continue };
        if value(longer) < least {
            let origin = if longer.1.is_some() { "" } else { ", the default" };
            let found = format!("{}{origin}", value(longer));
            let shorter_words = match times {
                1 => shorter.0.to_owned(),
                _ => format!("{times} times {}", shorter.0),
            };
            let allowed = format!("at least {least}, that is {shorter_words}: {because}");
            diagnostics.error(&at.place, format!("timeouts.{}", longer.0), found, allowed);
        }
    }
}

fn check_sites(draft: &Draft, diagnostics: &mut Diagnostics) {
    if draft.sites.is_empty() {
        diagnostics.error(&Place::File, "sites", "no site", "at least one [sites.NAME]");
    }
    for site in &draft.sites {
        let (place, key) = (&site.name.place, format!("{}.nodes", site.name.key));
        let rosters = histories(site.nodes.len(), &site.steps());
        match rosters.last().map_or(0, BTreeSet::len) {
            0 => {
                let allowed = format!("at least one [[{key}]]");
                diagnostics.error(place, key, "no node", allowed);
            }
            1 => diagnostics.warn(
                place,
                key,
                "1 node",
                "3 or 5 nodes: with one, its failure stops the site and its disk is the only copy",
            ),
            count if count > NODES_MAX => {
                let allowed = format!("at most {NODES_MAX} nodes");
                diagnostics.error(place, key, format!("{count} nodes"), allowed);
            }
            count if count % 2 == 0 => diagnostics.warn(
                place,
                key,
                format!("{count} nodes"),
                format!(
                    "an odd number: a majority of {count} survives the loss of no more nodes \
                     than one of {} does",
                    count - 1
                ),
            ),
            _ => {}
        }
        let exposed = site.nodes.iter().filter_map(|node| node.address.as_ref());
        if let Some(tls) = site.fabric_tls.as_ref().filter(|tls| !tls.value)
            && let Some(address) = exposed.into_iter().find(|address| !address.value.is_loopback())
        {
            let found = format!("false, with a node at {}", address.value);
            let allowed = "true, unless nobody else can reach the network between the nodes";
            diagnostics.warn(&tls.place, tls.key.as_str(), found, allowed);
        }
        let home = |pool: &&crate::draft::DraftPool| {
            pool.home.as_ref().is_some_and(|home| home.value == site.name.value)
        };
        if !draft.pools.is_empty() && !draft.pools.iter().any(|pool| home(&pool)) {
            let found = "the home of no pool";
            let allowed = format!("home = {} in a pool, or no such site", quote(&site.name.value));
            diagnostics.warn(place, site.name.key.as_str(), found, allowed);
        }
    }
}

fn check_pools(draft: &Draft, names: &Names<'_>, diagnostics: &mut Diagnostics) {
    if draft.pools.is_empty() {
        let allowed = "at least one [pools.NAME]: without one there is nothing to store";
        diagnostics.warn(&Place::File, "pools", "nothing", allowed);
    }
    for pool in &draft.pools {
        let Some(home) = &pool.home else { continue };
        let Some(site) = draft.sites.iter().find(|site| site.name.value == home.value) else {
            let found = match names.get(home.value.as_str()) {
                Some((kind, place)) => {
                    format!("{}, which is {} ({place})", quote(&home.value), kind.words())
                }
                None => format!("{}, which the file does not define", quote(&home.value)),
            };
            let allowed = list("a site", draft.sites.iter().map(|site| site.name.value.as_str()));
            diagnostics.error(&home.place, home.key.as_str(), found, allowed);
            continue;
        };
        let Some(replicas) = &pool.replicas else { continue };
        let nodes = histories(site.nodes.len(), &site.steps())[0].len();
        let (place, key, count) = (&replicas.place, replicas.key.as_str(), replicas.value);
        if count as usize > nodes {
            let began = if site.changes.is_empty() { "has" } else { "began with" };
            let found = format!("{count}, but {} {began} {nodes} nodes", site.name.value);
            diagnostics.error(place, key, found, format!("1 to {nodes}"));
        } else if count % 2 == 0 || (count == 1 && nodes > 1) {
            let allowed = "3 or 5: a majority of the replicas must be up, so an even number \
                           survives no more than the odd one below it";
            diagnostics.warn(place, key, count.to_string(), allowed);
        }
    }
}

fn check_clients(draft: &Draft, diagnostics: &mut Diagnostics) {
    if draft.clients.is_empty() {
        let allowed = "at least one [clients.NAME]: without one nobody may connect";
        diagnostics.warn(&Place::File, "clients", "nothing", allowed);
    }
    let pools: BTreeSet<&str> = draft.pools.iter().map(|pool| pool.name.value.as_str()).collect();
    for client in &draft.clients {
        let DraftRights::Pools(rights) = &client.rights else { continue };
        for (pool, at) in rights {
            if !pools.contains(pool.as_str()) {
                let found = format!("{}, which the file does not define", quote(pool));
                let allowed = list("a pool", pools.iter().copied());
                diagnostics.error(&at.place, at.key.as_str(), found, allowed);
            }
        }
    }
}

/// "a site: ams, lhr", for a message; cut when there are many.
fn list<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN_MAX: usize = 12;
    let names: Vec<&str> = names.collect();
    match names.len() {
        0 => format!("{what}, of which the file defines none"),
        count if count > SHOWN_MAX => {
            format!("{what}: {} and {} more", names[..SHOWN_MAX].join(", "), count - SHOWN_MAX)
        }
        _ => format!("{what}: {}", names.join(", ")),
    }
}

/// Groups values by key, keeping their order.
fn group<K: Ord, V>(pairs: impl Iterator<Item = (K, V)>) -> BTreeMap<K, Vec<V>> {
    let mut groups: BTreeMap<K, Vec<V>> = BTreeMap::new();
    for (key, value) in pairs {
        groups.entry(key).or_default().push(value);
    }
    groups
}
