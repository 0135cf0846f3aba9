//! The git store: a bare repository that is durable on return.
//!
//! Commits are built in memory by a [`Batch`] and written by [`finish`] as one pack, then references move
//! by compare-and-swap. Object ids are a function of content alone: nothing here reads a clock, a random
//! number, or any configuration outside the repository.
//!
//! # What is on disk, and who cleans it
//! - `objects/pack`: one pack for each [`finish`]. More than sixteen small ones are merged, each object a
//!   logarithmic number of times, so a store that commits every few seconds for years has some dozen packs.
//!   Nothing is ever dropped. An operator may run `git gc` at any time, which packs tighter.
//! - `tmp_charter_*` there: a writer was killed; the next one writes over it, and git ignores it. A pack
//!   without an index, from between two renames, is ignored in the same way.
//! - `*.torn` there: [`Store::init`] found a pack that doesn't end as its index says, and set it aside.
//!   A reference that needs it is then reported as damaged by [`Store::head`].
//! - `charter/`: the lock of the store's writers, which ends with its process, and the marker that tells
//!   reference locks of killed writers (removed by the next writer) from those of other git programs
//!   (waited for, never removed).
//!
//! # Order of a write
//! Objects are flushed before the names that lead to them: pack, index, directory, reference, its directory.
//! So a reference never names a missing object, whatever line a writer is killed at.

mod batch;
mod disk;
mod each;
mod error;
mod finish;
mod history;
mod lock;
mod names;
mod object;
mod objects;
mod pack;
mod packs;
mod reader;
mod refs;
mod store;
mod tree;

#[cfg(test)]
mod tests;

pub use batch::{Batch, Signer};
pub use error::GitError;
pub use finish::finish;
pub use history::Change;
pub use names::{BadCommitId, CommitId, Person};
pub use object::CommitInfo;
pub use store::{FileId, Store};
