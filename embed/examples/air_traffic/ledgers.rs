//! What the ledgers of all members say, and whether it holds. Knows nothing of how the state machine decides: flights and
//! runways are followed here in a second, simpler way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tradewind_embed::{At, StateMachine as _, decode_command};
use tradewind_ledger::{Body, Entry, Value};
use tradewind_ledger_disk::{Face, Options};

use crate::plans::{Airspace, Command, Reply, Sent, Strip, Version};

/// A command, its place, and what the state machine answers when it is played again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Played {
    pub(crate) at: At,
    pub(crate) sent: Sent,
    pub(crate) reply: Reply,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) commands: u64,
    pub(crate) plans: u64,
    pub(crate) clearances: u64,
    pub(crate) grants: u64,
    pub(crate) fenced: u64,
}

/// The entries of the ledger in `directory`, by version. No process may have it open.
pub(crate) fn entries(directory: &Path) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let options = Options { face: Face::Packed, ..Options::default() };
    tradewind_ledger_disk::open(directory, &options, |_, entry| {
        entries.push(entry);
        Ok(())
    })
    .map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(entries)
}

/// The commands among `entries`, played.
pub(crate) fn play(entries: &[Entry], name: &str) -> Result<Vec<Played>, String> {
    let mut airspace = Airspace::default();
    let mut played = Vec::new();
    for (version, entry) in (0..).zip(entries) {
        let Body::Put(write) = &entry.body else { continue };
        let (true, Some(Value::Inline(value))) =
            (write.update.key == name.as_bytes(), &write.update.value)
        else {
            continue;
        };
        let sent = decode_command::<Sent>(value)?.ok_or("a value that is no command")?;
        let at =
            At { version: tradewind_ledger::Version(version), hlc: entry.hlc, view: entry.view };
        let reply = airspace.apply(at, sent.clone());
        played.push(Played { at, sent, reply });
    }
    Ok(played)
}

/// All members have one history: each ledger is a beginning of the longest, which is given back.
pub(crate) fn one_history(mut ledgers: Vec<Vec<Entry>>) -> Result<Vec<Entry>, String> {
    ledgers.sort_by_key(Vec::len);
    let longest = ledgers.pop().ok_or("no ledger")?;
    for ledger in ledgers {
        if let Some(at) = ledger.iter().zip(&longest).position(|(a, b)| a != b) {
            return Err(format!("two members differ at version {at}"));
        }
    }
    Ok(longest)
}

/// No command is there twice; no flight ever had two active plans; no two towers acted under one token, and nobody under
/// one that was not the newest.
pub(crate) fn check(played: &[Played]) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut strips: BTreeSet<&Strip> = BTreeSet::new();
    let mut active: BTreeMap<&str, BTreeSet<Version>> = BTreeMap::new();
    let mut newest: BTreeMap<&str, Version> = BTreeMap::new();
    let mut holders: BTreeMap<(&str, Version), &str> = BTreeMap::new();
    for Played { at, sent, reply } in played {
        let version = at.version.0;
        let tower = sent.strip.tower.as_str();
        counts.commands += 1;
        if !strips.insert(&sent.strip) {
            return Err(format!("version {version}: {:?} was applied before", sent.strip));
        }
        match (&sent.command, reply) {
            (Command::File { flight, .. }, Reply::Active(plan)) => {
                counts.plans += 1;
                active.entry(flight).or_default().insert(*plan);
            }
            (Command::Amend { flight, of, .. }, Reply::Active(plan)) => {
                counts.plans += 1;
                let plans = active.entry(flight).or_default();
                plans.remove(of);
                plans.insert(*plan);
            }
            (Command::Cancel { flight, of }, Reply::Cancelled) => {
                active.entry(flight).or_default().remove(of);
            }
            (Command::Take { runway, .. }, Reply::Granted(token)) => {
                counts.grants += 1;
                if newest.insert(runway, *token).is_some_and(|before| before >= *token) {
                    return Err(format!("version {version}: a token that is not newer"));
                }
                holders.insert((runway, *token), tower);
            }
            (Command::Renew { runway, token }, Reply::Renewed)
            | (Command::Clear { runway, token, .. }, Reply::Cleared) => {
                counts.clearances += u64::from(*reply == Reply::Cleared);
                if newest.get(runway.as_str()) != Some(token) {
                    return Err(format!(
                        "version {version}: {tower} acts under the old token {token}"
                    ));
                }
                let holder = holders[&(runway.as_str(), *token)];
                if holder != tower {
                    return Err(format!(
                        "version {version}: {tower} acts under the token of {holder}"
                    ));
                }
            }
            (_, Reply::Fenced { .. }) => counts.fenced += 1,
            _ => {}
        }
        if let Some((flight, plans)) = active.iter().find(|(_, plans)| plans.len() > 1) {
            return Err(format!("version {version}: {flight} has the active plans {plans:?}"));
        }
    }
    Ok(counts)
}

/// What towers were told is what the order says, each command's answer once.
pub(crate) fn check_told(
    played: &[Played],
    told: &[(Strip, Version, Reply)],
) -> Result<(), String> {
    let by_version: BTreeMap<Version, &Played> =
        played.iter().map(|played| (played.at.version.0, played)).collect();
    let mut answered = BTreeSet::new();
    for (strip, version, reply) in told {
        let Some(played) = by_version.get(version) else {
            return Err(format!("{strip:?} was told of version {version}, which is not there"));
        };
        if (&played.sent.strip, &played.reply) != (strip, reply) {
            return Err(format!("{strip:?} was told {reply:?}; version {version} is {played:?}"));
        }
        if !answered.insert(strip) {
            return Err(format!("{strip:?} was answered twice"));
        }
    }
    Ok(())
}
