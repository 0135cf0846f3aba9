//! The real command line against Charter's server: a configuration with a `cloud` block.

use std::process::Command;

use serde_json::{Value, json};

use crate::hosted::Hosted;
use crate::stage::engine;

const CONFIGURATION: &str = r#"
terraform {
  cloud {
    hostname     = "tfc.test"
    organization = "acme"
    workspaces {
      name = "by-hand"
    }
  }
}
variable "size" {
  default = "small"
}
resource "terraform_data" "station" {
  input = var.size
}
output "size" {
  value = terraform_data.station.output
}
output "notes" {
  value = file("run.json")
}
"#;

/// A working directory of somebody's.
struct Desk<'a> {
    stage: &'a Hosted,
    folder: std::path::PathBuf,
}

impl<'a> Desk<'a> {
    fn new(stage: &'a Hosted) -> Self {
        let folder = stage.path("desk");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("main.tf"), CONFIGURATION).unwrap();
        // The server keeps a file of this name for itself.
        std::fs::write(folder.join("run.json"), "somebody's own").unwrap();
        let services = json!({ "tfe.v2": format!("{}/api/v2/", stage.direct()) });
        let services: Vec<String> = services
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, to)| format!("\"{name}\" = {to}"))
            .collect();
        let config = format!(
            "disable_checkpoint = true\nhost \"tfc.test\" {{\n  services = {{ {} }}\n}}\ncredentials \"tfc.test\" {{\n  token = \"{}\"\n}}\n",
            services.join(", "),
            stage.token()
        );
        std::fs::write(folder.join("cli.tfrc"), config).unwrap();
        Self { stage, folder }
    }

    /// Runs it; its exit code, and all that it says.
    fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let done = Command::new(engine().unwrap())
            .args(words)
            .current_dir(&self.folder)
            .env("TF_CLI_CONFIG_FILE", self.folder.join("cli.tfrc"))
            .env("TF_IN_AUTOMATION", "1")
            .env("HOME", &self.folder)
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    #[track_caller]
    fn says(&self, words: &[&str], text: &str) {
        let (code, said) = self.run(words);
        assert!(code == Some(0) && said.contains(text), "{words:?}: {code:?} {said}");
    }
}

#[test]
fn the_command_line_works_with_the_server() {
    let Some(stage) = Hosted::new(&json!({})) else { return };
    let desk = Desk::new(&stage);
    desk.says(&["init", "-input=false", "-no-color"], "successfully initialized");
    desk.says(&["plan", "-input=false", "-no-color"], "1 to add, 0 to change, 0 to destroy");
    desk.says(
        &["apply", "-input=false", "-no-color", "-auto-approve"],
        "1 added, 0 changed, 0 destroyed",
    );
    desk.says(&["output", "-raw", "size"], "small");
    desk.says(&["output", "-raw", "notes"], "somebody's own");
    desk.says(
        &["plan", "-input=false", "-no-color", "-var=size=large", "-out=kept"],
        "0 to add, 1 to change, 0 to destroy",
    );
    desk.says(&["apply", "-input=false", "-no-color", "kept"], "0 added, 1 changed, 0 destroyed");
    desk.says(&["output", "-raw", "size"], "large");
    desk.says(
        &["state", "mv", "terraform_data.station", "terraform_data.tower"],
        "Successfully moved 1 object",
    );
    desk.says(&["state", "list"], "terraform_data.tower");
    // Somebody else holds the workspace's lock: nobody writes its state.
    let workspace = stage
        .runtime
        .block_on(stage.did("GET", "/organizations/acme/workspaces/by-hand", &Value::Null));
    let id = workspace["data"]["id"].as_str().unwrap().to_owned();
    let lock = format!("/workspaces/{id}/actions/lock");
    stage.runtime.block_on(stage.did("POST", &lock, &json!({ "reason": "mine" })));
    let (code, said) = desk.run(&["state", "mv", "terraform_data.tower", "terraform_data.other"]);
    assert!(code == Some(1) && said.contains("lock"), "{code:?} {said}");
    let unlock = format!("/workspaces/{id}/actions/force-unlock");
    stage.runtime.block_on(stage.did("POST", &unlock, &json!({})));
    desk.says(&["destroy", "-input=false", "-no-color", "-auto-approve"], "1 destroyed");
    // A configuration that is none is told as such, and nothing stays locked.
    std::fs::write(desk.folder.join("broken.tf"), "output \"x\" { value = nothing.here }").unwrap();
    let (code, said) = desk.run(&["plan", "-input=false", "-no-color"]);
    assert!(
        code == Some(1) && said.contains("Reference to undeclared resource"),
        "{code:?} {said}"
    );
    let workspace = desk
        .stage
        .runtime
        .block_on(stage.did("GET", &format!("/workspaces/{id}"), &Value::Null));
    assert_eq!(workspace["data"]["attributes"]["locked"], false);
}
