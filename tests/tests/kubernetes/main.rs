//! On a real Kubernetes API server with its controllers, and without nodes.
//!
//! Where its programs are missing, one line says so, and the tests do nothing.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod charter;
mod conforms;
mod example;
mod faults;
mod manifests;
mod stage;
mod watching;
