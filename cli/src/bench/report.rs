//! What a benchmark tells: the setting, a line for each number in flight, the machine's limits.

use std::fmt;

use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use tradewind_topology::FabricKind;

use crate::output;

use super::fractions::{Line, percent};
use super::limits::Limits;

/// Everything about one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) setting: Option<Setting>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rows: Vec<Line>,
    pub(crate) limits: Limits,
}

/// Without this a figure says nothing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) operation: String,
    /// Shared by all nodes and the client.
    pub(crate) cores: usize,
    pub(crate) build: &'static str,
    pub(crate) nodes: usize,
    pub(crate) shards: usize,
    pub(crate) replicas: usize,
    /// Unknown for nodes that somebody else runs, as is the next.
    pub(crate) fabric: Option<FabricKind>,
    pub(crate) fabric_tls: Option<bool>,
    pub(crate) client_tls: bool,
    /// Durability of puts, freshness of gets.
    pub(crate) level: String,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u64,
    pub(crate) clients: usize,
    pub(crate) seconds: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(setting) = &self.setting {
            writeln!(f, "{setting}\n\n{}", table(&self.rows).trim_fmt())?;
            for Line { row, .. } in &self.rows {
                if let Some(error) = &row.first_error {
                    writeln!(
                        f,
                        "{} in flight: {} errors, the first: {error}",
                        row.inflight, row.errors
                    )?;
                }
            }
        }
        write!(f, "{}", self.limits)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits {
            fdatasync_per_second,
            fdatasync_p50_us,
            disk_stream_bytes_per_second,
            tcp_round_trip_p50_us,
            tcp_stream_bytes_per_second,
            memory_round_trip_us,
            memory_copy_bytes_per_second,
        } = self;
        let between_cores = match memory_round_trip_us {
            Some(us) => format!("{us:.2} us"),
            None => "not on one core".into(),
        };
        writeln!(
            f,
            "the machine: 4 KiB append + fdatasync {fdatasync_per_second:.0}/s (p50 {fdatasync_p50_us:.0} us), long \
             appends {:.1} GB/s, loopback TCP round trip p50 {tcp_round_trip_p50_us:.0} us, stream {:.1} GB/s, \
             shared memory round trip of two cores {between_cores}, memory copy {:.1} GB/s",
            disk_stream_bytes_per_second / 1e9,
            tcp_stream_bytes_per_second / 1e9,
            memory_copy_bytes_per_second / 1e9
        )
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |tls: bool| if tls { "TLS" } else { "no TLS" };
        write!(
            f,
            "{} of {} B, {} keys, {}: {} nodes, {} shards, {} replicas, {} ({}), {} clients ({}), \
             {} cores for all of it, {} build, {} s a line",
            self.operation,
            self.value_bytes,
            self.keys,
            self.level,
            self.nodes,
            self.shards,
            self.replicas,
            self.fabric.map_or("the fabric of their topology".to_owned(), |kind| kind.to_string()),
            self.fabric_tls.map_or("TLS as it says", with),
            self.clients,
            with(self.client_tls),
            self.cores,
            self.build,
            self.seconds
        )
    }
}

fn table(lines: &[Line]) -> Table {
    let cpu = ["cpu us/op: client", "servers", "all"];
    let head = ["in flight", "ops/s", "p50 us", "p99 us", "max us"].into_iter();
    let limits = ["of latency", "ops/sync", "of TCP stream", "of copying", "of disk"];
    let mut table = output::table(&head.chain(cpu).chain(limits).collect::<Vec<_>>());
    for Line { row, of_limits } in lines {
        let cpu = row.cpu_us_per_operation;
        let some = |figure: Option<f64>| figure.map_or_else(|| "-".into(), |it| format!("{it:.1}"));
        table.add_row([
            row.inflight.to_string(),
            format!("{:.0}", row.per_second),
            row.latency_us.p50.to_string(),
            row.latency_us.p99.to_string(),
            row.latency_us.max.to_string(),
            format!("{:.1}", cpu.client),
            some(cpu.servers),
            some(cpu.total),
            percent(of_limits.latency),
            some(of_limits.operations_per_sync),
            percent(of_limits.tcp_stream),
            percent(of_limits.memory_copy),
            percent(of_limits.disk_stream),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
