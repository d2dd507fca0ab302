//! `tradewind bench join`: a node is away while much is written, and comes back: what clients see while it learns, and
//! when it is let in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use comfy_table::CellAlignment;
use serde::Serialize;
use tokio::task::{JoinSet, block_in_place};
use tradewind_client::Client;
use tradewind_local::Deployment;
use tradewind_topology::FabricKind;

use super::faults::{self, Steady, Whole, Window};
use super::{FabricChoice, Level, POOL, put};
use crate::output::{self, Output};
use crate::scratch::Scratch;

/// Puts that are acknowledged in the windows before and after.
const SETTLED: u64 = 2_000;
/// Puts in flight while the state is built.
const BUILDERS: u64 = 64;
/// Keys of the state begin here, behind those of the load.
const FIRST_KEY: u64 = 1_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Join {
    /// What the node lacks when it comes back, as in 10MB or 1GiB; several give one line each
    #[arg(long, value_delimiter = ',', default_value = "10MB,100MB")]
    state: Vec<Bytes>,
    /// Bytes of a value of the state
    #[arg(long, default_value_t = 16_384)]
    value: usize,
    /// Nodes to start
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Puts in flight
    #[arg(long, default_value_t = 16)]
    inflight: usize,
    /// Bytes of a value of these
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// What carries the nodes' rows
    #[arg(long, value_enum, default_value_t = FabricChoice::Auto)]
    fabric: FabricChoice,
    /// Where the nodes' data lie during the run
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A number of bytes with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct Bytes(u64);

impl FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit {
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => bail!(
                "found {text:?}, allowed is a number with kB, MB, GB, KiB, MiB or GiB, as in 10MB"
            ),
        };
        let number: Option<u64> = number.parse().ok();
        let bytes = number.and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes > 0);
        bytes
            .map(Self)
            .with_context(|| format!("found {text:?}, allowed is a number from 1, as in 10MB"))
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    nodes: usize,
    cores: usize,
    build: &'static str,
    fabric: FabricKind,
    inflight: usize,
    value_bytes: usize,
    load_average_before: Option<f64>,
    rows: Vec<Row>,
}

/// One size.
#[derive(Debug, Serialize)]
struct Row {
    state_bytes: u64,
    /// How long it took to write that, at the nodes that were there.
    build_s: f64,
    /// From the start of the process until it is in a view.
    return_s: f64,
    /// Of the change of views that let it in, at all nodes.
    change_ms: f64,
    /// The load while the node is away, from its start until it is let in, and after that.
    away: Phase,
    learning: Phase,
    after: Phase,
}

/// The load in some time. Milliseconds.
#[derive(Debug, Serialize)]
struct Phase {
    p50_ms: f64,
    p99_ms: f64,
    slowest_ms: f64,
    /// The longest time in which no client got an acknowledgement; that of `learning` has the change in it.
    gap_ms: f64,
    errors: u64,
}

impl From<Window> for Phase {
    fn from(window: Window) -> Self {
        Self {
            p50_ms: window.quantile_ms(0.5),
            p99_ms: window.quantile_ms(0.99),
            slowest_ms: window.slowest_ms(),
            gap_ms: window.gap.as_secs_f64() * 1e3,
            errors: window.errors,
        }
    }
}

