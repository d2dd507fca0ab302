//! The end of a mirror that can do its work no more: no half-alive process.

use tokio::sync::watch;

/// Tells whoever runs the mirror that it can do its work no more.
#[derive(Clone, Debug)]
pub(crate) struct Failing(watch::Sender<Option<String>>);

impl Failing {
    pub(crate) fn new() -> (Self, watch::Receiver<Option<String>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    /// The first reason is kept.
    pub(crate) fn fail(&self, reason: &str) {
        self.0.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| reason.to_owned());
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
