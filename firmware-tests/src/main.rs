//! firmware-tests
fn main() {}
