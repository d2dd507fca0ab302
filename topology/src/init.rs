//! A topology file to start from.

use std::fmt::Write as _;

use crate::{
    key::PublicKey,
    names::{DeploymentName, PoolName},
};

/// What a new deployment looks like.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Name of the deployment.
    pub name: DeploymentName,
    /// Number of sites, named `site-1` and so on, with nodes `n1-1` and so on.
    pub sites: usize,
    /// Nodes of each site.
    pub nodes: usize,
    /// Mirrors in a chain behind the first site, named `mirror-1` and so on.
    pub mirrors: usize,
    /// Pools, homed at the sites in turn. The mirrors mirror all of them.
    pub pools: Vec<PoolName>,
    /// Shards of each pool.
    pub shards: u32,
    /// First base port; the processes follow at intervals of ten.
    pub port: u16,
}

/// Writes a file in which every process listens on loopback, and a client `ops` may do everything.
///
/// `new_key` makes a key for a name, stores its private half, and gives the public one.
///
/// # Errors
/// The first error of `new_key`.
pub fn init<E>(
    options: &InitOptions,
    mut new_key: impl FnMut(&str) -> Result<PublicKey, E>,
) -> Result<String, E> {
    let InitOptions { name, sites, nodes, mirrors, pools, shards, port } = options;
    let mut out = format!(
        "# Topology of {name}: every site, node, mirror, pool and key of the deployment.\n\
         # `tradewind topology check` tells what is wrong with it; docs/topology.md explains each key.\n\n\
         [deployment]\nname = \"{name}\"\nkeys = \"keys\"    # <name>.key of each process of this machine\n\
         data = \"data\"    # one directory for each process of this machine\n\n"
    );
    let mut ports = (0u16..).map(|index| port.saturating_add(index.saturating_mul(10)));
    let mut next_port = || ports.next().expect("an endless range");
    for site in 1..=*sites {
        _ = writeln!(out, "[sites.site-{site}]\nregion = \"region-{site}\"\nfabric = \"auto\"");
        for node in 1..=*nodes {
            let (node, port) = (format!("n{site}-{node}"), next_port());
            let key = new_key(&node)?;
            _ = writeln!(
                out,
                "[[sites.site-{site}.nodes]]\nname = \"{node}\"\naddress = \"127.0.0.1\"\n\
                 port = {port}    # client; HTTP, WAN and group follow it\nkey = \"{key}\""
            );
        }
        out.push('\n');
    }
    let homes: Vec<String> = (1..=*sites).map(|site| format!("\"site-{site}\"")).collect();
    let all: Vec<String> = pools.iter().map(|pool| format!("\"{pool}\"")).collect();
    for mirror in 1..=*mirrors {
        let (own, port) = (format!("mirror-{mirror}"), next_port());
        let key = new_key(&own)?;
        let parents = match mirror {
            1 => homes.join(", "),
            _ => format!("\"mirror-{}\"", mirror - 1),
        };
        _ = writeln!(
            out,
            "[[mirrors]]\nname = \"{own}\"\nregion = \"region-1\"\naddress = \"127.0.0.1\"\n\
             port = {port}\nkey = \"{key}\"\nparents = [{parents}]    # in order of preference\n\
             pools = [{}]\nlink = {{ rtt_ms = 10, bandwidth_mbps = 1000 }}\n",
            all.join(", ")
        );
    }
    for (pool, home) in pools.iter().zip(homes.iter().cycle()) {
        _ = writeln!(
            out,
            "[pools.{pool}]\nhome = {home}\nshards = {shards}\nreplicas = {}\ndurability = \"disk\"\n",
            nodes.min(&3)
        );
    }
    _ = writeln!(out, "[clients.ops]\nkey = \"{}\"\nrights = \"admin\"", new_key("ops")?);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, path::Path};

    use super::*;
    use crate::model::Topology;

    #[test]
    fn what_init_writes_is_accepted_without_a_word() {
        let mut secret = [0; 32];
        let mut new_key = |_: &str| {
            secret[0] += 1;
            let public = ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key();
            Ok::<_, Infallible>(PublicKey::from_bytes(public.to_bytes()).unwrap())
        };
        for (sites, mirrors) in [(1, 0), (1, 3), (2, 3)] {
            let options = InitOptions {
                name: "atlas".parse().unwrap(),
                sites,
                nodes: 3,
                mirrors,
                pools: vec!["flights".parse().unwrap(), "settings".parse().unwrap()],
                shards: 2,
                port: 7400,
            };
            let text = init(&options, &mut new_key).unwrap();
            let loaded = Topology::parse(&text, Path::new("t.toml"), &[]);
            let loaded = loaded.unwrap_or_else(|diagnostics| panic!("{diagnostics}\n{text}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            assert_eq!(loaded.topology.processes().count(), 3 * sites + mirrors);
        }
    }
}
