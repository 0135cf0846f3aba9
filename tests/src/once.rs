//! What has to hold after kills: nothing is lost, and nothing was done twice.

use std::collections::BTreeMap;

use crate::{MEMBERS, World};

/// Checks that every service of the example and of what was added runs once and was started once, and that each order stands in every
/// member's history once.
///
/// `ordered` names what was added to version 2 and its owner; the services among it begin with `api`.
///
/// # Panics
/// When something is missing, or there twice.
#[track_caller]
pub fn made(world: &World, ordered: &BTreeMap<String, &str>) {
    let mut owners: Vec<String> = [
        "1/city/readings",
        "1/breeze/forecast",
        "2/city/readings",
        "2/breeze/forecast",
        "2/tram/routes",
    ]
    .map(|one| format!("smart-city-{one}"))
    .into();
    let added = ordered.iter().filter(|(name, _)| name.starts_with("api"));
    owners.extend(added.map(|(name, member)| format!("smart-city-2/{member}/{name}")));
    owners.sort();
    let running: Vec<String> = world.services().into_iter().map(|one| one.owner).collect();
    assert_eq!(running, owners);
    for owner in &owners {
        let [channel, member, name] = owner
            .split('/')
            .collect::<Vec<_>>()
            .try_into()
            .expect("an owner label has three parts");
        let log = world.member(member).join(format!("machine/.charter/{channel}/{member}/{name}.log"));
        let text = std::fs::read_to_string(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        assert_eq!(
            text.matches("listening on").count(),
            1,
            "{owner} was started more than once:\n{text}"
        );
    }
    for member in MEMBERS {
        let titles = world.store(member).log("desired/smart-city-2", "%s");
        for name in ordered.keys() {
            let times = titles
                .iter()
                .filter(|title| title.split([' ', ',', ':']).any(|word| word == name))
                .count();
            assert_eq!(times, 1, "{name} in {member}'s {titles:#?}");
        }
    }
}
