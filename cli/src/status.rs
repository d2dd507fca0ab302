//! `tradewind status`: what every process of a deployment says about itself.

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tradewind_topology::{Process, ProcessName};

use crate::{
    connect::{ConnectArgs, Connector, block_on},
    exit::{Exit, words},
    output::{Output, table},
};

/// Show the state of all processes: views, versions, lag
#[derive(Args, Debug)]
#[command(after_help = "\
Asks every process of the topology, or those of --endpoints. Exit code 1 if one does not answer or is not ready.

Examples:
  tradewind status
  tradewind status --timeout 1 -o json | jq '.processes[] | select(.ready | not).name'")]
pub(crate) struct StatusArgs {
    /// A line for each ledger of each process
    #[arg(long)]
    ledgers: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl StatusArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let connector = std::sync::Arc::new(self.connect.connector()?);
        let names = connector.named_or_all()?;
        let processes = block_on(async {
            let mut asked = JoinSet::new();
            for (index, name) in names.into_iter().enumerate() {
                let connector = std::sync::Arc::clone(&connector);
                asked.spawn(async move { (index, ask(&connector, &name).await) });
            }
            let mut processes = asked.join_all().await;
            processes.sort_by_key(|(index, _)| *index);
            Ok(processes.into_iter().map(|(_, status)| status).collect::<Vec<_>>())
        })?;
        let is_ready = |status: &Value| status["ready"] == true;
        let exit = if processes.iter().all(is_ready) { Exit::Done } else { Exit::No };
        let value = json!({
            "deployment": connector.topology().name,
            "ready": exit == Exit::Done,
            "processes": processes,
        });
        output.print(&value, |_| {
            if self.ledgers { ledgers(&processes) } else { overview(&processes) }
        })?;
        Ok(exit)
    }
}

/// The status of one process; if it does not answer, an object that says so.
async fn ask(connector: &Connector, name: &ProcessName) -> Value {
    let process = connector.topology().process(name.as_str()).expect("a name of the topology");
    let answer = async {
        let client = connector.client_of(&process).await?;
        let status: Value = serde_json::from_str(&client.status().await?)?;
        anyhow::Ok(status)
    };
    answer.await.unwrap_or_else(|error| {
        let role = match process {
            Process::Node { .. } => "node",
            Process::Mirror(_) => "mirror",
        };
        json!({ "name": name, "role": role, "ready": false, "fault": words(&error) })
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What carries rows to the peers of a node, the most usual first: "shm", or "shm 2, tcp 1".
fn fabric(status: &Value) -> String {
    let mut paths: Vec<(String, usize)> = Vec::new();
    for peer in array(&status["peers"]) {
        let rows = text(&peer["rows"]);
        match paths.iter_mut().find(|(kind, _)| *kind == rows) {
            Some((_, count)) => *count += 1,
            None => paths.push((rows, 1)),
        }
    }
    paths.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    match &paths[..] {
        [(kind, _)] => kind.clone(),
        several => {
            let several = several.iter().map(|(kind, count)| format!("{kind} {count}"));
            several.collect::<Vec<_>>().join(", ")
        }
    }
}

fn overview(processes: &[Value]) -> String {
    let mut table = table(&[
        "name", "role", "ready", "view", "fabric", "fed by", "ledgers", "keys", "lag", "fault",
    ]);
    for status in processes {
        let ledgers = array(&status["ledgers"]);
        let keys: u64 = ledgers.iter().filter_map(|ledger| ledger["keys"].as_u64()).sum();
        let parents: Vec<String> =
            array(&status["routes"]).iter().map(|route| text(&route["parent"])).collect();
        let role = match &status["site"] {
            Value::String(site) => format!("node of {site}"),
            _ => text(&status["role"]),
        };
        let answered = status.get("deployment").is_some();
        table.add_row([
            text(&status["name"]),
            role,
            if status["ready"] == true { "yes" } else { "NO" }.to_owned(),
            text(&status["view"]),
            fabric(&status["fabric"]),
            parents.join(", "),
            if answered { ledgers.len().to_string() } else { String::new() },
            if answered { keys.to_string() } else { String::new() },
            status["lag_ms"].as_u64().map_or(String::new(), |ms| format!("{ms} ms")),
            text(&status["fault"]),
        ]);
    }
    table.trim_fmt()
}

fn ledgers(processes: &[Value]) -> String {
    let mut table = table(&["name", "ledger", "readable", "keys", "bytes", "age"]);
    for status in processes {
        for ledger in array(&status["ledgers"]) {
            table.add_row([
                text(&status["name"]),
                text(&ledger["ledger"]),
                text(&ledger["readable"]),
                text(&ledger["keys"]),
                text(&ledger["bytes"]),
                ledger["age_ms"].as_u64().map_or(String::new(), |ms| format!("{ms} ms")),
            ]);
        }
    }
    table.trim_fmt()
}
