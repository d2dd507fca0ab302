//! What the demo builds: two sites, a relay, and two leaf mirrors in a chain behind it.

use tradewind_local::{Addresses, MirrorPlan, Plan, PoolPlan, SitePlan};
use tradewind_topology::FabricKind;

/// The pool that the airports are imported into; its home is `ams`.
pub(crate) const AIRPORTS: &str = "airports";
/// The pool that several clients write while the mirrors follow; its home is `nyc`.
pub(crate) const FLIGHTS: &str = "flights";
/// The mirrors, each fed by the one before it; the first is the relay, fed by both sites.
pub(crate) const CHAIN: [&str; 3] = ["relay", "leaf-1", "leaf-2"];
/// The mirror that is killed and brought back: it is fed, and it feeds.
pub(crate) const VICTIM: &str = CHAIN[1];

/// Three nodes a site, six processes; three mirrors.
pub(crate) fn plan() -> Plan {
    let site = |name: &str, region: &str| SitePlan {
        name: name.into(),
        region: region.into(),
        nodes: 3,
        fabric: FabricKind::Auto,
        fabric_tls: true,
    };
    let pool = |name: &str, home: &str, shards| PoolPlan {
        name: name.into(),
        home: home.into(),
        shards,
        replicas: 3,
    };
    let mirror = |name: &str, parents: &[&str]| MirrorPlan {
        name: name.into(),
        region: "ap".into(),
        parents: parents.iter().map(ToString::to_string).collect(),
        pools: vec![AIRPORTS.into(), FLIGHTS.into()],
    };
    Plan {
        name: "demo".into(),
        sites: vec![site("ams", "eu"), site("nyc", "us")],
        mirrors: vec![
            mirror(CHAIN[0], &["ams", "nyc"]),
            mirror(CHAIN[1], &[CHAIN[0]]),
            mirror(CHAIN[2], &[CHAIN[1]]),
        ],
        pools: vec![pool(AIRPORTS, "ams", 4), pool(FLIGHTS, "nyc", 2)],
        extra: String::new(),
        addresses: Addresses::Loopback,
    }
}
