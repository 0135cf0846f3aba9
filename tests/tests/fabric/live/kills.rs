//! kill -9 of everything in turn, in the middle of work: nothing is lost, and nothing is taken in twice.

use std::collections::BTreeMap;

use tests::fabric::Network;
use tests::once;
use tests::seed::Seed;
use tests::{MEMBERS, Running, World, documents, http, until};

use super::example::{self, FIRST, SECOND};

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Peer(&'static str),
    Orderer,
    Chaincode(&'static str),
    Charter(&'static str),
}

/// Everything, in turn.
const VICTIMS: [Victim; 10] = [
    Victim::Peer("city"),
    Victim::Peer("breeze"),
    Victim::Peer("tram"),
    Victim::Orderer,
    Victim::Chaincode("city"),
    Victim::Chaincode("breeze"),
    Victim::Chaincode("tram"),
    Victim::Charter("city"),
    Victim::Charter("breeze"),
    Victim::Charter("tram"),
];

#[test]
fn each_is_killed_in_turn_and_everything_converges() {
    let mut seed = Seed::new("each_is_killed_in_turn");
    let world = World::new();
    let Some(mut network) = example::consortium(&world) else { return };
    let mut members = example::serve(&world);
    example::submit(&world);
    example::converged(&world, 0);
    let mut ordered: BTreeMap<String, &str> = BTreeMap::new();
    for (round, victim) in VICTIMS.into_iter().enumerate() {
        // One of them says something while the other is killed, whoever that is.
        let member = MEMBERS[seed.below(3) as usize];
        let (file, service) = (format!("data-{round}"), format!("api-{round}"));
        let data = documents::reference(&format!("{file}.outputs.path"));
        let order = documents::order(vec![
            documents::file(&file, member, &format!("content of round {round}\n")),
            documents::readings(&service, member, &data),
        ]);
        let document = world.file(&format!("order-{round}.yaml"), &order.to_string());
        let words = ["submit", &document, "--member", member, "--channel", SECOND.0];
        let mut submit = world.start(&words);
        // No moment is special, so none is waited for.
        std::thread::sleep(std::time::Duration::from_millis(seed.below(400)));
        kill(&mut network, &mut members, victim);
        std::thread::sleep(std::time::Duration::from_millis(seed.below(1500)));
        revive(&world, &mut network, &mut members, victim);
        // Whether it was taken before, only the ledger knows: it is said again, and taken once.
        if submit.ended() != Some(0) {
            until(&format!("the order of round {round} ({victim:?}) is on the ledger"), || {
                let said = world.charter(&words);
                if said.code == Some(0) || said.stderr.contains("exists already") {
                    Ok(())
                } else {
                    Err(said)
                }
            });
        }
        ordered.insert(file, member);
        ordered.insert(service, member);
    }
    let status = example::converged(&world, ordered.len());
    for (name, member) in ordered.iter().filter(|(name, _)| name.starts_with("api")) {
        let round = name.trim_start_matches("api-");
        let answer = http::get(&status.address(member, SECOND.0, name), "/readings").unwrap();
        assert_eq!(answer.body, format!("content of round {round}\n"));
    }
    once::made(&world, &ordered);
    let first = world.store("city").log(&format!("desired/{}", FIRST.0), "%H");
    assert!(!first.is_empty());
    for (_, member) in members {
        member.stop();
    }
    world.charter(&["drift"]).exits(0);
    for member in MEMBERS {
        let store = world.store(member);
        store.is_sound();
        for channel in world.status().channels(member) {
            assert!(store.report_chain(&channel, member) > 0);
        }
    }
    example::same_history(&world);
}

fn kill(network: &mut Network<'_>, members: &mut BTreeMap<&'static str, Running>, victim: Victim) {
    match victim {
        Victim::Peer(member) => network.kill_peer(member),
        Victim::Orderer => network.kill_orderer(),
        Victim::Chaincode(member) => network.kill_chaincode(member),
        Victim::Charter(member) => members.get_mut(member).unwrap().kill(),
    }
}

fn revive(world: &World, network: &mut Network<'_>, members: &mut BTreeMap<&'static str, Running>, victim: Victim) {
    match victim {
        Victim::Peer(member) => network.start_peer(member),
        Victim::Orderer => network.start_orderer(),
        Victim::Chaincode(member) => network.start_chaincode(member),
        Victim::Charter(member) => {
            members.insert(member, world.serve(member));
        }
    }
}
