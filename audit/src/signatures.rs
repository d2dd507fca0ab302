//! Whose signatures count, and whether a checkpoint has enough of them.

use tradewind_ledger::note::KeyKind;
use tradewind_ledger::{Member, Policy, PolicyError, SignedNote, VerifierKey, quorum};

use crate::report::{Place, ProblemKind, Problems, Trust};
use crate::verify::Options;

/// Who signed a checkpoint.
pub(crate) struct Signed {
    /// Names of the trusted members that did.
    pub(crate) signers: Vec<String>,
    /// How many have to.
    pub(crate) threshold: usize,
    /// Whether these are enough and none is wrong.
    pub(crate) enough: bool,
}

/// The members whose signatures count: the ledger's own, or the keys that the auditor brought.
pub(crate) fn trusted(options: &Options, origin: &str, members: &[Member]) -> (Vec<Member>, Trust) {
    if options.keys.is_empty() {
        return (members.to_vec(), Trust::OwnGenesis);
    }
    let given = options.keys.iter().filter(|key| key.name() == origin);
    let named = |key: &VerifierKey| {
        let public_key = *key.public_key();
        let member = members.iter().find(|member| member.public_key == public_key);
        let name = member.map_or_else(|| key.id().to_string(), |member| member.name.clone());
        Member { name, public_key }
    };
    (given.map(named).collect(), Trust::Keys)
}

/// Checks the signatures of `note`; lists what is wrong with them. With the ledger's `members` known, every
/// line must be by one of them or by a given key: another one proves nothing, and is either damage or by a
/// witness whose key the auditor should have been given. Without them, lines by unknown keys are ignored,
/// as signed-note demands.
pub(crate) fn check(
    note: &SignedNote,
    origin: &str,
    members: &[Member],
    options: &Options,
    problems: &mut Problems,
) -> Signed {
    let place = || Place::file("checkpoint");
    let (trusted, _) = trusted(options, origin, members);
    let threshold = options.threshold.unwrap_or(quorum(trusted.len())).max(1);
    let mut signed = Signed { signers: Vec::new(), threshold, enough: false };
    if trusted.is_empty() {
        let message = format!("no key of `{origin}` is known, so its signatures cannot be checked");
        problems.add(ProblemKind::Unchecked, place(), message);
        return signed;
    }
    check_lines(note, origin, members, options, problems);
    let policy = match Policy::new(origin, trusted, threshold) {
        Ok(policy) => policy,
        Err(error) => {
            problems.fault(place(), format!("the members' keys: {error}"));
            return signed;
        }
    };
    let signers = match policy.verify(note) {
        Ok(verified) => {
            signed.enough = true;
            verified.signers
        }
        Err(PolicyError::TooFew { verified, threshold }) => {
            let count = verified.signers.len();
            let message = format!("{count} trusted keys signed it, {threshold} are needed");
            problems.add(ProblemKind::TooFewSigners, place(), message);
            verified.signers
        }
        // Its line was listed already.
        Err(PolicyError::BadSignature { .. }) => Vec::new(),
        Err(error) => {
            problems.fault(place(), error.to_string());
            Vec::new()
        }
    };
    let name = |signer: usize| policy.members()[signer].name.clone();
    signed.signers = signers.into_iter().map(name).collect();
    signed
}

fn check_lines(
    note: &SignedNote,
    origin: &str,
    members: &[Member],
    options: &Options,
    problems: &mut Problems,
) {
    let key = |member: &Member| VerifierKey::new(origin, KeyKind::Ed25519, member.public_key).ok();
    let mut keys: Vec<VerifierKey> = members.iter().filter_map(key).collect();
    keys.extend(options.keys.iter().cloned());
    for (index, line) in note.signatures().iter().enumerate() {
        let by = format!("signature {}, by `{}` ({})", index + 1, line.name, line.key_id);
        let message = match keys.iter().find(|key| key.claims(line)) {
            Some(key) if key.verify(note.text(), line) => continue,
            Some(_) => format!("{by}, is wrong"),
            None if members.is_empty() => continue,
            None => format!("{by}, is of an unknown key: give its vkey if it is a witness"),
        };
        problems.fault(Place::file("checkpoint"), message);
    }
}
