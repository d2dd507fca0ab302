//! The scenario runner itself: what it says when something differs or is missing, and that it leaves nothing behind.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tradewind_tests::e2e::{binary, eventually};

fn scenario(file: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(["scenario", "run"]).arg(file).stdin(Stdio::null()).env_remove("BLESS");
    command
}

fn told(output: &Output) -> String {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn what_differs_is_shown_and_blessed_on_request_and_nonsense_is_told_with_its_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("mine.txt");
    fs::write(&file, "# Mine.\n> site ams with 1 node\n> start all\nnot ready: [..]\n> put k v\n")
        .expect("written");

    let output = scenario(&file).output().expect("it runs");
    let said = told(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("mine.txt:3") && said.contains("> start all"), "{said}");
    assert!(said.contains("- not ready: [..]") && said.contains("+ ready: ams-1"), "{said}");

    let output = scenario(&file).arg("--bless").output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let blessed = "# Mine.\n> site ams with 1 node\n> start all\nready: ams-1\n> put k v\nwritten: change 1 of k\n";
    assert_eq!(fs::read_to_string(&file).expect("a file"), blessed);
    assert_eq!(scenario(&file).status().expect("it runs").code(), Some(0));

    fs::write(&file, "> site ams with 3 nodes\n> kil ams-1\n> kill ams-4\n").expect("written");
    let output = scenario(&file).output().expect("it runs");
    let said = told(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("line 2: found `kil`; allowed: ") && said.contains("`kill`"), "{said}");
    assert!(
        said.contains("line 3: found `ams-4`; allowed: a process: ams-1, ams-2, ams-3"),
        "{said}"
    );
}

#[test]
fn missing_tools_are_told_with_their_packages() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("cut.txt");
    fs::write(&file, "> site ams with 3 nodes\n> cut ams-1 -- ams-2\n").expect("written");
    let output = scenario(&file).env("PATH", dir.path()).output().expect("it runs");
    let said = told(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("unshare") && said.contains("apt-get install util-linux"), "{said}");
}

/// A scenario in a container that waits for what does not come; returns when it does.
fn stuck(file: &Path, keep: &Path) -> Child {
    let text = "> site ams with 3 nodes\n> disk of ams-2 has 32 MiB\n> start all\nready: ams-1, ams-2, ams-3\n\
                > cut ams-1 -- ams-2\n> heal links\n> wait until ams-1 is nowhere\n";
    fs::write(file, text).expect("written");
    let mut command = scenario(file);
    command.arg("--keep").arg(keep).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("it starts");
    eventually("up", || match processes_of(keep) {
        up if up.len() >= 3 => Ok(()),
        up => Err(format!("{up:?}")),
    });
    child
}

/// The command lines, seen from here, of processes that serve out of `dir`.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("a path in UTF-8");
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let lines = processes.filter_map(|entry| {
        // A process may end while it is looked at.
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(dir) && line.contains("serve")).collect()
}

/// Mounts and links of this machine that a scenario could have left.
fn left_behind(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("a path in UTF-8");
    let lines = |file: &str| {
        let file = fs::File::open(file).expect("a file of /proc");
        BufReader::new(file).lines().map(|line| line.expect("text")).collect::<Vec<_>>()
    };
    let mounts = lines("/proc/self/mounts").into_iter().filter(|line| line.contains(dir));
    let links = lines("/proc/net/dev").into_iter().filter(|line| line.contains("member-"));
    mounts.chain(links).collect()
}

#[test]
fn ctrl_c_and_kill_leave_no_process_mount_or_link_behind() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let keep = dir.path().join("keep");
        let mut child = stuck(&dir.path().join("stuck.txt"), &keep);
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let status = child.wait().expect("it ends");
        assert!(!status.success(), "{signal:?}: {status}");
        eventually("all gone", || match (processes_of(&keep), left_behind(dir.path())) {
            (processes, rest) if processes.is_empty() && rest.is_empty() => Ok(()),
            left => Err(format!("{left:#?}")),
        });
    }
}
