//! The agreement's program: a deterministic library that a ledger runs and a follower can run again.

pub mod stub;

use stub::{Invocation, Response, Stub};

/// The chaincode's name on every channel.
pub const NAME: &str = "charter";

/// Runs one transaction. It is total: no input makes it panic, and a refusal writes nothing.
pub fn invoke(_stub: &mut dyn Stub, _invocation: &Invocation<'_>) -> Response {
    Response { status: 500, message: "not built yet".into(), payload: Vec::new() }
}
