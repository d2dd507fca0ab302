//! Who asks, and what they may do.

use std::sync::Arc;
use tradewind_client::wire::{Access, Fault};
use tradewind_transport::Peer;

/// Somebody who sends requests.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Known by its key; may do what the topology says.
    Peer(Arc<Peer>),
    /// Unknown, on a plain connection: may do this much in every pool.
    Anyone(Access),
}

impl Caller {
    /// What to call it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Peer(peer) => &peer.name,
            Self::Anyone(_) => "anyone",
        }
    }

    /// Whether it may do everything, in all pools and beyond.
    pub(crate) fn is_administrator(&self) -> bool {
        match self {
            Self::Peer(peer) => peer.rights.are_unlimited(),
            Self::Anyone(granted) => *granted == Access::Admin,
        }
    }

    /// # Errors
    /// [`Fault::Forbidden`] unless it may do that in `pool`.
    pub(crate) fn check(&self, pool: &str, access: Access) -> Result<(), Fault> {
        let may = match self {
            // Rights are ordered as accesses are: read, write, admin.
            Self::Peer(peer) => {
                peer.rights.on(pool).is_some_and(|right| right as u8 >= access as u8)
            }
            Self::Anyone(granted) => *granted >= access,
        };
        if may {
            return Ok(());
        }
        Err(Fault::Forbidden { client: self.name().to_owned(), pool: pool.to_owned(), access })
    }
}
