//! The changes of a site's nodes make sense one after the other, and none takes a majority away.

use std::collections::BTreeSet;

use crate::{
    diagnostics::Diagnostics,
    draft::{CHANGES, Draft, DraftChange, DraftPool, DraftSite, NODES_MAX},
    roster::{Step, histories, ring_start, shard_history, wanted},
    section::At,
    tree::quote,
};

/// Places that nodes may have had in the life of a site.
const NODES_EVER_MAX: usize = 256;

pub(super) fn check(draft: &Draft, diagnostics: &mut Diagnostics) {
    for site in &draft.sites {
        let before = diagnostics.errors();
        check_steps(site, diagnostics);
        // What a wrong change leads to would only be said twice.
        if diagnostics.errors() > before || site.changes.is_empty() {
            continue;
        }
        check_majorities(site, diagnostics);
        let at_home = |pool: &&DraftPool| {
            pool.home.as_ref().is_some_and(|home| home.value == site.name.value)
        };
        for pool in draft.pools.iter().filter(at_home) {
            check_shards(site, pool, diagnostics);
        }
    }
}

/// Each change is of one node, which is what it has to be for that.
fn check_steps(site: &DraftSite, diagnostics: &mut Diagnostics) {
    if site.nodes.len() > NODES_EVER_MAX {
        let found = format!("{} nodes, those included that were removed", site.nodes.len());
        let allowed = format!("at most {NODES_EVER_MAX}");
        diagnostics.error(&site.name.place, format!("{}.nodes", site.name.key), found, allowed);
    }
    let names: Vec<&str> =
        site.nodes.iter().filter_map(|n| Some(n.name.as_ref()?.value.as_str())).collect();
    let added = |name: &str, changes: &[DraftChange]| {
        let mut steps = changes.iter().filter_map(DraftChange::single);
        steps.any(|(it, step)| it.value == name && step == Step::Add)
    };
    let mut now: BTreeSet<&str> =
        names.iter().copied().filter(|name| !added(name, &site.changes)).collect();
    if now.is_empty() && !names.is_empty() {
        let allowed = "at least one node that no change adds: a founder";
        diagnostics.error(
            &site.name.place,
            format!("{}.changes", site.name.key),
            "no founder",
            allowed,
        );
    }
    let mut gone = BTreeSet::new();
    for change in &site.changes {
        let Some((name, step)) = change.single() else {
            let keys = CHANGES.map(|(key, _)| key).join(", ");
            let allowed = format!("exactly one of {keys}, with the name of a node");
            diagnostics.error(
                &change.place,
                change.key.as_str(),
                "another number of them",
                allowed,
            );
            continue;
        };
        let mut wrong = |at: &At<String>, found: &str, allowed: String| {
            diagnostics.error(
                &at.place,
                at.key.as_str(),
                format!("{}, {found}", quote(&at.value)),
                allowed,
            );
        };
        if !names.contains(&name.value.as_str()) {
            wrong(name, "which is no node of the site", format!("one of {}", names.join(", ")));
            continue;
        }
        let is_here = now.contains(name.value.as_str());
        match step {
            Step::Add if is_here => wrong(name, "which is a node already", "a new node".into()),
            // It ended for ever when it was removed: as a member it would count, and never come.
            Step::Add if gone.contains(name.value.as_str()) => {
                wrong(name, "which was removed", "a new node, under a name of its own".into());
            }
            Step::Add => _ = now.insert(&name.value),
            _ if !is_here => {
                let here = now.iter().copied().collect::<Vec<_>>().join(", ");
                wrong(name, "which is none at that time", format!("one of {here}"));
            }
            Step::Remove => {
                now.remove(name.value.as_str());
                gone.insert(name.value.as_str());
            }
            Step::Replace => {}
        }
        let (is_replaced, adds) = (step == Step::Replace, step == Step::Add);
        if is_replaced != change.former_key.is_some() {
            let found = if is_replaced { "nothing" } else { "a key" };
            let allowed = "the key that a node had before, if it is replaced";
            diagnostics.error(&change.place, format!("{}.former_key", change.key), found, allowed);
        }
        if let Some(replicas) = change.replicas.as_ref().filter(|_| !adds) {
            let allowed = "only where a node is added";
            diagnostics.error(
                &replicas.place,
                replicas.key.as_str(),
                replicas.value.to_string(),
                allowed,
            );
        }
    }
}

/// Whoever stays is a majority of those who were there: otherwise no view can lead from one roster to the next.
fn check_majorities(site: &DraftSite, diagnostics: &mut Diagnostics) {
    let steps = site.steps();
    let rosters = histories(site.nodes.len(), &steps);
    for (told, (pair, change)) in site.changes.iter().zip(rosters.windows(2).zip(&steps)) {
        let [before, after] = pair else { continue };
        if after.len() > NODES_MAX {
            let allowed = format!("at most {NODES_MAX} nodes at a time");
            diagnostics.error(
                &told.place,
                told.key.as_str(),
                format!("{} nodes", after.len()),
                allowed,
            );
        }
        let (stay, need) = staying((before, after), *change);
        if change.1 != Step::Add && stay < need {
            let found = format!("a change that leaves {stay} of {} nodes", before.len());
            let allowed = format!("{need} or more stay, a majority: add another node first");
            diagnostics.error(&told.place, told.key.as_str(), found, allowed);
        }
    }
}

/// The same for the members of each shard.
fn check_shards(site: &DraftSite, pool: &DraftPool, diagnostics: &mut Diagnostics) {
    let steps = site.steps();
    let rosters = histories(site.nodes.len(), &steps);
    let first = pool.replicas.as_ref().map_or(crate::build::REPLICAS_DEFAULT, |at| at.value);
    let first = first.min(rosters[0].len() as u32);
    let replicas: Vec<Option<u32>> =
        site.changes.iter().map(|change| Some(change.replicas.as_ref()?.value)).collect();
    let wanted = |at: usize| wanted(first, replicas[..at].iter().copied());
    let ring = ring_start(&pool.name.value, rosters[0].len());
    for shard in 0..pool.shards as usize {
        let all = shard_history(&rosters, &steps, wanted, (ring + shard, shard));
        for (told, (pair, change)) in site.changes.iter().zip(all.windows(2).zip(&steps)) {
            let [before, after] = pair else { continue };
            let (stay, need) = staying((before, after), *change);
            if stay < need {
                let name = &pool.name.value;
                let found = format!(
                    "a change that leaves {stay} of {} members of {name}.{shard}",
                    before.len()
                );
                let allowed =
                    format!("{need} or more stay, a majority: give its shards more replicas first");
                diagnostics.error(&told.place, told.key.as_str(), found, allowed);
                return;
            }
        }
    }
}

/// How many of those who were there stay, under the key that they had, and how many that has to be.
fn staying(
    (before, after): (&BTreeSet<usize>, &BTreeSet<usize>),
    (node, step): (usize, Step),
) -> (usize, usize) {
    let stays = |it: &&usize| after.contains(it) && !(step == Step::Replace && **it == node);
    (before.iter().filter(stays).count(), before.len() / 2 + 1)
}
