//! Documents to submit.

use serde_json::{Value, json};

/// An order of new resources.
pub fn order(resources: Vec<Value>) -> Value {
    json!({ "apiVersion": "charter/v1", "kind": "Order", "resources": resources })
}

/// Resources as they are from now on.
pub fn amendment(resources: Vec<Value>) -> Value {
    json!({ "apiVersion": "charter/v1", "kind": "Amendment", "resources": resources })
}

/// Resources that are no longer wanted.
pub fn retirement(names: &[&str]) -> Value {
    json!({ "apiVersion": "charter/v1", "kind": "Retirement", "resources": names })
}

/// A file of a member.
pub fn file(name: &str, owner: &str, content: &str) -> Value {
    json!({ "name": name, "kind": "machine/file", "owner": owner, "spec": { "content": content }, "exports": ["digest"] })
}

/// A service of a member that serves a file's path at `/readings`.
pub fn readings(name: &str, owner: &str, data: &Value) -> Value {
    json!({
        "name": name,
        "kind": "machine/service",
        "owner": owner,
        "spec": {
            "command": ["smart-city", "readings"],
            "env": { "DATA": data },
            "port": "auto",
            "ready": { "port": true },
        },
        "exports": ["address"],
    })
}

/// A reference to another resource's output.
pub fn reference(to: &str) -> Value {
    json!({ "$ref": to })
}

/// The block in which `submit` says that something was committed.
///
/// # Panics
/// When it says nothing of the kind.
pub fn block(said: &str) -> u64 {
    let number = said
        .rsplit_once("(block ")
        .and_then(|(_, rest)| rest.split(',').next())
        .and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("no block in {said:?}"))
}
