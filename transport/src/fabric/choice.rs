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
}

/// Opens the fabric that a site asks for, and the paths on which it will carry rows.
///
/// `auto` is decided for each pair of nodes while it runs: shared memory if both are processes of one
/// host and user, TCP otherwise.
///
/// # Errors
/// [`OpenError`].
pub fn open(
    kind: FabricKind,
    options: TcpOptions,
) -> Result<(Box<dyn Fabric>, Arc<Paths>), OpenError> {
    carry(kind, TcpFabric::bind(options)?)
}

/// As [`open`], with a socket that listens already.
///
/// # Errors
/// [`OpenError`].
pub fn open_with(
    kind: FabricKind,
    options: TcpOptions,
    listener: TcpListener,
) -> Result<(Box<dyn Fabric>, Arc<Paths>), OpenError> {
    carry(kind, TcpFabric::with_listener(options, listener)?)
}

/// Puts beneath the rows what carries them.
fn carry(kind: FabricKind, tcp: TcpFabric) -> Result<(Box<dyn Fabric>, Arc<Paths>), OpenError> {
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
