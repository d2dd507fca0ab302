//! Views as upcalls and as a stream, in order with what is applied.

use tokio::sync::broadcast;
use tradewind_ledger::{Version, ViewId};
use tradewind_site::Standing;

/// How many events a reader may be behind.
const KEPT: usize = 64;

/// A view of the site: a majority of its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its number; the same members at every member that installs it.
    pub id: ViewId,
    /// Its place in the order: commands before it were ordered by earlier views.
    pub first: Version,
    /// The names of its members.
    pub members: Vec<String>,
    /// Members that were not in the view told of before.
    pub joined: Vec<String>,
    /// Members of the view told of before that are not in this one.
    pub left: Vec<String>,
}

/// A change of what a member takes part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewEvent {
    /// A view was installed with this member. Told after all commands that were ordered before it were applied here, and
    /// before any that is ordered in it.
    Installed(View),
    /// No view runs here for now: nothing that is sent is taken. This member alone notices, at any time.
    Suspended(Standing),
}

/// A stream of view events.
#[derive(Debug)]
pub struct ViewEvents {
    first: Option<View>,
    events: broadcast::Receiver<ViewEvent>,
}

impl ViewEvents {
    /// The next event: at first the view that is, if there is one. `None` when the replica has stopped. Whoever is more
    /// than 64 behind misses the oldest.
    pub async fn next(&mut self) -> Option<ViewEvent> {
        if let Some(first) = self.first.take() {
            return Some(ViewEvent::Installed(first));
        }
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// What a replica tells of views.
#[derive(Debug)]
pub(crate) struct Teller {
    state: parking_lot::Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<View>,
    /// Gone when the replica has stopped.
    events: Option<broadcast::Sender<ViewEvent>>,
}

impl Teller {
    pub(crate) fn new() -> Self {
        let events = Some(broadcast::Sender::new(KEPT));
        Self { state: State { last: None, events }.into() }
    }

    pub(crate) fn subscribe(&self) -> ViewEvents {
        let state = self.state.lock();
        // A receiver without a sender ends at once.
        let events = state
            .events
            .as_ref()
            .map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe);
        ViewEvents { first: state.last.clone(), events }
    }

    /// Tells of a view, compared with the one told of before.
    pub(crate) fn installed(&self, id: ViewId, first: Version, members: Vec<String>) -> ViewEvent {
        let mut state = self.state.lock();
        let before = state.last.as_ref().map_or(&[][..], |view| &view.members);
        let without = |these: &[String], those: &[String]| {
            these.iter().filter(|name| !those.contains(name)).cloned().collect()
        };
        let (joined, left) = (without(&members, before), without(before, &members));
        let view = View { id, first, members, joined, left };
        state.last = Some(view.clone());
        state.tell(ViewEvent::Installed(view))
    }

    pub(crate) fn suspended(&self, standing: Standing) -> ViewEvent {
        self.state.lock().tell(ViewEvent::Suspended(standing))
    }

    pub(crate) fn close(&self) {
        self.state.lock().events = None;
    }
}

impl State {
    fn tell(&self, event: ViewEvent) -> ViewEvent {
        if let Some(events) = &self.events {
            // Nobody may listen.
            let _ = events.send(event.clone());
        }
        event
    }
}
