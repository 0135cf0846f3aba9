//! The store as a whole, and against the `git` program.
