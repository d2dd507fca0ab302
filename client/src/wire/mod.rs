//! What goes over a connection: see `docs/formats/client-protocol.md`.
//!
//! A connection begins with [`Hello`] and [`Welcome`] (or [`Rejected`]); then requests and responses follow in
//! frames, any number at a time, the responses in any order. Enums are only ever appended to; every message is
//! decoded strictly; no length is believed before it is checked.

mod fault;
mod frame;
mod hello;
mod message;

pub use fault::{Access, Executed, Fault};
pub use frame::{
    CallId, Frame, FrameError, HEADER, Kind, MAX_FRAME, MAX_HANDSHAKE, announced, decode, encode,
    split,
};
pub use hello::{
    Hello, MAGIC, NodeInfo, PROTOCOL, PoolIndex, PoolInfo, Rejected, Role, ShardInfo, Welcome,
};
pub use message::{
    Answer, AsOf, At, Get, History, Incarnation, Key, Level, List, Listed, Read, Request, Response,
    Write,
};
