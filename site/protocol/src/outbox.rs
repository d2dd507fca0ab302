//! The own submissions of a shard on their way: waiting, sent, delivered, answered.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use tradewind_ledger::Version;
use tradewind_store::Durability;

use crate::action::{Answer, Submission};
use crate::config::Limits;
use crate::error::Refused;
use crate::ids::Ticket;
use crate::payload::{HEAD, Head, NAMED};
use crate::ring::Flags;

/// What is counted for a submission beyond its command.
const OVERHEAD: usize = 64;

/// A message to send.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How many of the waiting submissions it completes.
    pub(crate) completes: usize,
    /// The piece of the front submission's command that it carries, if it carries no batch.
    piece: Option<core::ops::Range<usize>>,
    pub(crate) flags: Flags,
    /// Bytes of the payload.
    pub(crate) len: usize,
}

/// The own submissions of a shard.
#[derive(Clone, Default, Debug)]
pub(crate) struct Outbox {
    /// Accepted, and not completely sent.
    waiting: VecDeque<Submission>,
    /// Those whose bodies have to be with all members first: not begun.
    large: VecDeque<Submission>,
    /// And begun, with the number of bodies that there are then.
    begun: VecDeque<(u64, Submission)>,
    /// Bytes of the front one that were sent as pieces.
    cut: usize,
    /// Completely sent, and not delivered.
    sent: VecDeque<Submission>,
    /// Bytes of both.
    bytes: usize,
    /// Delivered here: answer when so much is delivered at all members.
    until_everywhere: VecDeque<(Version, Answer)>,
    /// Delivered here: answer when so much is committed.
    until_committed: VecDeque<(Version, Answer)>,
}

impl Outbox {
    /// Takes a submission.
    pub(crate) fn accept(
        &mut self,
        submission: Submission,
        limits: &Limits,
    ) -> Result<(), Refused> {
        let (len, allowed) = (submission.len(), limits.command_bytes);
        if len > allowed {
            return Err(Refused::TooLarge { len, allowed });
        }
        let (submissions, bytes) = (self.len(), self.bytes);
        if submissions >= limits.pending_submissions || bytes + len > limits.pending_bytes {
            return Err(Refused::Busy { submissions, bytes });
        }
        self.bytes += len + OVERHEAD;
        match submission.bodies.is_empty() {
            true => self.waiting.push_back(submission),
            false => self.large.push_back(submission),
        }
        Ok(())
    }

    /// The oldest submission whose bodies are not begun.
    pub(crate) fn next_large(&self) -> Option<&Submission> {
        self.large.front()
    }

    /// The bodies of the [next large](Self::next_large) submission are begun; its last one is before `named`.
    pub(crate) fn begin(&mut self, named: u64) {
        let submission = self.large.pop_front().expect("it was looked at");
        self.begun.push_back((named, submission));
    }

    /// So many own bodies are with all members: what waited for them may be sent. Returns the number of
    /// the last body that they name, if there are any.
    pub(crate) fn ready(&mut self, held: u64) -> Option<u64> {
        let ready = self.begun.iter().take_while(|(named, _)| *named <= held).count();
        let mut last = None;
        for (named, mut submission) in self.begun.drain(..ready) {
            submission.command[..NAMED].copy_from_slice(&named.to_le_bytes());
            self.waiting.push_back(submission);
            last = Some(named);
        }
        last
    }

