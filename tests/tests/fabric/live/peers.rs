//! Peers that ask for a client's certificate, and more than one of them.

use tests::fabric::{Caller, Clients, Network};
use tests::{Ended, World, documents, until};

use super::example::{self, FIRST, SECOND};

#[test]
fn another_peer_serves_over_mutual_tls_when_the_own_one_is_gone() {
    let world = World::new();
    let Some(mut network) = example::consortium_for(&world, Clients::Certified) else {
        return;
    };
    let caller = Caller {
        further: &["breeze"],
        ..Caller::own("city")
    };
    network.configure_member(&world.member("city"), caller, &[FIRST.0, SECOND.0]);
    let members = example::serve(&world);
    example::submit(&world);
    example::converged(&world, 0);

    // Without a certificate nobody is heard, and it is said why.
    let text = std::fs::read_to_string(world.config("tram")).unwrap();
    let bare: String = text
        .lines()
        .filter(|line| !line.starts_with("client_"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::create_dir(world.root().join("bare")).unwrap();
    let bare = world.file("bare/charter.toml", &bare);
    let order = documents::order(vec![documents::file("unheard", "tram", "x\n")]);
    let order = world.file("unheard.yaml", &order.to_string());
    let said = world
        .charter(&["--config", &bare, "submit", &order, "--channel", SECOND.0])
        .exits(1);
    said.says(&["ledger.client_certificate"]);

    network.kill_peer("city");
    ordered(&world, "without-own");
    until("the city reads from the other peer", || endpoint(&world, &network, "breeze"));
    network.start_peer("city");
    // A peer that came back is of use once gossip has told it of the others: it is asked alone.
    let alone = world.root().join("alone");
    let alone = network.configure_member(&alone, Caller::own("city"), &[SECOND.0]);
    let order = documents::order(vec![documents::file("by-own-alone", "city", "x\n")]);
    let order = world.file("by-own-alone.yaml", &order.to_string());
    until("the city's peer endorses again", || {
        taken(world.charter(&["--config", &alone, "submit", &order]))
    });
    network.kill_peer("breeze");
    ordered(&world, "without-other");
    until("the city reads from its own peer", || endpoint(&world, &network, "city"));
    network.start_peer("breeze");
    example::converged(&world, 3);
    for (_, member) in members {
        member.stop();
    }
    example::same_history(&world);
}

/// Has the city order something, and waits until it is there.
#[track_caller]
fn ordered(world: &World, name: &str) {
    let order = documents::order(vec![documents::file(name, "city", "x\n")]);
    let file = world.file(&format!("{name}.yaml"), &order.to_string());
    until(&format!("{name} is ordered"), || {
        taken(world.charter(&["submit", &file, "--member", "city", "--channel", SECOND.0]))
    });
    until(&format!("{name} is in sync"), || {
        match world.status().resource("city", SECOND.0, name) {
            Some(one) if one.is_settled() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Whether an order is on the ledger, by what the command said that submitted it.
fn taken(said: Ended) -> Result<(), Ended> {
    match said.code == Some(0) || said.stderr.contains("exists already") {
        true => Ok(()),
        false => Err(said),
    }
}

/// Whether the city reads from a member's peer.
fn endpoint(world: &World, network: &Network<'_>, member: &str) -> Result<(), String> {
    let status = world.status();
    let service = &status.of("city", SECOND.0)["service"];
    let wanted = format!("https://{}", network.organisation(member).address());
    match service["endpoint"] == wanted.as_str() {
        true => Ok(()),
        false => Err(format!("{wanted}: {service}")),
    }
}