pub(super) async fn measure(join: &Join, output: &Output) -> anyhow::Result<Report> {
    ensure!(join.value > 0, "--value: found 0, allowed is 1 or more");
    let fabric = join.fabric.into();
    let load_average_before = faults::load_average();
    let mut rows = Vec::new();
    for state in &join.state {
        // Each size from nothing: else the second would find what the first wrote.
        let home = Scratch::new("bench-join", join.dir.as_deref())?;
        let dir = home.path().join(state.0.to_string());
        let mut own = faults::start(&dir, join.nodes, fabric, 500)?;
        let row = once(join, &mut own, *state, output).await;
        rows.push(row.with_context(|| format!("with {} bytes", state.0))?);
        own.stop_all()?;
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    Ok(Report {
        nodes: join.nodes,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
        fabric,
        inflight: join.inflight,
        value_bytes: join.size,
        load_average_before,
        rows,
    })
}

async fn once(
    join: &Join,
    own: &mut Deployment,
    state: Bytes,
    output: &Output,
) -> anyhow::Result<Row> {
    let names = own.plan().process_names();
    let (late, others) = names.split_last().context("there are nodes")?;
    faults::in_one_view(own, &names).await?;
    own.stop(late)?;
    faults::in_one_view(own, others).await?;
    output.note(&format!("writing {} bytes", state.0));
    let begun = Instant::now();
    build(own, others, state, join.value).await?;
    let build_s = begun.elapsed().as_secs_f64();

    let steady = Steady::start(own, join.inflight, join.size).await?;
    steady.flows(SETTLED).await?;
    steady.look();
    steady.flows(SETTLED).await?;
    let away = steady.look();
    let begun = Instant::now();
    own.start(late)?;
    output.note(&format!("{late} is back"));
    let told = faults::in_one_view(own, &names).await;
    let return_s = begun.elapsed().as_secs_f64();
    let told = told?;
    let learning = steady.look();
    steady.flows(SETTLED).await?;
    let after = steady.look();
    steady.stop().await;
    let change = Whole::of(&told[..others.len()])?;
    Ok(Row {
        state_bytes: state.0,
        build_s,
        return_s,
        change_ms: change.took_ms,
        away: away.into(),
        learning: learning.into(),
        after: after.into(),
    })
}

/// Writes values of `size` bytes under keys of their own until there are so many bytes.
async fn build(
    own: &Deployment,
    nodes: &[String],
    Bytes(bytes): Bytes,
    size: usize,
) -> anyhow::Result<()> {
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let client: Client = own.client(&names).await?;
    let values = bytes.div_ceil(size as u64);
    let mut workers = JoinSet::new();
    for worker in 0..BUILDERS {
        let client = client.clone();
        workers.spawn(async move {
            for number in (worker..values).step_by(BUILDERS as usize) {
                put(&client, POOL, FIRST_KEY + number, size, Level::Disk).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    block_in_place(|| faults::statuses(own, nodes)).map(drop)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} nodes ({}), {} puts of {} B in flight, {} cores for all of it, {} build, load average {}\n\
             milliseconds; \"no answer\" and \"p99\" from the start of the process until it is in a view, that change in them\n",
            self.nodes,
            self.fabric,
            self.inflight,
            self.value_bytes,
            self.cores,
            self.build,
            self.load_average_before.map_or("unknown".into(), |load| load.to_string()),
        )?;
        let head = [
            "lacks MB",
            "written in s",
            "back after s",
            "change",
            "no answer",
            "p99",
            "before: p99",
            "after: p99",
            "errors",
        ];
        let mut table = output::table(&head);
        for row in &self.rows {
            table.add_row([
                format!("{:.0}", row.state_bytes as f64 / 1e6),
                format!("{:.1}", row.build_s),
                format!("{:.1}", row.return_s),
                format!("{:.1}", row.change_ms),
                format!("{:.1}", row.learning.gap_ms),
                format!("{:.1}", row.learning.p99_ms),
                format!("{:.1}", row.away.p99_ms),
                format!("{:.1}", row.after.p99_ms),
                (row.away.errors + row.learning.errors + row.after.errors).to_string(),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}", table.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!("10MB".parse::<Bytes>().unwrap(), Bytes(10_000_000));
        assert_eq!("1GiB".parse::<Bytes>().unwrap(), Bytes(1 << 30));
        for wrong in ["", "10", "0MB", "MB", "-1MB", "10mb", "99999999999999GB"] {
            let words = wrong.parse::<Bytes>().unwrap_err().to_string();
            assert!(words.contains("10MB"), "{words}");
        }
    }
}
