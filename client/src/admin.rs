//! What administrators ask for.

use crate::{
    Client, Error,
    wire::{Answer, Incarnation, Request},
};

impl Client {
    /// Asks the server first connected to, or another that the caller named if that is gone, to end this start of its
    /// process and to begin anew. When this returns it is ending, or has already: what it serves next, it serves under
    /// a larger incarnation. Sent again as long as it may be lost; the server restarts once.
    ///
    /// # Errors
    /// [`Fault::NotAdministrator`](crate::wire::Fault::NotAdministrator) and
    /// [`Fault::RestartRefused`](crate::wire::Fault::RestartRefused), or [`Error::NotExecuted`] if no answer came.
    pub async fn restart(&self, incarnation: Incarnation) -> Result<(), Error> {
        match self.read(&Request::Restart { incarnation }, &self.named()).await? {
            (Answer::Restarting, _) => Ok(()),
            (_, connection) => Err(connection.confused()),
        }
    }
}
