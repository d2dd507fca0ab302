//! Exit codes. The same for every subcommand, so that a script can tell "no" from "could not".

use std::{io, process::ExitCode};

use crate::output::Output;

/// How a run ends; documented in docs/cli.md and in `tradewind --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or it holds.
    Done = 0,
    /// Answered, and the answer is no: a condition that does not hold, a key that does not exist, a
    /// file with faults, a ledger that does not verify.
    No = 1,
    /// Not done: bad arguments, unreachable or refusing servers, unreadable files. Without an effect.
    Failed = 2,
    /// An auditor found two signed histories; the evidence is written down.
    Equivocation = 3,
    /// Valid as far as it goes, but with too few signatures, or too old.
    Insufficient = 4,
    /// Whether a write was executed is not known.
    Unknown = 5,
    /// `serve --no-restart`: the process is to be started again.
    Again = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Tells an error on stderr, and its exit code.
pub(crate) fn report(error: &anyhow::Error, output: &Output) -> Exit {
    // Nobody reads what we print any more: `tradewind list ... | head`.
    if causes::<io::Error>(error).any(|cause| cause.kind() == io::ErrorKind::BrokenPipe) {
        return Exit::Done;
    }
    let exit = exit_of(error);
    if output.is_json() {
        let object = serde_json::json!({ "error": words(error), "exit_code": exit as u8 });
        eprintln!("{object}");
    } else {
        eprintln!("{} {}", output.red("error:"), words(error));
    }
    exit
}

/// An error and its causes; a cause that the error's own words repeat is left out.
pub(crate) fn words(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        said if said.contains(&cause) => said.to_owned(),
        said => format!("{said}: {cause}"),
    })
}

fn exit_of(error: &anyhow::Error) -> Exit {
    let unknown = |cause: &tradewind_client::Error| {
        matches!(cause, tradewind_client::Error::OutcomeUnknown { .. })
    };
    if causes::<tradewind_client::Error>(error).any(unknown) { Exit::Unknown } else { Exit::Failed }
}

fn causes<T: std::error::Error + 'static>(error: &anyhow::Error) -> impl Iterator<Item = &T> {
    error.chain().filter_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::words;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow!("no such file").context("reading x: no such file").context("import");
        assert_eq!(words(&error), "import: reading x: no such file");
    }
}
