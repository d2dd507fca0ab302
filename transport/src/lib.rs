//! How the processes of a deployment reach each other, and how each knows whom it speaks with.
//!
//! | module | what it holds |
//! |---|---|
//! | `identity` | [`Identity`]: the Ed25519 key of a process, and its file |
//! | `directory` | [`Directory`]: public key to [`Peer`], as the topology says |
//! | [`tls`] | TLS 1.3 with pinned keys on both sides, one ALPN a protocol |
//! | [`fabric`] | symmetric one-sided memory between the nodes of a site, over TCP |
//! | [`quic`] | QUIC endpoints with the same identities, windows fitted to the link |
//!
//! A process is known by its key and by nothing else: not by address, host name or certificate
//! authority. Certificates are an envelope that TLS asks for; each process makes its own in memory.

pub mod fabric;
pub mod quic;
pub mod tls;

mod directory;
mod identity;

pub use directory::{Directory, DirectoryError, Peer};
pub use identity::{Identity, IdentityError};
