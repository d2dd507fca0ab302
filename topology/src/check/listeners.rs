//! No two processes may listen on one address.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{Kind, group, processes};
use crate::{
    diagnostics::Diagnostics,
    draft::{Draft, DraftChange, DraftProcess},
    model::Ports,
    roster::Step,
};

/// One socket that a process will open.
struct Listener<'a> {
    /// Index of the process, in the order of the file.
    owner: usize,
    process: &'a DraftProcess,
    ports: Ports,
    what: &'static str,
    address: SocketAddr,
}

/// Where a process listens, with the defaults filled in; `None` if part of it is malformed.
pub(crate) fn ports(process: &DraftProcess) -> Option<Ports> {
    let (address, base) = (process.address.as_ref()?.value, process.port.as_ref()?.value);
    let loopback = if address.is_loopback() { address } else { Ipv4Addr::LOCALHOST.into() };
    let http = process.http.as_ref().map_or(SocketAddr::new(loopback, base + 1), |at| at.value);
    Some(Ports { address, base, http })
}

pub(super) fn check(draft: &Draft, diagnostics: &mut Diagnostics) {
    let removed = |process: &DraftProcess| {
        let mut steps =
            draft.sites.iter().flat_map(|site| site.changes.iter().filter_map(DraftChange::single));
        let name = process.name.as_ref().map(|at| &at.value);
        steps.any(|(it, step)| step == Step::Remove && Some(&it.value) == name)
    };
    // Who was removed listens nowhere any more.
    let running = processes(draft).filter(|(process, _)| !removed(process)).enumerate();
    let running = running.filter_map(|(owner, (p, kind))| Some((owner, p, kind, ports(p)?)));
    let listeners = running.flat_map(|(owner, process, kind, ports)| {
        let listener = move |what, address| {
            let transport = if what == "WAN" { "UDP" } else { "TCP" };
            (
                (transport, SocketAddr::port(&address)),
                Listener { owner, process, ports, what, address },
            )
        };
        let group = (kind == Kind::Node).then(|| listener("group", ports.group()));
        let others = [
            listener("client", ports.client()),
            listener("HTTP", ports.http()),
            listener("WAN", ports.wan()),
        ];
        others.into_iter().chain(group)
    });
    let mut told = HashSet::new();
    for ((transport, _), same_port) in group(listeners) {
        for (index, later) in same_port.iter().enumerate() {
            let clash = same_port[..index].iter().find(|earlier| clash(earlier, later));
            // Processes on one base port clash several times over: once is enough.
            if let Some(earlier) = clash.filter(|earlier| told.insert((earlier.owner, later.owner)))
            {
                complain(transport, earlier, later, diagnostics);
            }
        }
    }
}

/// Whether two listeners on one port meet on one machine. What looks at two machines is told apart
/// by the processes' addresses: the loopback of one is not that of another.
fn clash(a: &Listener<'_>, b: &Listener<'_>) -> bool {
    let (ip_a, ip_b) = (a.address.ip(), b.address.ip());
    let (home_a, home_b) = (a.ports.address, b.ports.address);
    let one_machine = home_a == home_b || (home_a.is_loopback() && home_b.is_loopback());
    let local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    if local(ip_a) || local(ip_b) {
        one_machine && (ip_a == ip_b || ip_a.is_unspecified() || ip_b.is_unspecified())
    } else {
        ip_a == ip_b
    }
}

fn complain(
    transport: &str,
    earlier: &Listener<'_>,
    later: &Listener<'_>,
    diagnostics: &mut Diagnostics,
) {
    let explicit_http = later.process.http.as_ref().filter(|_| later.what == "HTTP");
    const OWN_PORTS: &str =
        "4 free ports: client = port, HTTP = port + 1, WAN = port + 2, group = port + 3";
    let (place, key, allowed) = match (explicit_http, &later.process.port) {
        (Some(at), _) => (&at.place, at.key.as_str(), "an address that nobody else listens on"),
        (None, Some(at)) => (&at.place, at.key.as_str(), OWN_PORTS),
        (None, None) => return,
    };
    let name = earlier.process.name.as_ref().map_or("another process", |at| at.value.as_str());
    let name = if earlier.owner == later.owner { "the same process" } else { name };
    let found = format!(
        "{transport} {} for {}, which {name} ({}) uses for {}",
        later.address, later.what, earlier.process.place, earlier.what
    );
    diagnostics.error(place, key, found, allowed);
}
