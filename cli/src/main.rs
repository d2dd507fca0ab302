//! The one binary, `tradewind`.

fn main() {}
