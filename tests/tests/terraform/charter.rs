//! A member whose part of a DAO is made by Terraform: ordered on the ledger, planned attribute by attribute, healed, and taken down again.

use serde_json::json;
use tests::wait::until;
use tests::{World, documents};

use crate::stage::engine;

const CHANNEL: &str = "smart-city-1";

#[test]
fn a_members_part_is_made_by_the_engine() {
    let Some(engine) = engine() else { return };
    let world = World::smart_city();
    let by = ["--member", "city", "--channel", CHANNEL];
    let stations = |more: &str| {
        json!({
            "name": "stations", "kind": "terraform/workspace", "owner": "city", "exports": ["at"], "spec": {
                "configuration": {
                    "resource": { "terraform_data": { "station": { "input": "${var.digest}" } } },
                    "output": { "at": { "value": format!("station of ${{terraform_data.station.output}}{more}") } },
                },
                "variables": { "digest": documents::reference("air-quality.outputs.digest") },
            },
        })
    };
    let user = json!({
        "name": "stations-at", "kind": "machine/file", "owner": "breeze", "spec": { "content": documents::reference("stations.outputs.at") },
    });
    let order = documents::order(vec![stations(""), user]);
    let file = world.file("order.yaml", &order.to_string());
    world
        .charter(&[&["plan", "-f", &file], &by[..]].concat())
        .exits(7)
        .says(&["no provider of this Charter makes terraform/workspace: configure one"]);
    let path = world.config("city");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        format!(
            "{text}\n[terraform]\nengine = {:?}\nrecheck_seconds = 0\n",
            engine.display().to_string()
        ),
    )
    .unwrap();
    let wrong = documents::order(vec![json!({
        "name": "wrong", "kind": "terraform/workspace", "owner": "city",
        "spec": { "configuration": { "resource": { "local_file": { "x": { "filename": "/etc/motd" } } } } },
    })]);
    let wrong = world.file("wrong.yaml", &wrong.to_string());
    world
        .charter(&[&["plan", "-f", &wrong], &by[..]].concat())
        .exits(3)
        .says(&["the provider hashicorp/local is none of terraform.providers in charter.toml: add it to allow it"]);

    let _ledger = world.ledger();
    let _services: Vec<_> = ["city", "breeze"].map(|member| world.serve(member)).into();
    world.submit("city", CHANNEL, &order).exits(0);
    // What the one member's engine gives is in the other member's file, by way of the ledger.
    let path = world.member("breeze").join(format!("machine/{CHANNEL}/stations-at"));
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    until("the other member has it", || match text() {
        text if text.starts_with("station of ") => Ok(()),
        text => Err(format!("{text:?}")),
    });
    // What somebody has changed is healed, and stands in the history attribute by attribute.
    let state = world
        .member("city")
        .join("terraform")
        .join(format!("{CHANNEL}.stations/terraform.tfstate"));
    // The engine writes it in place: it may be a part of itself.
    let read = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&state).unwrap()).map_err(|error| error.to_string());
    let input = |state: &serde_json::Value| state["resources"][0]["instances"][0]["attributes"]["input"]["value"].clone();
    let before = until("its state is whole", || read().map(|state| input(&state)));
    until("it was changed by hand", || {
        let mut meddled = read()?;
        meddled["resources"][0]["instances"][0]["attributes"]["input"]["value"] = json!("meddled");
        meddled["serial"] = json!(meddled["serial"].as_u64().unwrap() + 1);
        std::fs::write(&state, meddled.to_string()).map_err(|error| error.to_string())
    });
    until("it is healed", || match input(&read()?) {
        healed if healed == before => Ok(()),
        other => Err(other.to_string()),
    });
    let history = world.store("city").git(&["log", "-p", &format!("actual/{CHANNEL}")]).exits(0);
    assert!(history.stdout.contains("/terraform_data.station/input"), "{}", history.stdout);
    // A change is planned by the engine before anybody submits it.
    let file = world.file("more.yaml", &documents::amendment(vec![stations("!")]).to_string());
    world
        .charter(&[&["plan", "-f", &file], &by[..]].concat())
        .exits(0)
        .says(&["/outputs/at", "1 to change"]);
}
