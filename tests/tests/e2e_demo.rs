//! The demo as a newcomer runs it, and what it leaves behind: nothing.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tradewind_tests::e2e::{binary, eventually};

fn demo(dir: &Path) -> Child {
    let mut demo = Command::new(binary());
    demo.args(["demo", "--dir"]).arg(dir).stdin(Stdio::null()).stdout(Stdio::piped());
    demo.stderr(Stdio::piped()).spawn().expect("the demo starts")
}

/// The processes whose command line names `dir`.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("a path in UTF-8");
    let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let lines = processes.filter_map(|entry| {
        // A process may end while it is looked at.
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(dir) && line.contains("serve")).collect()
}

/// Waits until all nine processes are there and the first line of the story is told.
fn wait_until_up(demo: &mut Child, dir: &Path) {
    let mut lines = BufReader::new(demo.stderr.take().expect("piped")).lines();
    let line = lines.next().expect("a line").expect("text");
    assert!(line.contains("9 processes are ready"), "{line}");
    // Goes on reading, so that the demo never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    assert_eq!(processes_of(dir).len(), 9, "{:#?}", processes_of(dir));
}

fn assert_none_left(dir: &Path) {
    eventually("all processes ended", || match processes_of(dir) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:#?}")),
    });
}

#[test]
fn ctrl_c_and_kill_leave_no_process_behind() {
    for signal in [Signal::INT, Signal::KILL] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut demo = demo(dir.path());
        wait_until_up(&mut demo, dir.path());
        kill_process(Pid::from_child(&demo), signal).expect("it runs");
        let status = demo.wait().expect("it ends");
        assert!(!status.success(), "{signal:?}: {status}");
        assert_none_left(dir.path());
    }
}
