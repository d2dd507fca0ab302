//! Bars on stderr: only on a terminal, and not under JSON output.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// A bar for long work; goes away when dropped.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// `total` is the number of bytes to read, if that is known.
    pub(crate) fn new(what: &str, total: Option<u64>, output: &Output) -> Self {
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{prefix} {wide_bar} {bytes}/{total_bytes}, {msg}, {elapsed} ({eta})",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {prefix} {msg}, {elapsed}"),
        };
        Self::shown(bar, template, what, output)
    }

    /// A bar over a number of steps.
    pub(crate) fn steps(what: &str, total: u64, output: &Output) -> Self {
        let template = "{prefix} {wide_bar} {pos}/{len}, {msg}, {elapsed}";
        Self::shown(ProgressBar::new(total), template, what, output)
    }

    fn shown(bar: ProgressBar, template: &str, what: &str, output: &Output) -> Self {
        if output.shows_progress() {
            bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
            bar.enable_steady_tick(Duration::from_millis(100));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_prefix(what.to_owned());
        Self(bar)
    }

    /// How far it is: bytes, and records.
    pub(crate) fn set(&self, bytes: u64, records: u64) {
        self.0.set_position(bytes);
        // A message is formatted, so not for every record.
        if records.is_multiple_of(64) {
            self.tell(|| format!("{records} records"));
        }
    }

    /// How many steps are done, and what the next is.
    pub(crate) fn step(&self, done: u64, next: impl FnOnce() -> String) {
        self.0.set_position(done);
        self.tell(next);
    }

    /// What it is at, in words; asked for only if somebody watches.
    pub(crate) fn tell(&self, words: impl FnOnce() -> String) {
        if !self.0.is_hidden() {
            self.0.set_message(words());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
