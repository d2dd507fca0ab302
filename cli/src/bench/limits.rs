//! What the machine itself can do, measured in the same run as the product: a figure means little without them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

/// Bytes of one append, and of one round trip's message.
const BLOCK: usize = 4_096;
/// The file is written in place from its start again when it has this length.
const FILE: u64 = 64 << 20;
/// More than any cache holds.
const COPY: usize = 64 << 20;

/// The machine's limits; medians where there are many samples.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Limits {
    /// 4 KiB written to a preallocated file, then `fdatasync`: how often in a second, one file.
    pub(crate) fdatasync_per_second: f64,
    /// Median time of one such append, in microseconds.
    pub(crate) fdatasync_p50_us: f64,
    /// Bytes a second written to one file in long appends, the `fdatasync` that makes them durable included.
    pub(crate) disk_stream_bytes_per_second: f64,
    /// Median round trip of one byte over loopback TCP between two blocked threads, in microseconds.
    pub(crate) tcp_round_trip_p50_us: f64,
    /// Bytes a second through one loopback TCP connection.
    pub(crate) tcp_stream_bytes_per_second: f64,
    /// Round trip of a word between two cores that both watch it, in microseconds; none on one core.
    pub(crate) memory_round_trip_us: Option<f64>,
    /// One core copying memory that no cache holds, in bytes a second.
    pub(crate) memory_copy_bytes_per_second: f64,
}

/// Measures for about `each` a limit. Files are made in `dir`, where the data of the run lie too, and removed.
///
/// # Errors
/// When `dir` cannot be written or the loopback interface is missing.
pub(crate) fn measure(dir: &Path, each: Duration) -> anyhow::Result<Limits> {
    let mut syncs = append_and_sync(dir, each).with_context(|| format!("in {}", dir.display()))?;
    let mut trips = round_trips(each).context("over loopback TCP")?;
    let total: Duration = syncs.iter().sum();
    Ok(Limits {
        fdatasync_per_second: syncs.len() as f64 / total.as_secs_f64(),
        fdatasync_p50_us: median_us(&mut syncs),
        disk_stream_bytes_per_second: disk_stream(dir, each)
            .with_context(|| format!("in {}", dir.display()))?,
        tcp_round_trip_p50_us: median_us(&mut trips),
        tcp_stream_bytes_per_second: tcp_stream(each).context("over loopback TCP")?,
        memory_round_trip_us: memory_round_trip(each),
        memory_copy_bytes_per_second: memory_copy(each),
    })
}

fn append_and_sync(dir: &Path, each: Duration) -> std::io::Result<Vec<Duration>> {
    let file = nameless(dir)?;
    // Written once over, so that the measured writes change no metadata.
    let zeros = vec![0; 1 << 20];
    for at in (0..FILE).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    let block = [0x5a; BLOCK];
    samples(each, |index| {
        file.write_all_at(&block, index * BLOCK as u64 % FILE)?;
        file.sync_data()
    })
}

/// A file that goes away with the process, whatever happens.
fn nameless(dir: &Path) -> std::io::Result<File> {
    let path = dir.join(format!("limits.{}", std::process::id()));
    let file = File::options().create_new(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn disk_stream(dir: &Path, each: Duration) -> std::io::Result<f64> {
    const PIECE: usize = 1 << 20;
    /// So much is written before it is synced: the disk is busy, and memory does not fill.
    const SYNCED: u64 = 64 << 20;
    let file = nameless(dir)?;
    let piece = vec![0x5a; PIECE];
    let (start, mut written) = (Instant::now(), 0);
    while start.elapsed() < each || written == 0 {
        for _ in 0..SYNCED / PIECE as u64 {
            file.write_all_at(&piece, written)?;
            written += PIECE as u64;
        }
        file.sync_data()?;
    }
    Ok(written as f64 / start.elapsed().as_secs_f64())
}

fn round_trips(each: Duration) -> std::io::Result<Vec<Duration>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let mut byte = [0];
        while far.read(&mut byte)? > 0 {
            far.write_all(&byte)?;
        }
        Ok(())
    });
    let mut byte = [1];
    let times = samples(each, |_| {
        near.write_all(&byte)?;
        near.read_exact(&mut byte)
    })?;
    drop(near);
    echo.join().expect("the echo does not panic")?;
    Ok(times)
}

fn tcp_stream(each: Duration) -> std::io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    let sink = std::thread::spawn(move || -> std::io::Result<u64> {
        let (mut buffer, mut total) = (vec![0; 256 << 10], 0);
        loop {
            match far.read(&mut buffer)? {
                0 => return Ok(total),
                read => total += read as u64,
            }
        }
    });
    let buffer = vec![1; 256 << 10];
    let start = Instant::now();
    while start.elapsed() < each {
        near.write_all(&buffer)?;
    }
    drop(near);
    let total = sink.join().expect("the sink does not panic")?;
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

/// Both threads watch without a pause, each on a core of its own: the only place that does.
fn memory_round_trip(each: Duration) -> Option<f64> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return None;
    }
    const TRIPS: u64 = 1_000;
    const END: u64 = u64::MAX;
    let (ping, pong) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut samples = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = 0;
            while last != END {
                let next = ping.load(Ordering::Acquire);
                if next == last {
                    std::hint::spin_loop();
                    continue;
                }
                last = next;
                pong.store(next, Ordering::Release);
            }
        });
        let mut number = 0;
        let samples = samples(each, |_| {
            for _ in 0..TRIPS {
                number += 1;
                ping.store(number, Ordering::Release);
                while pong.load(Ordering::Acquire) != number {
                    std::hint::spin_loop();
                }
            }
            Ok(())
        });
        ping.store(END, Ordering::Release);
        samples.expect("nothing here fails")
    });
    Some(median_us(&mut samples) / TRIPS as f64)
}

fn memory_copy(each: Duration) -> f64 {
    let source = vec![1_u8; COPY];
    let mut target = vec![0_u8; COPY];
    // The first copy maps the pages.
    target.copy_from_slice(&source);
    let start = Instant::now();
    let mut copied = 0_u64;
    while start.elapsed() < each {
        target.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&mut target);
        copied += COPY as u64;
    }
    copied as f64 / start.elapsed().as_secs_f64()
}

/// How long each call took, for calls made one after the other for the time `each`.
fn samples(
    each: Duration,
    mut call: impl FnMut(u64) -> std::io::Result<()>,
) -> std::io::Result<Vec<Duration>> {
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < each || times.is_empty() {
        let before = Instant::now();
        call(times.len() as u64)?;
        times.push(before.elapsed());
    }
    Ok(times)
}

fn median_us(times: &mut [Duration]) -> f64 {
    let middle = times.len() / 2;
    times.select_nth_unstable(middle).1.as_nanos() as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_measured_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let limits = measure(dir.path(), Duration::from_millis(20)).unwrap();
        assert!(limits.fdatasync_per_second > 0.0 && limits.fdatasync_p50_us > 0.0, "{limits:?}");
        assert!(limits.disk_stream_bytes_per_second > 0.0, "{limits:?}");
        assert!(limits.tcp_round_trip_p50_us > 0.0, "{limits:?}");
        assert!(limits.tcp_stream_bytes_per_second > 0.0, "{limits:?}");
        assert!(limits.memory_round_trip_us.is_none_or(|us| us > 0.0), "{limits:?}");
        assert!(limits.memory_copy_bytes_per_second > 0.0, "{limits:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
