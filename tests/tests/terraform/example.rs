//! The example with one member's model from Terraform: one line of its network.yaml is another one.

use serde_json::json;
use tests::World;
use tests::world::smart_city;

use crate::hosted::Hosted;
use crate::stage::engine;

const BY: [&str; 4] = ["--member", "breeze", "--channel", "smart-city-1"];

/// The example, with that line changed.
fn changed(world: &World) -> String {
    let example = world.root().join("example");
    tests::tree::copy(&smart_city(), &example);
    let network = std::fs::read_to_string(example.join("network.yaml")).unwrap();
    let changed = network.replace("submit: v1/breeze.yaml", "submit: v1/breeze-terraform.yaml");
    let lines = network.lines().zip(changed.lines());
    assert_eq!(lines.filter(|(before, after)| before != after).count(), 1);
    std::fs::write(example.join("network.yaml"), changed).unwrap();
    example.display().to_string()
}

/// The model that the forecast is made with, as it stands on the member's machine.
#[track_caller]
fn serves_the_model(world: &World) {
    let standing = world.charter(&[&["status"], &BY[..]].concat()).exits(0).stdout;
    assert!(standing.contains("model-file") && !standing.contains("pending"), "{standing}");
    let file = world.member("breeze").join("machine/smart-city-1/model-file");
    let model: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(model, json!({ "model": "mean-of-hours", "limit": 40 }));
}

#[test]
fn one_line_of_the_example_takes_a_member_to_an_engine() {
    let Some(engine) = engine() else { return };
    let world = World::new();
    let folder = changed(&world);
    let path = std::env::var("PATH").unwrap();
    world.give("PATH", "/nowhere");
    world.charter(&["up", &folder, "--once"]).exits(1).says(&[
        "breeze orders terraform/workspace, and there is no engine for it",
        "install tofu or terraform",
    ]);
    // The engine's name is one that is looked for, wherever it was built.
    let programs = world.root().join("programs");
    std::fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(&engine, programs.join("tofu")).unwrap();
    world.give("PATH", format!("{}:{path}", programs.display()));
    world.charter(&["up", &folder, "--once"]).exits(0);
    serves_the_model(&world);
    assert!(
        world
            .member("breeze")
            .join("terraform/smart-city-1.model/terraform.tfstate")
            .exists()
    );
    world.charter(&["down", "--yes"]).exits(0);
    assert!(!world.member("breeze").join("terraform/smart-city-1.model").exists());
}

#[test]
fn one_line_of_the_example_takes_a_member_to_a_server() {
    let Some(stage) = Hosted::new(&json!({})) else { return };
    let world = World::new();
    let folder = changed(&world);
    world.give("TFE_ADDRESS", stage.direct());
    world.give("TFE_TOKEN", stage.token());
    world.give("TF_CLOUD_ORGANIZATION", "acme");
    world.charter(&["up", &folder, "--once"]).exits(0);
    serves_the_model(&world);
    let there = |count: usize| {
        let listed = stage.did("GET", "/organizations/acme/workspaces", &serde_json::Value::Null);
        let listed = stage.runtime.block_on(listed);
        let all = listed["data"].as_array().unwrap();
        assert_eq!(all.len(), count, "{listed}");
        all.first().map(|one| one["attributes"]["name"].as_str().unwrap().to_owned())
    };
    assert_eq!(there(1).as_deref(), Some("smart-city-1_model"));
    // The token is where its owner only reads it, and nowhere else.
    let text = std::fs::read_to_string(world.config("breeze")).unwrap();
    assert!(text.contains("[terraform.cloud]") && !text.contains(stage.token()), "{text}");
    world.charter(&["down", "--yes"]).exits(0);
    there(0);
}
