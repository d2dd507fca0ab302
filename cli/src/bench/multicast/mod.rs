//! `tradewind bench multicast`: the ordered multicast of the core group, in memory, over each fabric.
//!
//! - `group`: real cores on real fabrics
//! - `member`: the thread of each

mod group;
mod member;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use comfy_table::CellAlignment;
use hdrhistogram::Histogram;
use serde::Serialize;
use tradewind_local::cpu_time;
use tradewind_topology::FabricKind;

use super::fractions::{Fractions, Needs, percent};
use super::limits::{self, Limits};
use super::{FabricChoice, LIMIT_TIME, duration};
use crate::output;
use member::{Load, Member, Phase, Seen, Stage};

/// A group must run after this time.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// What may be in flight of one sender.
const BYTES_IN_FLIGHT: usize = 16 << 20;
const MEMBERS_MAX: usize = 32;
const SIZE_MAX: usize = 16 << 20;

/// How the group is loaded.
#[derive(Debug, clap::Args)]
pub(crate) struct Multicast {
    /// Members, each a thread with a core and a fabric; several numbers give one line each
    #[arg(long, value_delimiter = ',', default_value = "3")]
    members: Vec<usize>,
    /// Bytes of a message
    #[arg(long, value_delimiter = ',', default_value = "100,1024,10240,1048576")]
    size: Vec<usize>,
    /// Who sends
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all,one")]
    senders: Vec<Senders>,
    /// What carries rows
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tcp,shm")]
    fabric: Vec<FabricChoice>,
    /// Where members listen: for verbs, an address of an RDMA device
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Messages of each sender in flight, as far as they have less than 16 MiB together; 1 shows the latency
    #[arg(long, default_value_t = 64)]
    inflight: usize,
    /// How long each line is measured
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How long it runs before it is measured
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Let the members' links be without TLS
    #[arg(long)]
    no_tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Senders {
    /// All members
    All,
    /// The first member
    One,
}

/// One measurement.
#[derive(Debug, Serialize)]
struct Row {
    fabric: FabricKind,
    members: usize,
    senders: Senders,
    size: usize,
    /// Messages delivered in order at their sender, of all senders, in a second.
    messages_per_second: f64,
    bytes_per_second: f64,
    latency_p50_us: f64,
    latency_p99_us: f64,
    /// All members together.
    cpu_us_per_message: f64,
    /// Operations on the fabric (`publish`), all members together.
    publishes_per_message: f64,
    /// Wake-ups by a system call of their own, all members together; over TCP every write is one.
    bells_per_message: f64,
    of_limits: Fractions,
}

/// What was measured, and where.
#[derive(Debug, Serialize)]
pub(crate) struct MulticastReport {
    cores: usize,
    build: &'static str,
    tls: bool,
    inflight: usize,
    seconds: f64,
    rows: Vec<Row>,
    limits: Limits,
}

/// Measures each combination, one after the other.
///
/// # Errors
/// When a group does not come up, or breaks while it is measured.
pub(crate) fn measure(load: &Multicast) -> anyhow::Result<MulticastReport> {
    let few = |members: &usize| (2..=MEMBERS_MAX).contains(members);
    ensure!(load.members.iter().all(few), "--members: allowed are 2 to {MEMBERS_MAX}");
    let fits = |size: &usize| (1..=SIZE_MAX).contains(size);
    ensure!(load.size.iter().all(fits), "--size: allowed are 1 to {SIZE_MAX} bytes");
    ensure!(load.inflight > 0, "--inflight: found 0, allowed is 1 or more");
    let limits = limits::measure(Path::new("."), LIMIT_TIME)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut rows = Vec::new();
    for &members in &load.members {
        for &senders in &load.senders {
            for &size in &load.size {
                for &fabric in &load.fabric {
                    let row = one(load, fabric.into(), members, senders, size, &limits, cores);
                    rows.push(row.with_context(|| {
                        format!("{members} members, {senders:?} sending {size} B over {fabric:?}")
                    })?);
                }
            }
        }
    }
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (tls, inflight, seconds) = (!load.no_tls, load.inflight, load.seconds);
    Ok(MulticastReport { cores, build, tls, inflight, seconds, rows, limits })
}

fn one(
    load: &Multicast,
    fabric: FabricKind,
    members: usize,
    senders: Senders,
    size: usize,
    limits: &Limits,
    cores: usize,
) -> anyhow::Result<Row> {
    let started = Instant::now();
    let stage = Arc::new(Stage::default());
    let mut threads = Vec::new();
    for (index, parts) in
        group::create(members, (fabric, load.address), !load.no_tls, tradewind_site::now(started))?
            .into_iter()
            .enumerate()
    {
        let window = load.inflight.min((BYTES_IN_FLIGHT / size).max(2));
        let sends = senders == Senders::All || index == 0;
        let load = Load { size, inflight: if sends { window } else { 0 } };
        let member = Member::new(parts, load, Arc::clone(&stage), started);
        let name = format!("member-{index}");
        threads.push(thread::Builder::new().name(name).spawn(move || member.run())?);
    }
    while stage.active() < members {
        let broken = threads.iter().any(thread::JoinHandle::is_finished);
        if broken || started.elapsed() > READY_LIMIT {
            stage.set(Phase::Stop);
            finish(threads)?;
            anyhow::bail!("the group did not come up within {READY_LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(duration(load.warm_up)?);
    let cpu = || cpu_time(std::process::id()).context("reading the own CPU time");
    stage.set(Phase::Measure);
    let (before, began) = (cpu()?, Instant::now());
    thread::sleep(duration(load.seconds)?);
    let (cpu, elapsed) = (cpu()? - before, began.elapsed().as_secs_f64());
    stage.set(Phase::Stop);
    let seen = finish(threads)?;

    let mut latency = Histogram::<u64>::new(3)?;
    for member in &seen {
        latency.add(&member.latency_ns)?;
    }
    let messages = latency.len() as f64;
    ensure!(
        messages > 0.0,
        "no message was delivered in {} s: choose more --seconds",
        load.seconds
    );
    let sum = |count: fn(&Seen) -> u64| seen.iter().map(count).sum::<u64>() as f64 / messages;
    let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    let per_second = messages / elapsed;
    let needs = Needs {
        client: false,
        members: Some(fabric),
        sync: false,
        bytes: size,
        copies: members - 1,
        disks: 0,
    };
    Ok(Row {
        fabric,
        members,
        senders,
        size,
        messages_per_second: per_second,
        bytes_per_second: per_second * size as f64,
        latency_p50_us: us(0.5),
        latency_p99_us: us(0.99),
        cpu_us_per_message: cpu.as_secs_f64() * 1e6 / messages,
        publishes_per_message: sum(|seen| seen.publishes),
        bells_per_message: sum(|seen| seen.bells_rung),
        of_limits: needs.of(limits, cores, per_second, us(0.5)),
    })
}

fn finish(threads: Vec<thread::JoinHandle<anyhow::Result<Seen>>>) -> anyhow::Result<Vec<Seen>> {
    let ended = threads.into_iter().map(|thread| match thread.join() {
        Ok(seen) => seen,
        Err(panic) => std::panic::resume_unwind(panic),
    });
    let (mut all, mut broken) = (Vec::new(), Vec::new());
    for (index, seen) in ended.enumerate() {
        match seen {
            Ok(seen) => all.push(seen),
            Err(error) => broken.push(format!("member {}: {error:#}", index + 1)),
        }
    }
    ensure!(broken.is_empty(), "{}", broken.join("; "));
    Ok(all)
}

impl fmt::Display for MulticastReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, build, tls, inflight, seconds, rows, limits } = self;
        let links = if *tls { "TLS" } else { "no TLS" };
        writeln!(
            f,
            "ordered multicast in memory, {inflight} in flight a sender: a thread a member, {links}, {cores} cores for \
             all of it, {build} build, {seconds} s a line\n"
        )?;
        let mut table = output::table(&[
            "members",
            "senders",
            "bytes",
            "fabric",
            "msg/s",
            "MB/s",
            "p50 us",
            "p99 us",
            "cpu us/msg",
            "publishes/msg",
            "wake-ups/msg",
            "of latency",
            "of copying",
        ]);
        for row in rows {
            table.add_row([
                row.members.to_string(),
                format!("{:?}", row.senders).to_lowercase(),
                row.size.to_string(),
                row.fabric.to_string(),
                format!("{:.0}", row.messages_per_second),
                format!("{:.1}", row.bytes_per_second / 1e6),
                format!("{:.1}", row.latency_p50_us),
                format!("{:.1}", row.latency_p99_us),
                format!("{:.2}", row.cpu_us_per_message),
                format!("{:.2}", row.publishes_per_message),
                format!("{:.2}", row.bells_per_message),
                percent(row.of_limits.latency),
                percent(row.of_limits.memory_copy),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        write!(f, "{}\n\n{limits}", table.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_threads_multicasts_over_each_fabric() {
        let load = Multicast {
            members: vec![3],
            size: vec![100, 1 << 20],
            senders: vec![Senders::All, Senders::One],
            fabric: vec![FabricChoice::Tcp, FabricChoice::Shm],
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            inflight: 8,
            seconds: 0.3,
            warm_up: 0.05,
            no_tls: false,
        };
        let report = measure(&load).unwrap();
        assert_eq!(report.rows.len(), 8);
        for row in &report.rows {
            assert!(row.messages_per_second > 0.0 && row.publishes_per_message > 0.0, "{row:?}");
            assert!(
                row.latency_p50_us > 0.0 && row.latency_p99_us >= row.latency_p50_us,
                "{row:?}"
            );
            // Members that always find something ring for nobody, over shared memory too.
            assert!(row.bells_per_message == 0.0 || row.fabric == FabricKind::Shm, "{row:?}");
            assert!(row.of_limits.latency.is_some_and(|of| of > 0.0), "{row:?}");
            assert!(row.of_limits.memory_copy.is_some_and(|of| of > 0.0), "{row:?}");
        }
    }
}
