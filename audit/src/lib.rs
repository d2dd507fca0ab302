//! The auditor's verifier: a small trusted base on the ledger alone.
