//! Tells on stderr what the demo is doing: a line for each step when it is done, bars on a terminal only.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The story so far.
#[derive(Debug)]
pub(crate) struct Steps {
    start: Instant,
    terminal: bool,
}

/// A step under way. Unless it is `done`, its bar just goes away.
#[derive(Debug)]
pub(crate) struct Step {
    start: Instant,
    bar: ProgressBar,
    terminal: bool,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A step of unknown length.
    pub(crate) fn spinner(&self, what: impl Into<String>) -> Step {
        let bar = ProgressBar::new_spinner();
        self.step(bar, "  {spinner} {msg} ({elapsed})", what.into())
    }

    /// A step of `length` things.
    pub(crate) fn bar(&self, what: impl Into<String>, length: u64) -> Step {
        let template = "  {msg} {wide_bar} {human_pos}/{human_len} ({eta})";
        self.step(ProgressBar::new(length), template, what.into())
    }

    fn step(&self, bar: ProgressBar, template: &str, what: String) -> Step {
        if self.terminal {
            bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
            bar.enable_steady_tick(Duration::from_millis(100));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_message(what);
        Step { start: Instant::now(), bar, terminal: self.terminal }
    }
}

impl Step {
    /// How many of the things are done.
    pub(crate) fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Ends the step with a line that stays.
    pub(crate) fn done(self, line: impl AsRef<str>) {
        self.bar.finish_and_clear();
        let mark = if self.terminal { "\x1b[32m✓\x1b[0m" } else { "ok" };
        eprintln!("{mark} {} ({:.1} s)", line.as_ref(), self.start.elapsed().as_secs_f64());
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
