//! flotilla-server
fn main() {}
