//! The end of a mirror that can do its work no more, or is to begin anew: no half-alive process.

use std::fmt;

use tokio::sync::watch;

/// Why a mirror ends by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It is to be started again, in a fresh process: it goes on from there by itself.
    Restart(String),
    /// It can do its work no more.
    Failed(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart(reason) => write!(f, "it begins anew: {reason}"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Tells whoever runs the mirror that it ends.
#[derive(Clone, Debug)]
pub(crate) struct Failing(watch::Sender<Option<Ended>>);

impl Failing {
    pub(crate) fn new() -> (Self, watch::Receiver<Option<Ended>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    pub(crate) fn fail(&self, reason: &str) {
        self.end(Ended::Failed(reason.to_owned()));
    }

    pub(crate) fn begin_anew(&self, reason: String) {
        self.end(Ended::Restart(reason));
    }

    /// The first reason is kept.
    fn end(&self, ended: Ended) {
        self.0.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(ended);
            is_first
        });
    }

    /// To be held by a thread of the mirror: its panic is a failure like others.
    pub(crate) fn watch(&self, thread: &'static str) -> PanicWatch {
        PanicWatch { failing: self.clone(), thread }
    }
}

/// Tells of a panic while it is unwound.
#[derive(Debug)]
pub(crate) struct PanicWatch {
    failing: Failing,
    thread: &'static str,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failing.fail(&format!("the {} thread panicked", self.thread));
        }
    }
}
