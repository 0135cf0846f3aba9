//! Examples of one channel, made for a test.

use serde_json::{Value, json};

use crate::World;

/// Makes a world with one channel and brings it up once: what these members are, what those of the agreement agree on, and what is ordered.
///
/// A member that the agreement doesn't name is of the channel, and no party.
///
/// # Panics
/// When it can't be written, or doesn't come up.
#[track_caller]
pub fn of_one_channel(channel: &str, members: &[(&str, &str)], agreement: &Value, orders: &[(&str, &Value)]) -> World {
    let world = World::new();
    let folder = world.root().join("example");
    std::fs::create_dir_all(&folder).expect("the world was just made");
    let write = |name: &str, document: &Value| std::fs::write(folder.join(name), document.to_string()).expect("the folder was just made");
    let parties = agreement["parties"].as_array().into_iter().flatten();
    let mut transactions: Vec<Value> = parties
        .map(|party| json!({ "by": party["member"], "submit": "agreement.yaml" }))
        .collect();
    write("agreement.yaml", agreement);
    for (index, (by, order)) in orders.iter().enumerate() {
        let name = format!("order-{index}.yaml");
        write(&name, order);
        transactions.push(json!({ "by": by, "submit": name }));
    }
    let of = |(name, msp): &(&str, &str)| json!({ "name": name, "msp": msp });
    let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    let network = json!({
        "apiVersion": "charter/v1", "kind": "Network",
        "members": members.iter().map(of).collect::<Vec<_>>(),
        "channels": [{ "name": channel, "members": names, "transactions": transactions }],
    });
    write("network.yaml", &network);
    world.charter(&["up", "--once", &folder.display().to_string()]).exits(0);
    world
}

/// An agreement of the city and of Breeze, who keeps 0.3 of version 1's profit, with these dates and clauses.
pub fn agreement(effective: &Value, clauses: &Value) -> Value {
    json!({
        "apiVersion": "charter/v1", "kind": "Agreement", "dao": "smart-city", "version": 1,
        "parties": [
            { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
            { "member": "breeze", "msp": "BreezeMSP", "role": "value-service-provider", "beta": "0.7" },
        ],
        "effective": effective, "clauses": clauses, "heartbeat_seconds": 60,
    })
}

/// The members of that agreement.
pub const CITY_AND_BREEZE: [(&str, &str); 2] = [("city", "CityMSP"), ("breeze", "BreezeMSP")];
