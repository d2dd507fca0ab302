//! Measures the TCP fabric on loopback: round trip, bulk, and many small messages, with TLS and plain.
//!
//! `cargo run --release -p tradewind-transport --example fabric [SECONDS]`
//!
//! Two nodes, each with its own thread, as in production. Figures are for both together: CPU is that
//! of both threads.

use std::{
    collections::BTreeMap,
    error::Error,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tradewind_topology::{Rights, Role};
use tradewind_transport::{
    Directory, Identity, Peer,
    fabric::{
        Fabric, NodeId,
        tcp::{Security, TcpFabric, TcpNode, TcpOptions, Timing},
    },
    tls::Credentials,
};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const SLOTS: u64 = 64;

/// One load: A fills slots of a ring and counts them; B answers with what it has seen.
#[derive(Clone, Copy)]
struct Load {
    slot: usize,
    /// Slots that may be on their way.
    window: u64,
    /// Slots filled in one turn at most.
    batch: u64,
}

type Pair = [TcpFabric; 2];

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(3), |seconds| seconds.parse())?;
    let time = Duration::from_secs(seconds);
    println!("{:<28} {:>12} {:>12} {:>12} {:>12}", "", "slots/s", "MB/s", "us/slot", "CPU us/slot");
    for tls in [true, false] {
        let link = if tls { "TLS" } else { "plain" };
        for (name, load) in [
            ("round trip, 8 B", Load { slot: 8, window: 1, batch: 1 }),
            ("256 B, 16 a turn", Load { slot: 256, window: 64, batch: 16 }),
            ("4 KiB, 16 a turn", Load { slot: 4 << 10, window: 64, batch: 16 }),
            ("bulk, 128 KiB", Load { slot: 128 << 10, window: 32, batch: 4 }),
        ] {
            run(pair(tls)?, load, time, &format!("{link}: {name}"));
        }
    }
    Ok(())
}

fn run([mut a, mut b]: Pair, load: Load, time: Duration, name: &str) {
    let row = 64 + SLOTS as usize * load.slot;
    for fabric in [&mut a, &mut b] {
        fabric.prepare(1, &[A, B], row).expect("a first view");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, waker) = (Arc::clone(&stop), b.waker());
    let reader = thread::spawn(move || {
        let cpu = cpu_time();
        let (mut events, mut seen) = (Vec::new(), 0);
        let mut slot = vec![0; load.slot];
        while !stopped.load(Ordering::Acquire) {
            b.poll(None, &mut events);
            events.clear();
            let count = b.load(A, 0);
            for number in seen + 1..=count {
                b.copy(A, 64 + (number % SLOTS) as usize * load.slot, &mut slot);
            }
            if count > seen {
                seen = count;
                b.store(0, &count.to_le_bytes());
                b.publish(0..8, &[A]);
            }
            b.flush();
        }
        cpu_time() - cpu
    });
    let cpu = cpu_time();
    let (mut events, mut sent) = (Vec::new(), 0_u64);
    let slot = vec![7; load.slot];
    let start = Instant::now();
    while start.elapsed() < time {
        let room = load.window - (sent - a.load(B, 0));
        for _ in 0..room.min(load.batch) {
            sent += 1;
            let offset = 64 + (sent % SLOTS) as usize * load.slot;
            a.store(offset, &slot);
            a.publish(offset..offset + load.slot, &[B]);
        }
        a.store(0, &sent.to_le_bytes());
        a.publish(0..8, &[B]);
        a.flush();
        let full = sent - a.load(B, 0) == load.window;
        a.poll(if full { Some(time) } else { Some(Duration::ZERO) }, &mut events);
        events.clear();
    }
    let (elapsed, done) = (start.elapsed().as_secs_f64(), a.load(B, 0) as f64);
    stop.store(true, Ordering::Release);
    waker.wake();
    let cpu = (cpu_time() - cpu + reader.join().expect("the reader ends")).as_secs_f64();
    println!(
        "{name:<28} {:>12.0} {:>12.1} {:>12.2} {:>12.2}",
        done / elapsed,
        done * load.slot as f64 / elapsed / 1e6,
        elapsed / done * 1e6,
        cpu / done * 1e6,
    );
}

/// Two connected nodes.
fn pair(tls: bool) -> Result<Pair, Box<dyn Error>> {
    let site = "ams".parse()?;
    let identities = [Identity::from_seed("a1", &[1; 32]), Identity::from_seed("a2", &[2; 32])];
    let peers = identities.iter().map(|identity| {
        let (name, role) = (identity.name().to_owned(), Role::Node(Clone::clone(&site)));
        (identity.public_key(), Peer { name, role, rights: Rights::Pools(BTreeMap::new()) })
    });
    let directory = Arc::new(Directory::new(peers)?);
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let addresses = [listeners[0].local_addr()?, listeners[1].local_addr()?];
    let [own_a, own_b] = listeners;
    let start = |own: NodeId, listener| -> Result<TcpFabric, Box<dyn Error>> {
        let security = match tls {
            true => {
                let identity = &identities[own.index()];
                Security::Tls(Credentials::new(identity, Arc::clone(&directory))?)
            }
            false => Security::Plain,
        };
        let nodes = identities.iter().zip(addresses);
        let options = TcpOptions {
            own,
            nodes: nodes
                .map(|(identity, address)| TcpNode {
                    name: identity.name().to_owned(),
                    address,
                    is_former: false,
                })
                .collect(),
            deployment: "atlas".to_owned(),
            site: "ams".to_owned(),
            digest: [0; 32],
            incarnation: 1,
            security,
            timing: Timing { silence: Duration::from_secs(5), ..Timing::default() },
        };
        Ok(TcpFabric::with_listener(options, listener)?)
    };
    let mut pair = [start(A, own_a)?, start(B, own_b)?];
    let mut events = Vec::new();
    while pair.iter().any(|fabric| fabric.counters().links_made == 0) {
        for fabric in &mut pair {
            fabric.poll(Some(Duration::from_millis(1)), &mut events);
        }
    }
    Ok(pair)
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
