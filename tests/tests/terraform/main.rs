//! With a real engine: `terraform` or `tofu`, as `TERRAFORM` names it. Without one, one line says so, and the tests do nothing.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod charter;
mod cli;
mod conforms;
mod example;
mod files;
mod hosted;
mod plug;
mod plugins;
mod runs;
mod served;
mod stage;
