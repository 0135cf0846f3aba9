//! The example with one member's machine configured by Ansible: one line of its network.yaml is another one.

use tests::World;
use tests::wait::until;
use tests::world::smart_city;

use crate::stage::program;

const BY: [&str; 4] = ["--member", "breeze", "--channel", "smart-city-1"];

#[test]
fn one_line_of_the_example_configures_a_members_machine() {
    let Some(program) = program() else { return };
    let world = World::new();
    let example = world.root().join("example");
    tests::tree::copy(&smart_city(), &example);
    let network = std::fs::read_to_string(example.join("network.yaml")).unwrap();
    let changed = network.replace("submit: v1/breeze.yaml", "submit: v1/breeze-ansible.yaml");
    let lines = network.lines().zip(changed.lines());
    assert_eq!(lines.filter(|(before, after)| before != after).count(), 1);
    std::fs::write(example.join("network.yaml"), changed).unwrap();
    let folder = example.display().to_string();
    let path = std::env::var("PATH").unwrap();
    world.give("PATH", "/nowhere");
    world.charter(&["up", &folder, "--once"]).exits(1).says(&[
        "breeze orders ansible/playbook, and there is no Ansible for it",
        "install Ansible (ansible-core 2.14 or newer)",
    ]);
    world.give("PATH", format!("{}:{path}", program.parent().unwrap().display()));
    world.charter(&["up", &folder, "--once"]).exits(0);
    let standing = world.charter(&[&["status"], &BY[..]].concat()).exits(0).stdout;
    assert!(standing.contains("station") && !standing.contains("pending"), "{standing}");
    let model = world.member("breeze").join("machine/smart-city-1/place.model");
    let text = || std::fs::read_to_string(&model).unwrap_or_default();
    assert_eq!(text(), "{\"model\": \"mean-of-hours\", \"limit\": 40}");
    // What was run is in the history.
    let scripts = world.charter(&[&["render"], &BY[..]].concat()).exits(0).stdout;
    assert!(
        scripts.contains("\"ansible_connection\": \"local\"") && scripts.contains("ansible.builtin.copy"),
        "{scripts}"
    );
    world.charter(&["down", "--yes"]).exits(0);
    until("what was configured is undone", || match model.exists() {
        true => Err(text()),
        false => Ok(()),
    });
}
