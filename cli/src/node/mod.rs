//! `tradewind node`: who a site's nodes are.

mod add;
mod file;
mod remove;
mod replace;

use clap::Subcommand;

use crate::{exit::Exit, output::Output};

/// Add, remove and replace nodes of a site
#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    Add(add::AddArgs),
    Remove(remove::RemoveArgs),
    Replace(replace::ReplaceArgs),
}

impl NodeCommand {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        match self {
            Self::Add(args) => args.run(output),
            Self::Remove(args) => args.run(output),
            Self::Replace(args) => args.run(output),
        }
    }
}
