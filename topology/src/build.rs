//! Third pass: a draft without faults becomes a [`Topology`].

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{
    check::ports,
    draft::{Draft, DraftClient, DraftMirror, DraftPool, DraftProcess, DraftRights, DraftSite},
    model::{ClientIdentity, Mirror, Node, Parent, Pool, Rights, Site, Timeouts, Topology},
    roster::{Change, ChangeKind, Step, histories},
    section::At,
};

pub(crate) const REPLICAS_DEFAULT: u32 = 3;

/// `None` if anything is missing or malformed, which an earlier pass has complained about.
/// Relative paths are taken from `directory`.
pub(crate) fn build(draft: Draft, directory: &Path) -> Option<Topology> {
    let path = |at: Option<At<String>>, default: &str| {
        directory.join(at.map_or_else(|| default.to_owned(), |at| at.value))
    };
    let founders: Vec<usize> = draft
        .sites
        .iter()
        .map(|site| histories(site.nodes.len(), &site.steps())[0].len())
        .collect();
    let sites: Option<Vec<Site>> =
        draft.sites.into_iter().map(|draft| site(draft, directory)).collect();
    let sites = sites?;
    let mirrors = draft.mirrors.into_iter().map(|draft| mirror(draft, &sites, directory));
    Some(Topology {
        name: draft.name?.value,
        keys: path(draft.keys, "keys"),
        data: path(draft.data, "data"),
        mirrors: mirrors.collect::<Option<_>>()?,
        pools: draft
            .pools
            .into_iter()
            .map(|draft| pool(draft, &sites, &founders))
            .collect::<Option<_>>()?,
        clients: draft.clients.into_iter().map(client).collect::<Option<_>>()?,
        timeouts: {
            let ms = |at: Option<At<u32>>, default| {
                at.map_or(default, |at| Duration::from_millis(at.value.into()))
            };
            let default = Timeouts::default();
            let suspect = ms(draft.timeouts.suspect, default.suspect);
            Timeouts {
                heartbeat: ms(draft.timeouts.heartbeat, default.heartbeat),
                suspect,
                slow: ms(draft.timeouts.slow, default.slow.max(suspect)),
                connect: ms(draft.timeouts.connect, default.connect),
                request: ms(draft.timeouts.request, default.request),
                stall: ms(draft.timeouts.stall, default.stall),
            }
        },
        sites,
    })
}

fn site(draft: DraftSite, directory: &Path) -> Option<Site> {
    let node = |process: DraftProcess| {
        Some(Node {
            ports: ports(&process)?,
            name: process.name?.value.parse().ok()?,
            key: process.key?.value,
            founding_key: process.founding_key.map(|at| at.value),
            certificate: process.certificate.map(|at| directory.join(at.value)),
        })
    };
    let steps = draft.steps();
    let changes = draft.changes.into_iter().zip(steps).map(|(change, (node, step))| {
        let kind = match step {
            Step::Add => ChangeKind::Add,
            Step::Remove => ChangeKind::Remove,
            Step::Replace => ChangeKind::Replace { former_key: change.former_key?.value },
        };
        Some(Change { node, kind, replicas: change.replicas.map(|at| at.value) })
    });
    Some(Site {
        changes: changes.collect::<Option<_>>()?,
        name: draft.name.value.parse().ok()?,
        region: draft.region?.value,
        fabric: draft.fabric,
        fabric_tls: draft.fabric_tls.is_none_or(|at| at.value),
        nodes: draft.nodes.into_iter().map(node).collect::<Option<_>>()?,
    })
}

fn mirror(draft: DraftMirror, sites: &[Site], directory: &Path) -> Option<Mirror> {
    let DraftMirror { process, region, parents, pools, link } = draft;
    let parent = |At { value, .. }: At<String>| {
        if sites.iter().any(|site| site.name == value[..]) {
            value.parse().ok().map(Parent::Site)
        } else {
            value.parse().ok().map(Parent::Mirror)
        }
    };
    Some(Mirror {
        ports: ports(&process)?,
        name: process.name?.value.parse().ok()?,
        region: region?.value,
        key: process.key?.value,
        certificate: process.certificate.map(|at| directory.join(at.value)),
        parents: parents?.value.into_iter().map(parent).collect::<Option<_>>()?,
        pools: pools?.value.into_iter().map(|at| at.value.parse().ok()).collect::<Option<_>>()?,
        link,
    })
}

fn pool(draft: DraftPool, sites: &[Site], founders: &[usize]) -> Option<Pool> {
    let home = draft.home?.value;
    let (site, most) = sites.iter().zip(founders).find(|(site, _)| site.name == home[..])?;
    let most = *most as u32;
    Some(Pool {
        name: draft.name.value.parse().ok()?,
        home: site.name.clone(),
        shards: draft.shards,
        replicas: draft.replicas.map_or(REPLICAS_DEFAULT.min(most), |at| at.value),
        durability: draft.durability,
        retain: draft.retain,
    })
}

fn client(draft: DraftClient) -> Option<ClientIdentity> {
    let rights = match draft.rights {
        DraftRights::All(right) => Rights::All(right),
        DraftRights::Pools(pools) => {
            let pools = pools.into_iter().map(|(pool, at)| Some((pool.parse().ok()?, at.value)));
            Rights::Pools(pools.collect::<Option<BTreeMap<_, _>>>()?)
        }
    };
    Some(ClientIdentity { name: draft.name.value.parse().ok()?, key: draft.key?.value, rights })
}
