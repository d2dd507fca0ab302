//! What a subcommand prints: a table or text for people, one JSON document for programs.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// `-o`: tables and sentences, or one JSON document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // No doc comments here: they would make every --help ten lines longer.
    #[default]
    Text,
    Json,
}

/// Where and how to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    terminal: bool,
    stderr_terminal: bool,
    colour: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        // https://no-color.org: set and not empty.
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let (terminal, stderr_terminal) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self { format, terminal, stderr_terminal, colour }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether stdout is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether somebody watches stderr.
    pub(crate) fn shows_progress(&self) -> bool {
        self.stderr_terminal && !self.is_json()
    }

    /// Whether stderr is a terminal and may be coloured.
    pub(crate) fn colours_stderr(&self) -> bool {
        self.stderr_terminal && self.colour
    }

    /// Prints `value` as JSON, or what `text` makes of it; a newline is added if it has none.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let mut text = match self.format {
            Format::Text => text(value),
            Format::Json => serde_json::to_string_pretty(value)?,
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.bytes(text.as_bytes())
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }

    /// Tells something beside the result, on stderr; JSON output stays silent.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_json() {
            eprintln!("{text}");
        }
    }

    /// `text` in red if stderr may be coloured.
    pub(crate) fn red(&self, text: &str) -> String {
        if self.colours_stderr() { format!("\u{1b}[1;31m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// An empty table with these column heads: no lines, so that `cut` and `grep` work on it.
pub(crate) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().map(|name| name.to_uppercase()));
    table
}

/// "1 node", "3 nodes".
pub(crate) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
