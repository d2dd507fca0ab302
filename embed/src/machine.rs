//! What an application replicates.

use std::error::Error;

use serde::{Serialize, de::DeserializeOwned};
use tradewind_ledger::{Hlc, Version, ViewId};

/// Where in the one order a command stands: the same at every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Its position in the ledger, for ever: grows with each command, is never used twice. Good as a fencing token.
    pub version: Version,
    /// Its time: the sender's clock, made strictly increasing by the order.
    pub hlc: Hlc,
    /// The view that ordered it.
    pub view: ViewId,
}

/// A deterministic state machine, of which each member of a site has a replica.
///
/// **Deterministic** means: what [`apply`](Self::apply) does to the state, and what it answers, follows from the state,
/// the command and [`At`] alone. No clock (take [`At::hlc`]), no random number (send it in the command, or derive it from
/// [`At::version`]), no iteration over a `HashMap`, no floating-point function of the platform's library, no look at
/// another process. Nothing checks that; replicas that break it drift apart unseen.
///
/// Commands are kept for ever in the ledger, encoded by postcard: variants and fields are only ever appended, as new
/// variants. A member that meets a command it cannot decode stops ([`Stopped::Command`](crate::Stopped::Command)) rather
/// than skip what others apply: so give all members the new program before the first new command is sent.
pub trait StateMachine: Send + Sync + Sized + 'static {
    /// What is sent.
    type Command: Serialize + DeserializeOwned + Send + Sync;
    /// What the sender is told.
    type Reply: Send + 'static;

    /// Applies a command. Commands come in the one order, each once. A panic stops this replica.
    fn apply(&mut self, at: At, command: Self::Command) -> Self::Reply;

    /// The whole state in bytes. No command is applied meanwhile.
    fn snapshot(&self) -> Vec<u8>;

    /// The state from bytes that [`snapshot`](Self::snapshot) gave, perhaps in an earlier release of the program.
    ///
    /// # Errors
    /// If they cannot be read: then an earlier snapshot, or the ledger from its beginning, is taken instead.
    fn restore(bytes: &[u8]) -> Result<Self, Box<dyn Error + Send + Sync>>;
}
