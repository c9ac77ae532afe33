//! flotilla-agent
fn main() {}
