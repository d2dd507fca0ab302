//! What every process serves: client protocol, HTTP, the ledger's public face.
