//! The client library and the wire messages of the client protocol.
