//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::{
    audit::AuditCommand,
    bench::BenchArgs,
    completion::CompletionArgs,
    demo::DemoArgs,
    exit::Exit,
    export::ExportArgs,
    get::GetArgs,
    import::ImportArgs,
    keys::KeysCommand,
    lease::LeaseCommand,
    list::{HistoryArgs, ListArgs},
    node::NodeCommand,
    output::{Format, Output},
    repair::RepairArgs,
    roll::RollArgs,
    scenario::ScenarioCommand,
    serve::ServeArgs,
    status::StatusArgs,
    topology::TopologyCommand,
    txn::TxnArgs,
    write::{CasArgs, DeleteArgs, PutArgs},
};

/// A multi-site object store: consistent inside each site, mirrored everywhere, provable to anybody
#[derive(Parser, Debug)]
#[command(
    name = "tradewind",
    version,
    after_help = "\
Exit codes:
  0  done, or it holds
  1  no: condition not met, no such key, file with faults, ledger that does not verify
  2  not done: bad arguments, servers unreachable or refusing, files unreadable
  3  audit: two signed histories of one ledger; the evidence is written down
  4  audit: valid as far as it goes, but too few signatures, or too old
  5  whether a write was executed is not known: read the key to find out
  6  serve --no-restart: to be started again

Environment:
  TRADEWIND_TOPOLOGY, TRADEWIND_AS, TRADEWIND_ENDPOINTS, TRADEWIND_CONTEXT
            defaults of the flags of their names
  NO_COLOR  no colours

Begin with `tradewind demo`, or with `tradewind topology init`."
)]
pub(crate) struct Cli {
    /// Tables and sentences, or one JSON document
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(DemoArgs),
    Serve(ServeArgs),
    Bench(BenchArgs),
    Put(PutArgs),
    Get(GetArgs),
    Delete(DeleteArgs),
    Cas(CasArgs),
    Txn(TxnArgs),
    #[command(subcommand)]
    Lease(LeaseCommand),
    List(ListArgs),
    History(HistoryArgs),
    Import(ImportArgs),
    Export(ExportArgs),
    Status(StatusArgs),
    Roll(RollArgs),
    Repair(RepairArgs),
    #[command(subcommand)]
    Node(NodeCommand),
    #[command(subcommand)]
    Audit(AuditCommand),
    #[command(subcommand)]
    Topology(TopologyCommand),
    #[command(subcommand)]
    Keys(KeysCommand),
    #[command(subcommand)]
    Scenario(ScenarioCommand),
    Completion(CompletionArgs),
}

impl Cli {
    pub(crate) fn output(&self) -> Output {
        Output::new(self.output)
    }

    /// Runs the subcommand.
    ///
    /// # Errors
    /// What kept it from being done, with advice.
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Exit> {
        match self.command {
            Command::Demo(args) => args.run(output),
            Command::Serve(args) => args.run(output),
            Command::Bench(args) => args.run(output),
            Command::Put(args) => args.run(output),
            Command::Get(args) => args.run(output),
            Command::Delete(args) => args.run(output),
            Command::Cas(args) => args.run(output),
            Command::Txn(args) => args.run(output),
            Command::Lease(command) => command.run(output),
            Command::List(args) => args.run(output),
            Command::History(args) => args.run(output),
            Command::Import(args) => args.run(output),
            Command::Export(args) => args.run(output),
            Command::Status(args) => args.run(output),
            Command::Roll(args) => args.run(output),
            Command::Node(command) => command.run(output),
            Command::Repair(args) => args.run(output),
            Command::Audit(command) => command.run(output),
            Command::Topology(command) => command.run(output),
            Command::Keys(command) => command.run(output),
            Command::Scenario(command) => command.run(output),
            Command::Completion(args) => args.run(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }
}
