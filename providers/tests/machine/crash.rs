//! Charter killed with SIGKILL at any moment of its work.

use std::process::Stdio;

use serde_json::json;

use super::*;

fn resources() -> Vec<Resource> {
    vec![
        resource("machine/directory", "data", json!({})),
        resource("machine/file", "rates", json!({ "content": "pm10: 4\n", "directory": "data" })),
        resource("machine/service", "air", json!({ "command": ["sleep", "600"], "port": "auto" })),
        resource(
            "machine/service",
            "water",
            json!({ "command": ["sleep", "600"], "env": { "A": "1" } }),
        ),
    ]
}

/// No test: the Charter that the test below kills.
#[tokio::test]
#[ignore = "it is the process that a test kills"]
async fn victim() {
    let Ok(home) = std::env::var("CRASH_HOME") else { return };
    let machine = Machine::new(config(Path::new(&home))).unwrap();
    loop {
        for resource in resources() {
            machine.apply(&scope(), &resource).await.unwrap();
        }
        for resource in resources().iter().rev() {
            while machine.delete(&scope(), &resource.kind, &resource.name, "").await.unwrap() != Deleted::Gone {
                pause().await;
            }
        }
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_converges_with_nothing_twice() {
    let bench = Bench::new();
    for round in 0..24_u64 {
        let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crash::victim"])
            .env("CRASH_HOME", bench.home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until(|| bench.record("data").exists()).await;
        tokio::time::sleep(Duration::from_millis(round * 7 % 90)).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        for resource in resources() {
            bench.settle(&resource).await;
        }
        for name in ["air", "water"] {
            assert_eq!(bench.leaders(name).len(), 1, "round {round}: {name}");
        }
        assert_eq!(std::fs::read(bench.root().join("ch-1/data/rates")).unwrap(), b"pm10: 4\n");
        if round % 2 == 0 {
            for resource in resources().iter().rev() {
                bench.vanish(resource).await;
            }
            assert!(labelled(&bench.root(), "").is_empty());
            assert_eq!(std::fs::read_dir(bench.root().join("ch-1")).unwrap().count(), 0);
            assert_eq!(std::fs::read_dir(bench.root().join(".charter/ch-1/city")).unwrap().count(), 0);
        }
    }
}
