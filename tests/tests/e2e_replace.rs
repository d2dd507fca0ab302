//! A node that lost its disk gets a new identity in its place, and everybody who trusts the ledger follows.

use tradewind_tests::e2e::{LIMIT, POOL, Running, eventually, site_leaf};

#[test]
fn a_replaced_node_comes_back_under_a_new_key_and_mirror_and_auditor_follow() {
    let mut running = Running::start(site_leaf(3, 1));
    running.run(&["put", POOL, "before", "1"]).expect(0);
    let former = running.deployment.topology().process("ams-2").expect("a node").key().to_string();

    running.deployment.kill("ams-2").expect("it ran");
    std::fs::remove_dir_all(running.deployment.data("ams-2")).expect("its disk is lost");
    let topology = running.deployment.topology_file();
    let replaced = running.run(&["node", "replace", "ams-2", "-o", "json"]).json();
    assert_eq!(replaced["former_key"], former.as_str());
    let text = std::fs::read_to_string(&topology).expect("a file");
    assert!(text.contains(&format!("founding_key = \"{former}\"")), "{text}");
    for name in ["ams-1", "ams-3"] {
        running.deployment.stop(name).expect("it ends");
    }
    running.deployment.start_all().expect("they start");
    running.ready();

    // Through the new member; the mirror, which still has the file from before, takes what it signed.
    let put = ["put", POOL, "after", "2", "-o", "json", "--endpoints", "ams-2", "--only"];
    let version = running.run(&put).json()["version"].to_string();
    let at_leaf = ["--endpoints", "leaf", "--only", "--min-version", &version, "--wait", "30000"];
    let read = |running: &Running, key: &str, timeout: &str| {
        let args = [&["get", POOL, key, "--timeout", timeout], at_leaf.as_slice()].concat();
        running.run(&args).expect(0).stdout()
    };
    assert_eq!(read(&running, "after", "35").trim_end(), "2");
    assert_eq!(read(&running, "before", "35").trim_end(), "1");
    running.deployment.stop("leaf").expect("it ends");
    running.deployment.start("leaf").expect("it starts");
    running.ready();
    running.run(&["get", POOL, "after", "--endpoints", "leaf", "--only"]).expect(0);

    // An auditor who trusts the ledger's beginning, and one who trusts today's keys.
    for name in ["ams-2", "leaf"] {
        let data = running.deployment.data(name);
        let source = data.to_str().expect("a path in UTF-8");
        for trust in [&[] as &[&str], &["--topology", topology.to_str().expect("UTF-8")]] {
            let verify = [&["audit", "verify", source], trust].concat();
            eventually("audited", || match running.run(&verify) {
                run if run.code() == 0 => Ok(()),
                run => Err(run.stdout() + &run.stderr()),
            });
        }
    }

    // The former key is nobody's.
    running.deployment.stop("ams-2").expect("it ends");
    let keys = running.deployment.dir().join("keys");
    let aside = replaced["former_key_file"].as_str().expect("a path");
    std::fs::copy(aside, keys.join("ams-2.key")).expect("copied");
    running.deployment.start("ams-2").expect("it starts");
    let status = running.deployment.wait_exit("ams-2", LIMIT).expect("it ends by itself");
    assert_eq!(status.code(), Some(2));
}
