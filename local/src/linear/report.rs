//! A broken history, cut down to what is needed to see it.

use std::fmt::{self, Write as _};

use tradewind_store::Condition;

use super::history::{Call, Op, Outcome};
use super::search::{Found, prepared, search};

/// A key whose calls have no order that allows all replies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// There is none.
    NotLinearizable {
        /// The key.
        key: Vec<u8>,
        /// The first calls, in order of their beginning, that have none: without the last reply they have one. Reads
        /// that are not needed to see it are left out.
        calls: Vec<Call>,
        /// Places in `calls`: the longest order of some of them.
        longest: Vec<usize>,
    },
    /// The search was given up.
    Undecided {
        /// The key.
        key: Vec<u8>,
        /// How many calls it has.
        calls: usize,
    },
}

/// Whether one key's calls are linearizable.
pub(super) fn check(key: &[u8], calls: &[Call]) -> Result<(), Violation> {
    let calls = prepared(calls);
    match search(&calls) {
        Found::Order(_) => Ok(()),
        Found::Undecided => Err(Violation::Undecided { key: key.to_vec(), calls: calls.len() }),
        Found::None { .. } => {
            let calls = least(&calls);
            let Found::None { longest } = search(&calls) else { unreachable!("it had no order") };
            Err(Violation::NotLinearizable { key: key.to_vec(), calls, longest })
        }
    }
}

/// The shortest beginning of a history without an order that has none either, without needless reads. (Leaving out
/// writes would not do: others may have seen them.)
fn least(calls: &[Call]) -> Vec<Call> {
    let broken = |calls: &[Call]| matches!(search(calls), Found::None { .. });
    let mut ends: Vec<u64> =
        calls.iter().filter_map(|call| call.ended.as_ref()).map(|(at, _)| *at).collect();
    ends.sort_unstable();
    // If a beginning has no order, none that goes on has one.
    let first = ends.partition_point(|&end| !broken(&until(calls, end)));
    let mut least = until(calls, ends[first]);
    for index in (0..least.len()).rev() {
        if least[index].op == Op::Get {
            let mut fewer = least.clone();
            fewer.remove(index);
            if broken(&fewer) {
                least = fewer;
            }
        }
    }
    least
}

/// What of a history was to be seen at a time.
fn until(calls: &[Call], time: u64) -> Vec<Call> {
    let seen = calls.iter().filter(|call| call.began <= time).cloned();
    let cut: Vec<Call> = seen
        .map(|call| Call { ended: call.ended.clone().filter(|(at, _)| *at <= time), ..call })
        .collect();
    prepared(&cut)
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecided { key, calls } => {
                let key = key.escape_ascii();
                write!(f, "key {key}: the search among {calls} calls was given up; use fewer")
            }
            Self::NotLinearizable { key, calls, longest } => {
                writeln!(f, "key {} is not linearizable:", key.escape_ascii())?;
                writeln!(f, "  call  client      began      ended  what")?;
                for (index, call) in calls.iter().enumerate() {
                    writeln!(f, "  {}", line(index, call))?;
                }
                let places: Vec<String> = longest.iter().map(|i| format!("#{i}")).collect();
                write!(f, "the longest order that its replies allow: {}", places.join(", "))?;
                let left = |i: &usize| !longest.contains(i) && calls[*i].ended.is_some();
                let left: Vec<String> =
                    (0..calls.len()).filter(left).map(|i| format!("#{i}")).collect();
                write!(f, "; it leaves no place for {}", left.join(", "))
            }
        }
    }
}

fn line(index: usize, Call { client, op, began, ended }: &Call) -> String {
    let (at, told) = match ended {
        None => ("never".to_owned(), "outcome not known".to_owned()),
        Some((at, outcome)) => (at.to_string(), told(outcome)),
    };
    format!("{:>4}  {client:>6} {began:>10} {at:>10}  {}: {told}", format!("#{index}"), asked(op))
}

fn asked(op: &Op) -> String {
    let condition = |condition: &Condition| match condition {
        Condition::Always => String::new(),
        Condition::Absent => " if absent".to_owned(),
        Condition::Version(version) => format!(" if version {version}"),
    };
    match op {
        Op::Get => "get".to_owned(),
        Op::Put { value, condition: c } => format!("put {}{}", shown(value), condition(c)),
        Op::Delete { condition: c } => format!("delete{}", condition(c)),
        Op::Erase => "delete in a transaction".to_owned(),
    }
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Value(None) => "nothing".to_owned(),
        Outcome::Value(Some(seen)) => {
            let mut text = format!("version {}, change {}", seen.version, seen.key_version);
            if let Some(value) = &seen.value {
                write!(text, ", {}", shown(value)).expect("a string takes all");
            }
            text
        }
        Outcome::Written { version, key_version } => {
            format!("written as version {version}, change {key_version}")
        }
        Outcome::Conflict(None) => "conflict, it does not exist".to_owned(),
        Outcome::Conflict(Some(is)) => {
            format!("conflict with version {}, change {}", is.version, is.key_version)
        }
        Outcome::Absent => "there was nothing".to_owned(),
    }
}

fn shown(value: &[u8]) -> String {
    let start = &value[..value.len().min(16)];
    let more = if start.len() < value.len() { "..." } else { "" };
    format!("\"{}{more}\"", start.escape_ascii())
}
