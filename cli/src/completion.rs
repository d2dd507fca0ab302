//! `tradewind completion SHELL`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{command::Cli, exit::Exit, output::Output};

/// Print a completion script for a shell.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tradewind completion bash > /etc/bash_completion.d/tradewind
  tradewind completion zsh > ~/.zfunc/_tradewind
  tradewind completion fish > ~/.config/fish/completions/tradewind.fish")]
pub(crate) struct CompletionArgs {
    /// For which shell
    shell: Shell,
}

impl CompletionArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tradewind", &mut script);
        output.bytes(&script)?;
        Ok(Exit::Done)
    }
}
