//! Which provider a site gets: what its topology asks for, on the machines that there are.

use std::{io, net::TcpListener, sync::Arc};

use tradewind_topology::FabricKind;

use super::{
    Fabric, PathKind, Paths,
    shm::ShmFabric,
    tcp::{TcpError, TcpFabric, TcpOptions},
};

/// Why there is no fabric.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Links cannot be had.
    #[error(transparent)]
    Tcp(#[from] TcpError),
    /// Shared memory cannot be exchanged.
    #[error("no shared memory between the nodes of this host: {0}")]
    Shm(io::Error),
    /// RDMA is not part of the program.
    #[error(
        "fabric = \"verbs\", but this program was built without RDMA: build it with \
         `cargo build --release --features verbs`, or choose fabric = \"auto\""
    )]
    NoVerbs,
    /// RDMA cannot be used.
    #[cfg(any(feature = "verbs", feature = "verbs-dlopen"))]
    #[error("fabric = \"verbs\": {0}")]
    Verbs(#[from] super::verbs::VerbsError),
}

/// Opens the fabric that a site asks for, and the paths on which it will carry rows.
///
/// `auto` takes RDMA where a device is on the own address and may be used. Else it is decided for each
/// pair of nodes while it runs: shared memory if both are processes of one host and user, TCP otherwise.
///
/// # Errors
/// [`OpenError`].
pub fn open(kind: FabricKind, options: TcpOptions) -> Opened {
    carry(kind, TcpFabric::bind(options)?)
}

/// As [`open`], with a socket that listens already.
///
/// # Errors
/// [`OpenError`].
pub fn open_with(kind: FabricKind, options: TcpOptions, listener: TcpListener) -> Opened {
    carry(kind, TcpFabric::with_listener(options, listener)?)
}

/// A fabric, and the paths on which it carries rows.
type Opened = Result<(Box<dyn Fabric>, Arc<Paths>), OpenError>;

/// Puts beneath the rows what carries them.
fn carry(kind: FabricKind, tcp: TcpFabric) -> Opened {
    if wants_verbs(kind, &tcp) {
        return carry_by_verbs(tcp, kind == FabricKind::Verbs);
    }
    let (_, nodes) = tcp.place();
    let required = match kind {
        FabricKind::Tcp => {
            let paths = Paths::new(nodes, PathKind::Tcp, "the topology says fabric = \"tcp\"");
            return Ok((Box::new(tcp), Arc::new(paths)));
        }
        FabricKind::Shm => true,
        // `FabricKind` grows with its own crate; what is not known here is left to be found out.
        _ => false,
    };
    let shm = ShmFabric::new(tcp, required).map_err(OpenError::Shm)?;
    let paths = shm.paths();
    Ok((Box::new(shm), paths))
}

/// Whether rows are to go by RDMA: asked for, or there is a device that can be used.
#[cfg(any(feature = "verbs", feature = "verbs-dlopen"))]
fn wants_verbs(kind: FabricKind, tcp: &TcpFabric) -> bool {
    let usable = match kind {
        FabricKind::Verbs => return true,
        FabricKind::Auto => super::verbs::usable_on(tcp.own_address().ip()),
        _ => return false,
    };
    usable.inspect_err(|why| tracing::info!(%why, "no RDMA")).is_ok()
}

#[cfg(not(any(feature = "verbs", feature = "verbs-dlopen")))]
fn wants_verbs(kind: FabricKind, _: &TcpFabric) -> bool {
    kind == FabricKind::Verbs
}

#[cfg(any(feature = "verbs", feature = "verbs-dlopen"))]
fn carry_by_verbs(tcp: TcpFabric, required: bool) -> Opened {
    let verbs = super::verbs::VerbsFabric::new(tcp, required)?;
    let paths = verbs.paths();
    Ok((Box::new(verbs), paths))
}

#[cfg(not(any(feature = "verbs", feature = "verbs-dlopen")))]
fn carry_by_verbs(_: TcpFabric, _: bool) -> Opened {
    Err(OpenError::NoVerbs)
}
