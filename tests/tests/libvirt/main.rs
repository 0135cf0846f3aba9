//! On a real libvirtd with QEMU.
//!
//! Where its programs are missing, or a Charter that was built with the feature `libvirt`, one line says so, and the tests do nothing.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod conforms;
mod example;
mod faults;
mod guests;
mod live;
mod remote;
mod reports;
mod stage;
