//! Configurations in files of the member's, named by their digests; and orders that ask for an engine.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use state::canonical::Digest;
use state::observation::Observation;
use state::resource::Resource;

use crate::hosted::Hosted;
use crate::stage::{Stage, engine, resource};
use tests::passes::Acting;

const MAIN: &str = r#"
variable "place" { type = string }
variable "token" {
  type      = string
  sensitive = true
}
module "mast" {
  source = "./mast"
  list   = jsondecode(file("${path.module}/list.json"))
}
resource "terraform_data" "station" {
  # A comment with file("/etc/passwd") is a comment.
  input = "${var.place}: ${join(", ", module.mast.names)}"
}
output "said" { value = terraform_data.station.output }
output "long" { value = nonsensitive(length(var.token)) }
"#;

const MAST: &str = r#"
variable "list" { type = list(string) }
output "names" { value = [for one in var.list : templatefile("name.tftpl", { one = one })] }
"#;

/// Writes files, and orders them.
fn order(folder: &Path, files: &[(&str, &str)]) -> Resource {
    let mut named = serde_json::Map::new();
    for (path, text) in files {
        let at = folder.join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, text).unwrap();
        named.insert((*path).to_owned(), json!(Digest::of(text.as_bytes()).hex()));
    }
    let variables = json!({ "place": "${not} evaluated", "token": { "$secret": "token" } });
    resource("files", &json!({ "files": named, "variables": variables }))
}

/// A workspace of several files is made; other files are another one, and what is left out is gone.
fn makes(stage: &impl Acting, folder: &Path) {
    // A module's own files are named from the folder that the engine works in.
    let mast = MAST.replace("\"name.tftpl\"", "\"${path.module}/name.tftpl\"");
    let files = [
        ("main.tf", MAIN),
        ("list.json", "[\"a\", \"b\"]"),
        ("mast/main.tf", mast.as_str()),
        ("mast/name.tftpl", "<${one}>"),
    ];
    let first = order(folder, &files);
    let outputs = stage.make(&first);
    assert_eq!(
        serde_json::to_value(&outputs).unwrap(),
        json!({ "said": "${not} evaluated: <a>, <b>", "long": 6 })
    );
    // Somebody has changed a file: what is ordered is not there any more.
    std::fs::write(folder.join("list.json"), "[\"c\"]").unwrap();
    match stage.see(&first) {
        Observation::Unknown { why } => assert!(why.contains("files/list.json: its SHA-256 is"), "{why}"),
        other => panic!("{other:?}"),
    }
    let simple = "variable \"place\" {}\nvariable \"token\" { sensitive = true }\noutput \"said\" { value = var.place }\n";
    let second = order(folder, &[("main.tf", simple)]);
    assert_eq!(stage.drift(&second)[0], "/terraform_data.station");
    let outputs = stage.make(&second);
    assert_eq!(serde_json::to_value(&outputs).unwrap(), json!({ "said": "${not} evaluated" }));
    tests::wait::until("it is gone", || match stage.delete(&second) {
        Ok(providers::Deleted::Gone) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn settings(folder: &Path) -> Value {
    json!({ "configurations": folder, "recheck_seconds": 0 })
}

#[test]
fn an_engine_here_takes_files() {
    let own = tempfile::tempdir().unwrap();
    let Some(stage) = Stage::new(&settings(own.path())) else { return };
    std::fs::create_dir(stage.path("secrets")).unwrap();
    std::fs::write(stage.path("secrets/token"), "secret").unwrap();
    std::fs::set_permissions(stage.path("secrets/token"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    makes(&stage, own.path());
}

#[test]
fn a_server_takes_files() {
    let own = tempfile::tempdir().unwrap();
    let Some(stage) = Hosted::new(&settings(own.path())) else { return };
    stage.secret("token", "secret");
    makes(&stage, own.path());
}

/// What the engine under test is.
fn version() -> (String, String) {
    let said = Command::new(engine().unwrap()).arg("version").output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let line = said
        .lines()
        .find(|line| line.starts_with("OpenTofu v") || line.starts_with("Terraform v"));
    let (name, version) = line.unwrap().split_once(" v").unwrap();
    let name = if name == "OpenTofu" { "tofu" } else { "terraform" };
    (name.to_owned(), version.to_owned())
}

#[test]
fn an_order_gets_the_engine_that_it_asks_for_or_none() {
    let Some(stage) = Stage::new(&json!({})) else { return };
    let (name, version) = version();
    let with = |engine: &Value| {
        let output = json!({ "output": { "x": { "value": 1 } } });
        resource("engine", &json!({ "configuration": output, "engine": engine }))
    };
    let refused = |why: Observation| match why {
        Observation::Unknown { why } => why,
        other => panic!("{other:?}"),
    };
    let other = if name == "tofu" { "terraform" } else { "tofu" };
    for wrong in [
        json!({ "name": other }),
        json!({ "version": "0.1.2" }),
        json!({ "name": name, "version": "0.1.2" }),
    ] {
        let why = refused(stage.see(&with(&wrong)));
        assert!(
            why.contains("it has to be made by ") && why.contains(&format!(" {version}")),
            "{why}"
        );
    }
    stage.make(&with(&json!({ "name": name, "version": version })));

    let Some(stage) = Hosted::new(&json!({})) else { return };
    let why = refused(stage.see(&with(&json!({ "name": name }))));
    assert!(why.contains("name its version only"), "{why}");
    let refused = stage.apply(&with(&json!({ "version": "0.1.2" }))).unwrap_err();
    assert!(
        refused.contains("version 0.1.2 is asked for, and this server's engine is "),
        "{refused}"
    );
    stage.make(&with(&json!({ "version": version })));
}
