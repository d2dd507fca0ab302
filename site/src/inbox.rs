//! What other threads hand to the group thread: bounded where clients are the source, and one wake-up for many.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tradewind_client::wire::Fault;
use tradewind_gateway::ReplyTo;
use tradewind_site_protocol::{ShardIndex, Submission};
use tradewind_transport::fabric::Wake;

use crate::log::Done;

/// Submissions that may wait for the group thread; beyond it clients are told to come back.
const SUBMISSIONS_MAX: usize = 65_536;

/// Reads, each perhaps of many clients, that may wait for the group thread.
const READS_MAX: usize = 65_536;

/// The group thread's letter box.
pub(crate) struct Inbox {
    state: Mutex<State>,
    waker: Arc<dyn Wake>,
}

#[derive(Default)]
struct State {
    submissions: VecDeque<Submitted>,
    reads: Vec<Read>,
    done: Vec<Done>,
    stop: bool,
    /// Whether the group thread was woken and has not yet looked.
    woken: bool,
}

/// A command on its way to a shard, and whom to tell.
pub(crate) struct Submitted {
    pub(crate) shard: ShardIndex,
    /// Its ticket is given by the group thread.
    pub(crate) submission: Submission,
    pub(crate) reply: ReplyTo,
}

/// Reads of a shard that wait for a barrier, and whom to tell.
pub(crate) struct Read {
    pub(crate) shard: ShardIndex,
    pub(crate) passed: Passed,
}

/// Told when the barrier has passed, or why it cannot.
pub(crate) type Passed = oneshot::Sender<Result<(), Fault>>;

/// What the group thread takes out in one turn.
pub(crate) struct Taken {
    pub(crate) submissions: VecDeque<Submitted>,
    pub(crate) reads: Vec<Read>,
    pub(crate) done: Vec<Done>,
    pub(crate) stop: bool,
}

impl Inbox {
    pub(crate) fn new(waker: Arc<dyn Wake>) -> Self {
        Self { state: Mutex::default(), waker }
    }

    /// Hands in submissions; those beyond the bound come back.
    pub(crate) fn submit(&self, batch: impl Iterator<Item = Submitted>) -> Vec<Submitted> {
        let mut batch = batch;
        self.change(|state| {
            let room = SUBMISSIONS_MAX.saturating_sub(state.submissions.len());
            state.submissions.extend(batch.by_ref().take(room));
        });
        batch.collect()
    }

    /// Hands in reads; those beyond the bound come back.
    pub(crate) fn read(&self, read: Read) -> Option<Read> {
        let mut read = Some(read);
        self.change(|state| {
            if state.reads.len() < READS_MAX {
                state.reads.extend(read.take());
            }
        });
        read
    }

    /// Hands in a finished job of the log thread.
    pub(crate) fn done(&self, done: Done) {
        self.change(|state| state.done.push(done));
    }

    /// Asks the group thread to end.
    pub(crate) fn stop(&self) {
        self.change(|state| state.stop = true);
    }

    /// Whether the group thread was asked to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.state.lock().stop
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let wake = {
            let mut state = self.state.lock();
            change(&mut state);
            !std::mem::replace(&mut state.woken, true)
        };
        if wake {
            self.waker.wake();
        }
    }

    /// Everything that waits.
    pub(crate) fn take(&self) -> Taken {
        let mut state = self.state.lock();
        state.woken = false;
        Taken {
            submissions: std::mem::take(&mut state.submissions),
            reads: std::mem::take(&mut state.reads),
            done: std::mem::take(&mut state.done),
            stop: state.stop,
        }
    }
}

/// Tells the group thread of a panic of another one while that is unwound: the node must not go on half alive.
pub(crate) struct PanicWatch {
    thread: &'static str,
    inbox: Arc<Inbox>,
}

impl PanicWatch {
    pub(crate) fn new(thread: &'static str, inbox: &Arc<Inbox>) -> Self {
        Self { thread, inbox: Arc::clone(inbox) }
    }
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.inbox.done(Done::Failed(format!("the {} thread panicked", self.thread)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use tradewind_ledger::note::SignedNote;
    use tradewind_site_protocol::EntryBatch;

    use super::*;
    use crate::intake::Intakes;
    use crate::log::{Job, Log};
    use crate::peers::PeersFile;
    use crate::publish::Publisher;

    #[derive(Debug)]
    struct Told(Sender<()>);

    impl Wake for Told {
        fn wake(&self) {
            // Nobody may wait any more.
            let _ = self.0.send(());
        }
    }

    /// What the group thread is told after `work` by a thread without any ledger.
    fn told(work: impl FnOnce(&Arc<Inbox>)) -> String {
        let (sender, woken) = channel();
        let inbox = Arc::new(Inbox::new(Arc::new(Told(sender))));
        work(&inbox);
        woken.recv_timeout(Duration::from_secs(30)).expect("the group thread is woken");
        match inbox.take().done.as_slice() {
            [Done::Failed(reason)] => reason.clone(),
            other => panic!("{} things are done", other.len()),
        }
    }

    #[test]
    fn the_group_thread_is_told_when_the_log_thread_panics() {
        let reason = told(|inbox| {
            let log = Log::start(Vec::new(), Intakes::new(HashMap::new()), Arc::clone(inbox))
                .expect("a thread");
            let (entries, leaves, values) = (EntryBatch::default(), Vec::new(), Vec::new());
            let (shard, bodies) = (ShardIndex(0), Vec::new());
            log.push(Job::Append { shard, entries, leaves, values, bodies });
            log.stop();
        });
        assert_eq!(reason, "the log thread panicked");
    }

    #[test]
    fn the_group_thread_is_told_when_the_publisher_panics() {
        let note = "atlas/ams/bench/0\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\
                    — atlas/ams/bench/0 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n";
        let reason = told(|inbox| {
            let publisher =
                Publisher::start(HashMap::new(), PeersFile::none(), inbox).expect("a thread");
            publisher.push(ShardIndex(0), SignedNote::parse(note.as_bytes()).expect("a note"));
            publisher.stop();
        });
        assert_eq!(reason, "the publisher thread panicked");
    }
}
