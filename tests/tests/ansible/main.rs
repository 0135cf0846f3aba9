//! With a real Ansible, as `ANSIBLE` names its `ansible-playbook`, on hosts that real SSH servers stand for. Without it, one line says
//! so, and the tests do nothing.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod charter;
mod conforms;
mod example;
mod hosts;
mod packages;
mod runs;
mod stage;
