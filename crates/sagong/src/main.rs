//! sagong
fn main() {}
