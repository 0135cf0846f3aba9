//! The same graph, planned by `terraform` or `tofu`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::graph::Graph;
use crate::peak;

/// A folder in which the peer finds everything applied.
pub struct Peer {
    program: &'static str,
    version: String,
    folder: TempDir,
}

impl Peer {
    /// One for each of the two that is on the path.
    pub fn all(graph: Graph) -> Vec<Self> {
        let found = ["terraform", "tofu"].into_iter().filter_map(version);
        found.map(|(program, version)| Self::prepare(program, version, graph)).collect()
    }

    fn prepare(program: &'static str, version: String, graph: Graph) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), graph);
        let peer = Self { program, version, folder };
        assert_eq!(peer.run(&["init", "-input=false"]).0, Some(0), "{program} init");
        peer
    }

    /// What it says that it is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Plans: the time in milliseconds, and the peak of resident memory in KiB.
    pub fn plan(&self) -> (f64, u64) {
        let started = Instant::now();
        let (code, most) = self.run(&["plan", "-input=false", "-lock=false", "-detailed-exitcode"]);
        let took = started.elapsed().as_secs_f64() * 1000.0;
        assert_eq!(code, Some(0), "{} plan finds no change", self.program);
        (took, most)
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, u64) {
        let mut child = Command::new(self.program)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("CHECKPOINT_DISABLE", "1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let status = std::path::PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut most = 0;
        loop {
            most = most.max(peak(&status));
            match child.try_wait().unwrap() {
                Some(exit) => return (exit.code(), most),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

fn version(program: &'static str) -> Option<(&'static str, String)> {
    let output = Command::new(program).arg("version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some((program, text.lines().find(|line| line.contains(" v"))?.to_owned()))
}

/// Writes the graph as `terraform_data`, with the state in which it is applied.
fn write(folder: &Path, graph: Graph) {
    let mut wanted = serde_json::Map::new();
    let mut applied: Vec<Value> = Vec::new();
    for index in 0..graph.count {
        let name = graph.name(index);
        let below: Vec<String> = graph
            .below(index)
            .into_iter()
            .map(|below| format!("terraform_data.{}", graph.name(below)))
            .collect();
        wanted.insert(
            name.clone(),
            json!({ "input": format!("value {index}"), "depends_on": below.clone() }),
        );
        let value = json!({ "value": format!("value {index}"), "type": "string" });
        applied.push(json!({
            "mode": "managed",
            "type": "terraform_data",
            "name": name,
            "provider": "provider[\"terraform.io/builtin/terraform\"]",
            "instances": [{
                "schema_version": 0,
                "attributes": { "id": name, "input": value, "output": value, "triggers_replace": null },
                "dependencies": below,
            }],
        }));
    }
    let main = json!({ "resource": { "terraform_data": wanted } });
    let state = json!({
        "version": 4,
        "terraform_version": "1.5.0",
        "serial": 1,
        "lineage": "00000000-0000-0000-0000-000000000000",
        "outputs": {},
        "resources": applied,
        "check_results": null,
    });
    std::fs::write(folder.join("main.tf.json"), main.to_string()).unwrap();
    std::fs::write(folder.join("terraform.tfstate"), state.to_string()).unwrap();
}
