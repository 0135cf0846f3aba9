//! What the end-to-end tests stand on: worlds of their own, commands with deadlines, and ways to look at what a user would notice.
//!
//! Nothing here sleeps to let something happen: it waits on conditions, with a deadline. Everything that a world starts carries the
//! world's folder in its environment, and goes with it.

pub mod between;
pub mod cluster;
pub mod command;
pub mod consortium;
pub mod doctored;
pub mod documents;
pub mod example;
pub mod fabric;
pub mod http;
pub mod hypervisor;
pub mod once;
pub mod passes;
pub mod processes;
pub mod recording;
pub mod relay;
pub mod repository;
pub mod seed;
pub mod serving;
pub mod spaces;
pub mod standing;
pub mod tfc;
pub mod tree;
pub mod wait;
pub mod world;

pub use command::Ended;
pub use consortium::{Consortium, MEMBERS};
pub use recording::Recording;
pub use repository::Repository;
pub use serving::Running;
pub use standing::{Members, Standing};
pub use wait::{until, until_within};
pub use world::World;
