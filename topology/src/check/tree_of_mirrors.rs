//! Mirrors form a forest: every chain of parents ends at the home of the pools.

use std::{
    collections::{HashMap, HashSet},
    slice,
};

use super::{Kind, Names, list};
use crate::{
    diagnostics::Diagnostics,
    draft::{Draft, DraftMirror},
    section::At,
    tree::quote,
};

pub(super) fn check(draft: &Draft, names: &Names<'_>, diagnostics: &mut Diagnostics) {
    let offers = Offers::new(draft);
    for mirror in &draft.mirrors {
        check_parents(draft, mirror, names, &offers, diagnostics);
        check_pools(draft, mirror, &offers, diagnostics);
    }
    check_cycles(draft, diagnostics);
}

fn parents(mirror: &DraftMirror) -> &[At<String>] {
    mirror.parents.as_ref().map_or(&[], |parents| &parents.value)
}

fn pools(mirror: &DraftMirror) -> &[At<String>] {
    mirror.pools.as_ref().map_or(&[], |pools| &pools.value)
}

fn name(mirror: &DraftMirror) -> &str {
    mirror.process.name.as_ref().map_or("", |name| name.value.as_str())
}

fn check_parents(
    draft: &Draft,
    mirror: &DraftMirror,
    names: &Names<'_>,
    offers: &Offers<'_>,
    diagnostics: &mut Diagnostics,
) {
    let known = || {
        let sites = draft.sites.iter().map(|site| site.name.value.as_str());
        let others = draft.mirrors.iter().map(name).filter(|other| *other != name(mirror));
        list("a site or another mirror", sites.chain(others))
    };
    if let Some(at) = mirror.parents.as_ref().filter(|at| at.value.is_empty()) {
        let found = "no parent, so that nothing would ever feed this mirror";
        diagnostics.error(&at.place, at.key.as_str(), found, known());
    }
    let mut seen = HashSet::new();
    for parent in parents(mirror) {
        let quoted = quote(&parent.value);
        let fault = match names.get(parent.value.as_str()) {
            _ if !seen.insert(parent.value.as_str()) => Some((
                format!("{quoted} for the second time"),
                "each parent once, in order of preference".to_owned(),
            )),
            _ if parent.value == name(mirror) => {
                Some((format!("{quoted}, which is the mirror itself"), known()))
            }
            Some((Kind::Site | Kind::Mirror, _)) => None,
            Some((kind, place)) => {
                Some((format!("{quoted}, which is {} ({place})", kind.words()), known()))
            }
            None => Some((format!("{quoted}, which the file does not define"), known())),
        };
        if let Some((found, allowed)) = fault {
            diagnostics.error(&parent.place, parent.key.as_str(), found, allowed);
        } else if !offers.any(slice::from_ref(parent), pools(mirror)) {
            let found = format!("{quoted}, which offers none of this mirror's pools");
            let allowed = "parents that offer at least one of them";
            diagnostics.warn(&parent.place, parent.key.as_str(), found, allowed);
        }
    }
}

/// Which pools each site, as their home, and each mirror offers.
struct Offers<'a>(HashSet<(&'a str, &'a str)>);

impl<'a> Offers<'a> {
    fn new(draft: &'a Draft) -> Self {
        let home = draft.pools.iter().filter_map(|pool| Some((pool.home.as_ref()?, &pool.name)));
        let home = home.map(|(home, pool)| (home.value.as_str(), pool.value.as_str()));
        let mirrored = draft.mirrors.iter().flat_map(|mirror| {
            pools(mirror).iter().map(move |pool| (name(mirror), pool.value.as_str()))
        });
        Self(home.chain(mirrored).collect())
    }

    fn any(&self, parents: &[At<String>], pools: &[At<String>]) -> bool {
        let offers = |parent: &At<String>| {
            pools.iter().any(|pool| self.0.contains(&(parent.value.as_str(), pool.value.as_str())))
        };
        parents.iter().any(offers)
    }
}

