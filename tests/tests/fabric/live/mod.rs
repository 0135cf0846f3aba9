//! The live tests.

use tests::World;
use tests::fabric::{Binaries, Network};

#[test]
fn network_comes_up() {
    let Some(binaries) = Binaries::find() else { return };
    let world = World::new();
    let started = std::time::Instant::now();
    let network = Network::start(&world, &binaries);
    eprintln!("up {:?}", started.elapsed());
    network.channel("smart-city-1", &["city", "breeze"]);
    network.channel("smart-city-2", &["city", "breeze", "tram"]);
    eprintln!("channels {:?}", started.elapsed());
    let listed = network.peer("tram", &["channel", "list"]).exits(0);
    assert!(
        listed.stdout.contains("smart-city-2") && !listed.stdout.contains("smart-city-1"),
        "{listed}"
    );
}
