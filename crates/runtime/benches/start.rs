//! How long a container takes from `create_container` until its program runs, and a sandbox. Needs root.

fn main() {}