fn check_pools(
    draft: &Draft,
    mirror: &DraftMirror,
    offers: &Offers<'_>,
    diagnostics: &mut Diagnostics,
) {
    let known = || list("a pool", draft.pools.iter().map(|pool| pool.name.value.as_str()));
    if let Some(at) = mirror.pools.as_ref().filter(|at| at.value.is_empty()) {
        diagnostics.error(&at.place, at.key.as_str(), "no pool", known());
    }
    let mut seen = HashSet::new();
    for pool in pools(mirror) {
        let quoted = quote(&pool.value);
        let definition = draft.pools.iter().find(|own| own.name.value == pool.value);
        let (found, allowed) = match definition {
            _ if !seen.insert(pool.value.as_str()) => {
                (format!("{quoted} for the second time"), "each pool once".to_owned())
            }
            None => (format!("{quoted}, which the file does not define"), known()),
            Some(definition) => {
                let offered = offers.any(parents(mirror), slice::from_ref(pool));
                let Some(home) = definition.home.as_ref().filter(|_| !offered) else { continue };
                let found = format!("{quoted}, which none of the parents offers");
                (
                    found,
                    format!(
                        "pools of the parents; or a parent that has it, such as {}",
                        home.value
                    ),
                )
            }
        };
        diagnostics.error(&pool.place, pool.key.as_str(), found, allowed);
    }
}

/// Takes away mirrors whose parents are all gone until none can be: what stays lies on a cycle or
/// behind one. Names each cycle once.
fn check_cycles(draft: &Draft, diagnostics: &mut Diagnostics) {
    let index: HashMap<&str, usize> =
        draft.mirrors.iter().enumerate().map(|(at, mirror)| (name(mirror), at)).collect();
    // A mirror that names itself has been told so already.
    let edges: Vec<Vec<usize>> = draft
        .mirrors
        .iter()
        .enumerate()
        .map(|(own, mirror)| {
            let to = parents(mirror).iter().filter_map(|p| index.get(p.value.as_str()).copied());
            to.filter(|to| *to != own).collect()
        })
        .collect();
    let mut children = vec![Vec::new(); edges.len()];
    let mut waiting: Vec<usize> = edges.iter().map(Vec::len).collect();
    for (child, parents) in edges.iter().enumerate() {
        for &parent in parents {
            children[parent].push(child);
        }
    }
    let mut gone = vec![false; edges.len()];
    let mut free: Vec<usize> = (0..edges.len()).filter(|&at| waiting[at] == 0).collect();
    loop {
        while let Some(at) = free.pop() {
            if std::mem::replace(&mut gone[at], true) {
                continue;
            }
            for &child in &children[at] {
                waiting[child] -= 1;
                if waiting[child] == 0 {
                    free.push(child);
                }
            }
        }
        let Some(start) = gone.iter().position(|gone| !gone) else { return };
        let cycle = walk(start, &edges, &gone);
        complain(draft, &cycle, diagnostics);
        free.extend(cycle);
    }
}

/// Follows parents that stay until one comes again. Every mirror that stays has such a parent.
fn walk(start: usize, edges: &[Vec<usize>], gone: &[bool]) -> Vec<usize> {
    let mut path = vec![start];
    let mut place = HashMap::from([(start, 0)]);
    loop {
        let last = *path.last().expect("starts with one");
        let next = edges[last].iter().copied().find(|&to| !gone[to]);
        let next = next.expect("what has no parent left was taken away");
        if let Some(&first) = place.get(&next) {
            return path.split_off(first);
        }
        place.insert(next, path.len());
        path.push(next);
    }
}

fn complain(draft: &Draft, cycle: &[usize], diagnostics: &mut Diagnostics) {
    // Begins with the first of the file, so that the message does not depend on the walk.
    let first = (0..cycle.len()).min_by_key(|&at| cycle[at]).expect("a cycle is not empty");
    let ring = cycle.iter().cycle().skip(first).take(cycle.len() + 1);
    let names: Vec<&str> = ring.map(|&at| name(&draft.mirrors[at])).collect();
    let mirror = &draft.mirrors[cycle[first]];
    let Some(at) = &mirror.parents else { return };
    let found = format!("a cycle: {}", names.join(" <- "));
    let allowed = "parents that lead to a site, never back";
    diagnostics.error(&at.place, at.key.as_str(), found, allowed);
}