    /// Submissions that are not delivered.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.large.len() + self.begun.len() + self.sent.len()
    }

    /// Whether the front command is sent in part: its other pieces come next.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut > 0
    }

    /// What the next message should carry: all that waits and fits, or a piece of what fits no message.
    pub(crate) fn plan(&self, message_bytes: usize) -> Option<Plan> {
        let front = self.waiting.front()?;
        if self.cut > 0 || HEAD + front.command.len() > message_bytes {
            let first = self.cut == 0;
            let room = message_bytes - if first { HEAD } else { 0 };
            let end = front.command.len().min(self.cut + room);
            let last = end == front.command.len();
            let mut flags = Flags::FRAGMENT;
            if first {
                flags = flags.with(Flags::FIRST);
            }
            if last {
                flags = flags.with(Flags::LAST);
            }
            let len = end - self.cut + if first { HEAD } else { 0 };
            let piece = Some(self.cut..end);
            return Some(Plan { completes: usize::from(last), piece, flags, len });
        }
        let (mut completes, mut len) = (0, 0);
        for submission in &self.waiting {
            let with = len + HEAD + submission.command.len();
            if with > message_bytes {
                break;
            }
            (completes, len) = (completes + 1, with);
        }
        Some(Plan { completes, piece: None, flags: Flags::default(), len })
    }

    /// Gives the payload of the planned message to `write`, in parts.
    pub(crate) fn send(
        &mut self,
        plan: &Plan,
        scratch: &mut Vec<u8>,
        write: impl FnOnce(&[&[u8]]),
    ) {
        scratch.clear();
        match &plan.piece {
            Some(piece) => {
                let front = &self.waiting[0];
                if piece.start == 0 {
                    scratch.extend_from_slice(&head(front));
                }
                write(&[scratch, &front.command[piece.clone()]]);
                self.cut = if plan.completes == 1 { 0 } else { piece.end };
            }
            None => {
                for submission in self.waiting.iter().take(plan.completes) {
                    scratch.extend_from_slice(&head(submission));
                    scratch.extend_from_slice(&submission.command);
                }
                write(&[scratch]);
            }
        }
        self.sent.extend(self.waiting.drain(..plan.completes));
    }

    /// The oldest sent submission: its message is being delivered.
    pub(crate) fn take_delivered(&mut self) -> Submission {
        let submission = self.sent.pop_front().expect("an own message completes what was sent");
        self.bytes -= submission.len() + OVERHEAD;
        submission
    }

    /// Keeps an answer until the state of size `version` has the durability asked for.
    pub(crate) fn answer_at(&mut self, version: Version, durability: Durability, answer: Answer) {
        match durability {
            Durability::Memory => self.until_everywhere.push_back((version, answer)),
            Durability::Disk => self.until_committed.push_back((version, answer)),
        }
    }

    /// The answers that may be given now.
    pub(crate) fn take_answers(
        &mut self,
        everywhere: Version,
        committed: Version,
        answers: &mut Vec<Answer>,
    ) {
        take_until(&mut self.until_everywhere, everywhere, answers);
        take_until(&mut self.until_committed, committed, answers);
    }

    /// The view stopped: what it did not deliver goes to the next one, in the same order. Returns how many.
    pub(crate) fn requeue(&mut self) -> usize {
        let again = self.sent.len();
        while let Some(submission) = self.sent.pop_back() {
            self.waiting.push_front(submission);
        }
        self.cut = 0;
        // Their bodies have to be with the members of the next view.
        while let Some((_, submission)) = self.begun.pop_back() {
            self.large.push_front(submission);
        }
        if self.waiting.iter().any(|submission| !submission.bodies.is_empty()) {
            let waiting = core::mem::take(&mut self.waiting).into_iter();
            let (small, large): (VecDeque<_>, VecDeque<_>) =
                waiting.partition(|submission| submission.bodies.is_empty());
            self.waiting = small;
            large.into_iter().rev().for_each(|submission| self.large.push_front(submission));
        }
        again
    }

    /// Entries from `size` on are cut off: forgets the answers that wait for them, and names their submissions.
    pub(crate) fn forget_after(&mut self, size: Version) -> Vec<Ticket> {
        let mut forgotten = Vec::new();
        for waiting in [&mut self.until_everywhere, &mut self.until_committed] {
            while waiting.back().is_some_and(|(version, _)| *version > size) {
                forgotten.extend(waiting.pop_back().map(|(_, answer)| answer.ticket));
            }
        }
        forgotten
    }

    /// Planted bug: forgets what is not delivered.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
        self.large.clear();
        self.begun.clear();
        self.bytes = 0;
    }
}

fn head(submission: &Submission) -> [u8; HEAD] {
    let Submission { request, command, bodies, .. } = submission;
    Head { request: *request, len: command.len(), lean: !bodies.is_empty() }.encode()
}

fn take_until(
    waiting: &mut VecDeque<(Version, Answer)>,
    reached: Version,
    answers: &mut Vec<Answer>,
) {
    while waiting.front().is_some_and(|(version, _)| *version <= reached) {
        answers.extend(waiting.pop_front().map(|(_, answer)| answer));
    }
}
