//! Fabric's own Node client: the checks that the embedded ledger has to pass, on the real network.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tests::fabric::{Binaries, Network, Organisation};
use tests::{World, command};

use super::example::{FIRST, SECOND};

/// How long all the checks may take, one file of them after the other.
const CHECKS: Duration = Duration::from_secs(600);

#[test]
fn the_official_client_finds_here_what_it_finds_at_the_embedded_ledger() {
    let Some(binaries) = Binaries::find() else { return };
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fabric-node");
    if !suite.join("node_modules").is_dir() {
        eprintln!("the Node client is missing, and was not run against the network: tests/run fabric-node installs it");
        return;
    }
    let Some(version) = binaries.release() else {
        eprintln!("this peer tells no release, and the Node client's checks depend on it: they were not run against the network");
        return;
    };
    let world = World::new();
    let mut network = Network::start(&world, &binaries);
    network.channel(FIRST.0, &FIRST.1);
    network.channel(SECOND.0, &SECOND.1);
    network.install_chaincode();
    network.commit_chaincode(FIRST.0, &FIRST.1);
    network.commit_chaincode(SECOND.0, &SECOND.1);

    let members: Vec<Value> = network
        .members()
        .iter()
        .map(|member| described(network.organisation(member)))
        .collect();
    let description = json!({ "version": version, "chaincode": "charter", "pair": FIRST.0, "all": SECOND.0, "members": members });
    let description = world.file("network.json", &description.to_string());
    let mut node = world.bare_command("node");
    node.arg(suite.join("src/run.js")).env("FABRIC_NETWORK", description);
    let ended = command::run(node, CHECKS);
    assert_eq!(ended.code, Some(0), "{ended}");
}

/// Where a member's files are, as the suite wants to be told.
fn described(one: &Organisation) -> Value {
    let (domain, client) = (one.domain(), one.client());
    let authority = one.tls_ca().with_file_name("..").join("ca");
    json!({
        "name": one.member,
        "mspId": one.msp_id,
        "endpoint": one.address(),
        "serverName": "localhost",
        "tlsCa": one.tls_ca(),
        "certificate": client.join(format!("signcerts/User1@{domain}-cert.pem")),
        "key": client.join("keystore/priv_sk"),
        "authority": { "certificate": authority.join(format!("ca.{domain}-cert.pem")), "key": authority.join("priv_sk") },
    })
}
