//! Topology file to validated Topology: identities, roles, public keys.
