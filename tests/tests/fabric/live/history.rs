//! From three members' words to running services, and the same history for everybody.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::{Repository, World, http};

use super::example::{self, FIRST, SECOND};

#[test]
fn three_charters_against_three_peers_agree_and_are_in_sync() {
    let world = World::new();
    let Some(_network) = example::consortium(&world) else { return };
    let members = example::serve(&world);
    example::submit(&world);
    let status = example::converged(&world, 0);
    let routes = http::get(&status.address("tram", SECOND.0, "routes"), "/").unwrap();
    assert_eq!(routes.status, 200, "{}", routes.body);
    // Version 1 goes on beside version 2.
    let forecast = http::get(&status.address("breeze", FIRST.0, "forecast"), "/forecast").unwrap();
    assert_eq!(forecast.status, 200, "{}", forecast.body);
    // What the peers committed is what the chaincode makes of it, down to their own hashes of their state.
    for (channel, members) in [(FIRST.0, FIRST.1.as_slice()), (SECOND.0, SECOND.1.as_slice())] {
        for member in members {
            let rerun = &status.of(member, channel)["service"]["rerun"];
            assert_eq!(
                (&rerun["undecided"], &rerun["commit_hashes"]),
                (&0.into(), &true.into()),
                "{member}: {rerun}"
            );
        }
    }
    for (_, member) in members {
        member.stop();
    }
    world.charter(&["drift"]).exits(0);
    confirmed(&world, "city", "breeze");
    example::same_history(&world);

    // The embedded ledger comes to the same desired state by the same transactions.
    let embedded = World::smart_city();
    for (channel, members) in [(FIRST.0, FIRST.1.as_slice()), (SECOND.0, SECOND.1.as_slice())] {
        for member in members {
            let (real, own) = (ordered(&world.store(member), channel), ordered(&embedded.store(member), channel));
            assert!(real.keys().any(|path| path.starts_with("resources/")), "{real:?}");
            assert_eq!(real, own, "{member} on {channel}");
        }
    }
}

/// Has a member's evidence confirmed by the peer of another.
fn confirmed(world: &World, member: &str, other: &str) {
    let theirs = std::fs::read_to_string(world.config(other)).unwrap();
    let setting = |name: &str| {
        let found = theirs.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
        found.unwrap().trim_matches('"').to_owned()
    };
    let (endpoint, tls_ca) = (setting("endpoint"), world.member(other).join(setting("tls_ca")));
    let path = world.config(member);
    let alone = std::fs::read_to_string(&path).unwrap();
    let witness = format!(
        "{alone}\n[ledger.witness]\nendpoint = \"{endpoint}\"\ntls_ca = \"{}\"\n",
        tls_ca.display()
    );
    std::fs::write(&path, witness).unwrap();
    world
        .charter(&["verify", "--member", member, "--channel", FIRST.0])
        .exits(0)
        .says(&[&format!("the second peer {endpoint} confirms up to block")]);
    std::fs::write(&path, alone).unwrap();
}

/// The files of a desired state without what tells when and where it was said: transactions, blocks, times.
fn ordered(store: &Repository, channel: &str) -> BTreeMap<String, Value> {
    let branch = format!("desired/{channel}");
    let listed = store.git(&["ls-tree", "-r", "--name-only", &branch]).exits(0);
    let files = listed
        .lines()
        .into_iter()
        .filter(|path| *path != "channel.json" && *path != "cursor.json");
    files
        .map(|path| {
            let mut value: Value = store.json(&branch, path);
            strip(&mut value);
            (path.to_owned(), value)
        })
        .collect()
}

/// Takes the places of transactions out of a document. Who said it stays.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("position") && fields.contains_key("tx_id") {
                for place in ["at", "position", "tx_id"] {
                    fields.remove(place);
                }
            }
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
