//! The embedded runtime with real containers. Needs root.

mod crowd;
mod harness;
mod life;
mod removal;
mod restart;
mod sessions;
mod surroundings;
mod unified;
