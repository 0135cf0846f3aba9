//! Directories and files.

use std::os::unix::fs::{PermissionsExt, symlink};

use providers::Invalid;
use serde_json::json;
use state::errors::chain;

use super::*;

#[tokio::test]
async fn a_file_lies_in_a_directory_that_another_resource_made() {
    let bench = Bench::new();
    let data = resource("machine/directory", "data", json!({}));
    let Applied::Done { outputs, external } = bench.apply(&data).await.unwrap() else {
        panic!()
    };
    assert_eq!(external, "ch-1/data");
    let path = outputs["path"].as_str().unwrap().to_owned();
    for directory in [path.as_str(), "data"] {
        let file = resource(
            "machine/file",
            "rates",
            json!({ "content": "pm10: 4\n", "directory": directory, "file_name": "rates.txt", "mode": "0600" }),
        );
        bench.settle(&file).await;
        let place = bench.root().join("ch-1/data/rates.txt");
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "pm10: 4\n");
        assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bench.delete(&data).await.unwrap(), Deleted::Pending { why } if why.contains("ch-1/rates")));
        bench.vanish(&file).await;
    }
    bench.vanish(&data).await;
    assert!(!bench.root().join("ch-1/data").exists());
}

#[tokio::test]
async fn a_file_moves_when_its_directory_is_amended() {
    let bench = Bench::new();
    for name in ["one", "two"] {
        bench.settle(&resource("machine/directory", name, json!({}))).await;
    }
    let file = |directory: &str| resource("machine/file", "note", json!({ "content": "x", "directory": directory }));
    bench.settle(&file("one")).await;
    assert_eq!(paths(&bench.see(&file("two")).await), ["/directory"]);
    bench.settle(&file("two")).await;
    assert!(!bench.root().join("ch-1/one/note").exists());
    assert!(bench.root().join("ch-1/two/note").exists());
}

#[tokio::test]
async fn a_directory_with_somebodys_file_is_not_deleted() {
    let bench = Bench::new();
    let data = resource("machine/directory", "data", json!({}));
    bench.settle(&data).await;
    std::fs::write(bench.root().join("ch-1/data/measured.csv"), "1").unwrap();
    let error = chain(&bench.delete(&data).await.unwrap_err());
    assert!(error.contains("measured.csv") && error.contains("did not make"), "{error}");
    assert!(bench.root().join("ch-1/data/measured.csv").exists());
    assert!(bench.see(&data).await.in_sync());
}

#[tokio::test]
async fn no_path_leads_out() {
    let bench = Bench::new();
    let outside = bench.home.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    for directory in [
        "..",
        "../outside",
        "a/../../outside",
        outside.to_str().unwrap(),
        "/etc",
        ".charter/ch-1/city",
        "",
    ] {
        let file = resource("machine/file", "evil", json!({ "content": "x", "directory": directory }));
        let refused = bench.machine.validate(&file);
        assert!(matches!(refused, Err(Invalid::Spec { .. })), "{directory}: {refused:?}");
        assert!(matches!(bench.apply(&file).await, Err(ProviderError::Invalid(_))), "{directory}");
    }
    for absolute in ["ch-2/x", ".charter/ch-1", "ch-1/../ch-2", "ch-1/../../outside"] {
        let directory = bench.root().join(absolute);
        let file = resource("machine/file", "evil", json!({ "content": "x", "directory": directory }));
        assert!(matches!(bench.apply(&file).await, Err(ProviderError::Invalid(_))), "{absolute}");
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn a_symbolic_link_leads_nowhere() {
    let bench = Bench::new();
    let outside = bench.home.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    bench.settle(&resource("machine/directory", "data", json!({}))).await;
    std::fs::remove_dir(bench.root().join("ch-1/data")).unwrap();
    symlink(&outside, bench.root().join("ch-1/data")).unwrap();
    let file = resource("machine/file", "evil", json!({ "content": "x", "directory": "data" }));
    let error = chain(&bench.apply(&file).await.unwrap_err());
    assert!(error.contains("symbolic link"), "{error}");
    assert!(matches!(bench.see(&file).await, Observation::Unknown { why } if why.contains("symbolic link")));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // The directory itself: the link is seen as drift, and neither followed nor removed.
    let data = resource("machine/directory", "data", json!({}));
    assert_eq!(paths(&bench.see(&data).await), ["/type"]);
    bench.apply(&data).await.unwrap_err();
    bench.vanish(&data).await;
    assert!(bench.root().join("ch-1/data").symlink_metadata().is_ok() && outside.is_dir());
}

#[tokio::test]
async fn drift_names_the_field_and_not_the_content() {
    let bench = Bench::new();
    let file = resource("machine/file", "note", json!({ "content": "canary-before" }));
    bench.settle(&file).await;
    let place = bench.root().join("ch-1/note");
    std::fs::write(&place, "canary-after").unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o666)).unwrap();
    let seen = bench.see(&file).await;
    assert_eq!(paths(&seen), ["/content", "/mode"]);
    assert!(!format!("{seen:?}").contains("canary"));
    bench.settle(&file).await;
    std::fs::remove_file(&place).unwrap();
    assert_eq!(bench.see(&file).await, Observation::Absent);
}

