//! Measures how fast a mirror catches up over loopback QUIC, all verified, durable and applied:
//! `cargo run --release -p tradewind-mirror --example catch_up -- ENTRIES VALUE_BYTES HOPS`.

#[path = "../tests/tree/deployment.rs"]
#[expect(dead_code, reason = "shared with the tests, which need more of it")]
mod deployment;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use deployment::{Deployment, Site, shows, stop};

fn argument(at: usize, default: usize) -> usize {
    std::env::args().nth(at).map_or(default, |text| text.parse().expect("a number"))
}

fn bytes_below(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).expect("a directory").flatten();
    files.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum()
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let after = stat.rsplit_once(')').expect("a command").1;
    let ticks = |at: usize| after.split_whitespace().nth(at).map_or(0, |n| n.parse().unwrap_or(0));
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let (entries, value, hops) = (argument(1, 400_000), argument(2, 256), argument(3, 1));
    let all: [(&str, &[&str], &[&str]); 3] = [
        ("relay", &["ams"], &["settings"]),
        ("leaf", &["relay"], &["settings"]),
        ("leaf-2", &["leaf"], &["settings"]),
    ];
    let tree = &all[..hops];
    let deployment = Deployment::new(tree);
    let mut site = Site::open(&deployment, "site");
    let ledger = site.ledger("settings.0");
    ledger.seals = Default::default();
    let value = vec![b'v'; value];
    for index in 0..entries {
        ledger.put(&format!("key-{:08}", index % 100_000), &value);
        if index % 16_384 == 0 {
            ledger.flush();
        }
    }
    ledger.sign();
    let size = site.sizes()["settings.0"];
    let bytes = bytes_below(&deployment.data("site").join("ledgers/settings.0/segments"));
    site.serve(&deployment, &["a1", "a2", "a3"]);
    let (before, cpu_before) = (Instant::now(), cpu());
    let mut mirrors = Vec::new();
    for (name, ..) in tree {
        mirrors.push(deployment.mirror(name).await);
    }
    for mirror in &mirrors {
        shows(mirror, "settings.0", size).await;
        let (wall, cpu) = (before.elapsed().as_secs_f64(), (cpu() - cpu_before).as_secs_f64());
        println!(
            "{}: {size} entries, {:.0} MB in {wall:.2} s: {:.0} MB/s, {:.0} entries/s, {:.2} us CPU \
             an entry (all of this process)",
            mirror.name(),
            bytes as f64 / 1e6,
            bytes as f64 / 1e6 / wall,
            size.0 as f64 / wall,
            cpu * 1e6 / size.0 as f64,
        );
    }
    for mirror in mirrors {
        stop(&deployment, mirror).await;
    }
    site.stop().await;
}
