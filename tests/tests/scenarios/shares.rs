//! The shares of the agreements in force, read from a member's store.

use serde_json::json;
use tests::World;

#[test]
fn shares_are_those_that_the_members_agreed_on() {
    let world = World::smart_city();
    let part = |member: &str, share: &str| json!({ "member": member, "share": share });
    let trees = world.charter(&["shares", "show", "-o", "json"]).exits(0).json();
    assert_eq!(trees[0]["channel"], "smart-city-1");
    assert_eq!(
        trees[0]["versions"],
        json!([[part("city", "1")], [part("city", "0.7"), part("breeze", "0.3")]])
    );
    assert_eq!(trees[1]["in_force"], true);
    assert_eq!(
        trees[1]["versions"][2],
        json!([part("city", "0.595"), part("breeze", "0.255"), part("tram", "0.15")])
    );

    // What docs/shares.md shows.
    let split = world.charter(&["shares", "split", "1003", "--channel", "smart-city-2"]).exits(0);
    let amounts: Vec<&str> = split
        .lines()
        .iter()
        .skip(1)
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert_eq!(amounts, ["597", "256", "150"], "{split}");
    world
        .charter(&["shares", "what-if", "--join", "carol=0.9", "--channel", "smart-city-2"])
        .exits(0)
        .says(&[
            "53.5500 %",
            "22.9500 %",
            "13.5000 %",
            "10.0000 %",
            "version 3 has to earn 1111112 or more",
        ]);
    world
        .charter(&["shares", "split", "1003"])
        .exits(1)
        .says(&["add --channel, one of smart-city-1, smart-city-2"]);
    // VSP_2's store has nothing of the version before it.
    let later = world.charter(&["shares", "show", "--member", "tram", "-o", "json"]).exits(0).json();
    assert_eq!(later.as_array().map(Vec::len), Some(1));
    assert_eq!(later[0]["channel"], "smart-city-2");
}
