//! The plug is pulled: a server that is killed while an engine works for it, and another one in its folder.

use providers::{Provider, Wanted};
use serde_json::{Value, json};
use terraform::{Terraform, TerraformConfig};
use tests::passes::{runtime, scope};
use tests::tfc::Served;
use tests::wait::until;

use crate::stage::{engine, resource};

#[test]
fn what_a_killed_server_had_begun_is_neither_lost_nor_made_twice() {
    let Some(engine) = engine() else { return };
    let folder = tempfile::Builder::new().prefix("charter-tfc-").tempdir().unwrap();
    let kept = folder.path().join("server");
    let served = Served::start(&kept, &engine, "127.0.0.1:0");
    let listens = served.address().to_owned();
    let address = format!("http://{listens}");
    let secrets = folder.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::copy(kept.join("token"), secrets.join("tfc")).unwrap();
    let config: TerraformConfig = serde_json::from_value(json!({
        "cloud": { "address": address, "organization": "acme", "token": "tfc", "timeout_seconds": 5 },
        "folder": folder.path().join("work"), "secrets": secrets, "provisioners": true,
    }))
    .unwrap();
    let provider = Terraform::new(config).unwrap();
    let runtime = runtime();
    let made = folder.path().join("made");
    let command = format!("echo begun >> {0}; sleep 2; echo done >> {0}", made.display());
    let thing = json!({ "input": 1, "provisioner": { "local-exec": { "command": command } } });
    let order = resource(
        "net",
        &json!({ "configuration": { "resource": { "terraform_data": { "slow": thing } } } }),
    );
    let said = || std::fs::read_to_string(&made).unwrap_or_default();
    std::thread::scope(|threads| {
        let applying = threads.spawn(|| runtime.block_on(provider.apply(&scope(), &order)));
        until("the engine works", || match said().as_str() {
            "begun\n" => Ok(()),
            other => Err(other.to_owned()),
        });
        drop(served);
        let cut = applying.join().unwrap();
        assert!(cut.is_err(), "{cut:?}");
    });
    // The engine goes on without a server; the next one keeps what it has made.
    let again = Served::start(&kept, &engine, &listens);
    assert_eq!(again.address(), listens);
    until("it is in sync", || {
        let wanted = Wanted::of(&order);
        let seen = runtime.block_on(provider.observe(&scope(), &[wanted]));
        let seen = &seen.resources[&order.name];
        match seen.in_sync() {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    });
    assert_eq!(said(), "begun\ndone\n", "it was made once");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = std::fs::read_to_string(kept.join("token")).unwrap();
    let ask = |path: &str| -> Value {
        let request = client.get(format!("{address}/api/v2{path}")).bearer_auth(&token);
        let text = runtime.block_on(async { request.send().await.unwrap().text().await.unwrap() });
        serde_json::from_str(&text).unwrap()
    };
    let id = ask("/organizations/acme/workspaces/air_net")["data"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let runs = ask(&format!("/workspaces/{id}/runs"));
    let statuses: Vec<&str> = runs["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["attributes"]["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["planned_and_finished", "errored"]);
}
