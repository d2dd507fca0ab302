//! Exactly once: which requests of which sessions were executed.
//!
//! A record is made from an entry and from nothing else, so that every replica, and every restart, has the same
//! table. A request that wrote nothing makes no entry and leaves no record: executed once more it does no harm, for its
//! client has not acted on an answer it did not get. If the client sends it once more, it says so
//! ([`Command::Settle`](crate::Command::Settle)), and then an entry is made in any case: the other copy, which may come
//! later, finds the record.
//!
//! The table is bounded in two ways, both a function of the entries alone. Of a session, numbers more than
//! [`WINDOW`] behind its highest are expired. Of all sessions, the least recently used are forgotten; and because a
//! session's id tells when it was opened, a request of a session that *may* be a forgotten one is told from the first
//! request of a new one.

use crate::fingerprint::Fingerprint;
use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use tradewind_ledger::{Hlc, KeyVersion, RequestId, RequestNumber, SessionId, Version};

/// How many of a session's latest request numbers are remembered; a client keeps its unanswered ones within it.
pub const WINDOW: u64 = 1024;
/// How many sessions a shard remembers.
pub const MAX_SESSIONS: usize = 4096;
/// How many are forgotten at once when there are more, so that looking for the oldest costs little.
const FORGOTTEN_AT_ONCE: usize = MAX_SESSIONS / 16;

/// Makes the id of a session: `opened` is a recent time of the server (it says so in its welcome), `random` makes the
/// id unique among sessions opened at that time.
pub fn session_id(opened: Hlc, random: u64) -> SessionId {
    SessionId(u128::from(opened.0) << 64 | u128::from(random))
}

/// When a session was opened.
pub fn session_opened(session: SessionId) -> Hlc {
    Hlc((session.0 >> 64) as u64)
}

/// What is known of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    New,
    Executed(Record),
    Expired { highest: RequestNumber },
    SessionExpired,
}

/// An executed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) number: RequestNumber,
    /// The entry it made, and when.
    pub(crate) version: Version,
    pub(crate) hlc: Hlc,
    /// Which change of its key it was, if it was a put or a delete; zero for a transaction.
    pub(crate) key_version: KeyVersion,
    /// What it wrote.
    pub(crate) fingerprint: Fingerprint,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) last_used: Version,
    pub(crate) last_used_at: Hlc,
    pub(crate) highest: RequestNumber,
    /// Ascending by number, all within the window.
    pub(crate) records: VecDeque<Record>,
}

/// All sessions that a shard remembers. A clone shares what neither changes: it is made where a snapshot is due, while
/// everything waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    pub(crate) sessions: BTreeMap<SessionId, Arc<Session>>,
    /// The latest use of any session that was forgotten: a session opened later is none of those.
    pub(crate) forgotten_through: Option<Hlc>,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn seen(&self, request: RequestId) -> Seen {
        let Some(session) = self.sessions.get(&request.session) else {
            return match self.forgotten_through {
                Some(through) if session_opened(request.session) <= through => Seen::SessionExpired,
                _ => Seen::New,
            };
        };
        if request.number > session.highest {
            return Seen::New;
        }
        match session.records.binary_search_by_key(&request.number, |r| r.number) {
            Ok(index) => Seen::Executed(session.records[index]),
            Err(_) if in_window(request.number, session.highest) => Seen::New,
            Err(_) => Seen::Expired { highest: session.highest },
        }
    }

    /// Notes that `record.version` executed `request`.
    pub(crate) fn record(&mut self, session: SessionId, record: Record) {
        let session = self.sessions.entry(session).or_insert_with(|| {
            Arc::new(Session {
                last_used: record.version,
                last_used_at: record.hlc,
                highest: record.number,
                records: VecDeque::new(),
            })
        });
        let session = Arc::make_mut(session);
        session.last_used = record.version;
        session.last_used_at = record.hlc;
        session.highest = session.highest.max(record.number);
        if session.records.back().is_none_or(|last| last.number < record.number) {
            session.records.push_back(record);
        } else {
            match session.records.binary_search_by_key(&record.number, |r| r.number) {
                Ok(index) => session.records[index] = record,
                Err(index) => session.records.insert(index, record),
            }
        }
        while session.records.front().is_some_and(|r| !in_window(r.number, session.highest)) {
            session.records.pop_front();
        }
        if self.sessions.len() > MAX_SESSIONS {
            self.forget();
        }
    }

    fn forget(&mut self) {
        let mut uses: Vec<_> =
            self.sessions.iter().map(|(id, s)| (s.last_used, s.last_used_at, *id)).collect();
        uses.sort_unstable();
        for &(_, at, id) in &uses[..FORGOTTEN_AT_ONCE] {
            self.sessions.remove(&id);
            self.forgotten_through = self.forgotten_through.max(Some(at));
        }
    }
}

fn in_window(number: RequestNumber, highest: RequestNumber) -> bool {
    highest.0 - number.0 < WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(session: SessionId, number: u64) -> RequestId {
        RequestId { session, number: RequestNumber(number) }
    }

    fn record(sessions: &mut Sessions, request: RequestId, version: u64) {
        let (version, hlc, key_version) = (Version(version), Hlc(version), KeyVersion(1));
        let fingerprint = Fingerprint::PUT;
        let record = Record { number: request.number, version, hlc, key_version, fingerprint };
        sessions.record(request.session, record);
    }

    #[test]
    fn numbers_out_of_order_are_new_until_the_window_has_passed() {
        let mut sessions = Sessions::default();
        let id = session_id(Hlc(1), 7);
        record(&mut sessions, request(id, WINDOW), 0);
        assert_eq!(sessions.seen(request(id, 1)), Seen::New);
        record(&mut sessions, request(id, 1), 1);
        record(&mut sessions, request(id, WINDOW + 1), 2);
        assert_eq!(
            sessions.seen(request(id, 1)),
            Seen::Expired { highest: RequestNumber(WINDOW + 1) }
        );
        assert!(
            matches!(sessions.seen(request(id, WINDOW)), Seen::Executed(r) if r.version == Version(0))
        );
        assert_eq!(sessions.seen(request(id, 2)), Seen::New);
        assert_eq!(sessions.seen(request(id, u64::MAX)), Seen::New);
    }

    #[test]
    fn a_forgotten_session_is_told_from_a_new_one() {
        let mut sessions = Sessions::default();
        let first = session_id(Hlc(0), 1);
        record(&mut sessions, request(first, 1), 0);
        for n in 1..=MAX_SESSIONS as u64 {
            record(&mut sessions, request(session_id(Hlc(n), 1), 1), n);
        }
        assert_eq!(sessions.seen(request(first, 1)), Seen::SessionExpired);
        assert_eq!(sessions.len(), MAX_SESSIONS + 1 - FORGOTTEN_AT_ONCE);
        let later = session_id(Hlc(MAX_SESSIONS as u64 + 1), 2);
        assert_eq!(sessions.seen(request(later, 1)), Seen::New);
    }

    #[test]
    fn a_session_is_bounded() {
        let mut sessions = Sessions::default();
        let id = session_id(Hlc(1), 7);
        for n in 0..10 * WINDOW {
            record(&mut sessions, request(id, n), n);
        }
        assert_eq!(sessions.sessions[&id].records.len() as u64, WINDOW);
    }
}