#[tokio::test]
async fn what_belongs_to_another_resource_is_not_adopted() {
    let bench = Bench::new();
    bench.settle(&resource("machine/file", "first", json!({ "content": "1" }))).await;
    bench.settle(&resource("machine/directory", "data", json!({}))).await;
    bench
        .settle(&resource(
            "machine/file",
            "a",
            json!({ "content": "1", "directory": "data", "file_name": "f" }),
        ))
        .await;
    let mut thief = resource(
        "machine/file",
        "b",
        json!({ "content": "2", "directory": "data", "file_name": "f" }),
    );
    assert!(matches!(bench.apply(&thief).await, Err(ProviderError::NotOwned { .. })));
    thief.adopt = true;
    let error = chain(&bench.apply(&thief).await.unwrap_err());
    assert!(error.contains("belongs to ch-1/a"), "{error}");
}

#[tokio::test]
async fn a_machine_without_its_root_knows_nothing() {
    let home = tempfile::tempdir().unwrap();
    let machine = Machine::new(config(home.path())).unwrap();
    let bench = Bench { home, machine };
    let file = resource("machine/file", "note", json!({ "content": "x" }));
    assert!(matches!(bench.see(&file).await, Observation::Unknown { why } if why.contains("[machine]")));
    assert!(bench.apply(&file).await.is_err());
    // An empty folder is where a disk should be mounted.
    std::fs::create_dir(bench.root()).unwrap();
    assert!(matches!(bench.see(&file).await, Observation::Unknown { .. }));
    assert!(bench.apply(&file).await.is_err() && bench.delete(&file).await.is_err());
    assert_eq!(std::fs::read_dir(bench.root()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_damaged_record_is_unknown() {
    let bench = Bench::new();
    let file = resource("machine/file", "note", json!({ "content": "x" }));
    bench.settle(&file).await;
    std::fs::write(bench.record("note"), "{\"format\": 1").unwrap();
    assert!(matches!(bench.see(&file).await, Observation::Unknown { why } if why.contains("note.json")));
    assert!(bench.delete(&file).await.is_err());
    assert!(bench.root().join("ch-1/note").exists());
}

#[tokio::test]
async fn a_kind_is_not_changed_in_place() {
    let bench = Bench::new();
    bench.settle(&resource("machine/file", "thing", json!({ "content": "x" }))).await;
    let directory = resource("machine/directory", "thing", json!({}));
    let seen = bench.see(&directory).await;
    assert_eq!(paths(&seen), ["/kind"]);
    assert!(matches!(
        seen,
        Observation::Present {
            replace: Some(_),
            owned: true,
            ..
        }
    ));
    bench.apply(&directory).await.unwrap_err();
    bench.vanish(&directory).await;
    bench.settle(&directory).await;
}

#[test]
fn a_script_means_what_the_order_says() {
    let bench = Bench::new();
    let evil = "it's $HOME `id` $(id) \\ \"q\"\n'; rm -rf / #";
    let file = resource("machine/file", "note", json!({ "content": evil, "mode": "0600" }));
    let scripts = bench.machine.render(&scope(), &file).unwrap();
    std::fs::create_dir_all(bench.root().join("ch-1")).unwrap();
    let script = String::from_utf8(scripts[0].bytes.clone()).unwrap();
    let status = std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(&script)
        .env("CHARTER_ROOT", bench.root())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read_to_string(bench.root().join("ch-1/note")).unwrap(), evil);
    let whole = bench.root().display().to_string();
    assert!(!script.contains(&whole), "{script}");
}

#[test]
fn a_script_names_references_and_secrets() {
    let bench = Bench::new();
    let service = resource(
        "machine/service",
        "air",
        json!({
            "command": ["sh", "-c", "echo $1", { "$ref": "feed.outputs.address" }],
            "env": { "FEED": { "$ref": "feed.outputs.address" }, "TOKEN": { "$secret": "token" } },
            "directory": { "$ref": "data.outputs.path" },
            "port": "auto"
        }),
    );
    let scripts = bench.machine.render(&scope(), &service).unwrap();
    insta::assert_snapshot!(String::from_utf8(scripts[0].bytes.clone()).unwrap(), @r#"
    #!/bin/sh
    # machine/service air of city on ch-1
    set -eu
    cd -- "${CHARTER_ROOT:?the root of the machine}"
    : "${ref_1:?data.outputs.path}"
    : "${ref_2:?feed.outputs.address}"
    log="$CHARTER_ROOT"/'.charter/ch-1/city/air.log'
    cd -- "${ref_1}"
    exec env -i \
      PATH='/usr/local/bin:/usr/bin:/bin' \
      CHARTER_ROOT="$CHARTER_ROOT" \
      CHARTER_OWNER='ch-1/city/air' \
      PORT="${PORT:?a free port}" \
      FEED="${ref_2}" \
      TOKEN="$(cat -- "${CHARTER_SECRETS:?}"/'token')" \
      setsid \
      '/bin/sh' \
      '-c' \
      'echo $1' \
      "${ref_2}" \
      </dev/null >>"$log" 2>&1
    "#);
}
