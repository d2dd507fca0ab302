//! `tradewind bench view`: a node is killed, or stopped, under a load of puts, again and again.

use std::fmt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use clap::ValueEnum;
use comfy_table::CellAlignment;
use rustix::process::Signal;
use serde::Serialize;
use tokio::task::block_in_place;
use tradewind_local::Deployment;
use tradewind_topology::FabricKind;

use super::FabricChoice;
use super::faults::{self, Spread, Steady, Whole};
use crate::output::{self, Output};
use crate::scratch::Scratch;

/// Puts that are acknowledged after a change before the next thing is done.
const SETTLED: u64 = 200;

#[derive(Debug, clap::Args)]
pub(crate) struct View {
    /// Nodes to start
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// What happens to a node; several give one line each
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill,stop")]
    fault: Vec<Fault>,
    /// How often, each time to another node in turn
    #[arg(long, default_value_t = 10)]
    times: usize,
    /// A node without signs of life for so long is suspected
    #[arg(long, default_value_t = 500)]
    suspect_ms: u32,
    /// Puts in flight
    #[arg(long, default_value_t = 16)]
    inflight: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// What carries the nodes' rows
    #[arg(long, value_enum, default_value_t = FabricChoice::Auto)]
    fabric: FabricChoice,
    /// Where the nodes' data lie during the run
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Fault {
    /// kill -9: the kernel tells the others
    Kill,
    /// SIGSTOP: only its silence tells them
    Stop,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    nodes: usize,
    cores: usize,
    build: &'static str,
    fabric: FabricKind,
    suspect_ms: u32,
    inflight: usize,
    value_bytes: usize,
    load_average_before: Option<f64>,
    rows: Vec<Row>,
}

/// One kind of fault. Milliseconds.
#[derive(Debug, Serialize)]
struct Row {
    fault: Fault,
    times: usize,
    /// From the fault until the first of the others stops the view.
    detection_ms: Spread,
    /// From then until the last of them has installed the next.
    change_ms: Spread,
    /// The longest time in which no client got an acknowledgement.
    gap_ms: Spread,
    /// The slowest put.
    slowest_put_ms: Spread,
    /// From the end of the view to let it in again until the next one, at all nodes.
    return_ms: Spread,
    /// How often the others went through more than one view; then the last change counts.
    several: usize,
    /// Puts that failed.
    errors: u64,
    first_error: Option<String>,
}

/// One time.
struct Seen {
    several: bool,
    detection: f64,
    change: f64,
    gap: f64,
    slowest: f64,
    back: f64,
    errors: u64,
    first_error: Option<String>,
}

pub(super) async fn measure(view: &View, output: &Output) -> anyhow::Result<Report> {
    ensure!(view.times > 0, "--times: found 0, allowed is 1 or more");
    let home = Scratch::new("bench-view", view.dir.as_deref())?;
    let load_average_before = faults::load_average();
    let fabric = view.fabric.into();
    let mut own = faults::start(home.path(), view.nodes, fabric, view.suspect_ms)?;
    let names = own.plan().process_names();
    let steady = Steady::start(&own, view.inflight, view.size).await?;
    let mut rows = Vec::new();
    for &fault in &view.fault {
        let mut all = Vec::new();
        for time in 0..view.times {
            let victim = &names[time % names.len()];
            output.note(&format!("{} of {}: {fault:?} {victim}", time + 1, view.times));
            all.push(once(&mut own, &steady, fault, victim, &names).await?);
        }
        rows.push(Row::of(fault, all));
    }
    steady.stop().await;
    own.stop_all()?;
    Ok(Report {
        nodes: view.nodes,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
        fabric,
        suspect_ms: view.suspect_ms,
        inflight: view.inflight,
        value_bytes: view.size,
        load_average_before,
        rows,
    })
}

async fn once(
    own: &mut Deployment,
    steady: &Steady,
    fault: Fault,
    victim: &str,
    names: &[String],
) -> anyhow::Result<Seen> {
    faults::in_one_view(own, names).await?;
    steady.look();
    steady.flows(SETTLED).await?;
    let others: Vec<String> = names.iter().filter(|name| *name != victim).cloned().collect();
    let before = block_in_place(|| faults::statuses(own, &others))?;
    steady.look();
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?;
    match fault {
        Fault::Kill => own.kill(victim)?,
        Fault::Stop => own.signal(victim, Signal::STOP)?,
    }
    let told = faults::in_one_view(own, &others).await?;
    steady.flows(SETTLED).await?;
    let seen = steady.look();
    let changes = faults::changes(&told) - faults::changes(&before);
    let whole = Whole::of(&told)?;
    match fault {
        Fault::Kill => own.start(victim)?,
        Fault::Stop => own.signal(victim, Signal::CONT)?,
    }
    faults::in_one_view(own, names).await?;
    let told = block_in_place(|| faults::statuses(own, &others))?;
    Ok(Seen {
        several: changes > others.len() as u64,
        detection: (whole.stopped_unix_us as f64 - at.as_micros() as f64) / 1e3,
        change: whole.took_ms,
        gap: seen.gap.as_secs_f64() * 1e3,
        slowest: seen.slowest_ms(),
        back: Whole::of(&told)?.took_ms,
        errors: seen.errors,
        first_error: seen.first_error,
    })
}

impl Row {
    fn of(fault: Fault, all: Vec<Seen>) -> Self {
        let spread = |of: fn(&Seen) -> f64| Spread::of(all.iter().map(of).collect());
        Self {
            fault,
            times: all.len(),
            detection_ms: spread(|seen| seen.detection),
            change_ms: spread(|seen| seen.change),
            gap_ms: spread(|seen| seen.gap),
            slowest_put_ms: spread(|seen| seen.slowest),
            return_ms: spread(|seen| seen.back),
            several: all.iter().filter(|seen| seen.several).count(),
            errors: all.iter().map(|seen| seen.errors).sum(),
            first_error: all.into_iter().find_map(|seen| seen.first_error),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} nodes ({}), {} puts of {} B in flight, suspected after {} ms, {} cores for all of it, {} build, load average {}\n\
             milliseconds, median / longest\n",
            self.nodes,
            self.fabric,
            self.inflight,
            self.value_bytes,
            self.suspect_ms,
            self.cores,
            self.build,
            self.load_average_before.map_or("unknown".into(), |load| load.to_string()),
        )?;
        let head = [
            "fault",
            "times",
            "detection",
            "change",
            "no answer",
            "slowest put",
            "return",
            "errors",
        ];
        let mut table = output::table(&head);
        let both = |Spread { p50, max }: Spread| format!("{p50:.1} / {max:.1}");
        for row in &self.rows {
            table.add_row([
                format!("{:?}", row.fault).to_lowercase(),
                row.times.to_string(),
                both(row.detection_ms),
                both(row.change_ms),
                both(row.gap_ms),
                both(row.slowest_put_ms),
                both(row.return_ms),
                row.errors.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}", table.trim_fmt())?;
        for row in &self.rows {
            if let Some(error) = &row.first_error {
                writeln!(f, "{:?}: the first error: {error}", row.fault)?;
            }
        }
        Ok(())
    }
}
