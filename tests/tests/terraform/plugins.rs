//! Real providers: one of the tests' own whose things anybody can change, and one of the registry's, from a mirror.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use state::observation::Observation;
use state::resource::Resource;

use crate::hosted::Hosted;
use crate::stage::{Stage, resource};
use tests::passes::Acting;

/// The folder of providers; none, and one line, where there is none.
fn mirror() -> Option<PathBuf> {
    let named = std::env::var_os("TERRAFORM_MIRROR").map(PathBuf::from);
    if named.is_none() {
        eprintln!("missing: TERRAFORM_MIRROR, which tests/run terraform sets; nothing was tried with providers");
    }
    named
}

const FILE: &str = "charter.test/tests/file";

/// Two files, the second of them with something that is not shown, and the time when they were made.
fn files(folder: &Path, text: &str) -> Resource {
    let file = |name: &str, text: &str| json!({ "path": folder.join(name), "content": text });
    let mut second = file("second", "same");
    second["secret"] = json!(format!("hidden-{text}"));
    let configuration = json!({
        "terraform": { "required_providers": {
            "file": { "source": FILE, "version": "1.0.0" }, "time": { "source": "hashicorp/time", "version": "0.14.2" },
        } },
        "resource": {
            "file_text": { "first": file("first", text), "second": second },
            "time_static": { "made": { "rfc3339": "2026-01-01T00:00:00Z" } },
        },
        "output": { "year": { "value": "${time_static.made.year}" } },
    });
    resource("files", &json!({ "configuration": configuration }))
}

/// What anybody does to files behind an engine's back is seen attribute by attribute, and undone.
fn heals(stage: &impl Acting, folder: &Path) {
    let order = files(folder, "a text");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let outputs = stage.make(&order);
    assert_eq!(serde_json::to_value(&outputs).unwrap(), json!({ "year": 2026 }));
    assert_eq!((read("first"), read("second")), ("a text".to_owned(), "same".to_owned()));
    std::fs::write(folder.join("first"), "scribbled").unwrap();
    match stage.see(&order) {
        Observation::Present { drift, .. } => {
            let seen: Vec<(&str, Option<&Value>, Option<&Value>)> = drift
                .iter()
                .map(|field| (field.path.as_str(), field.wanted.as_ref(), field.found.as_ref()))
                .collect();
            let (wanted, found) = (json!("a text"), json!("scribbled"));
            assert_eq!(seen, [("/file_text.first/content", Some(&wanted), Some(&found))]);
        }
        other => panic!("{other:?}"),
    }
    stage.make(&order);
    assert_eq!(read("first"), "a text");
    std::fs::remove_file(folder.join("second")).unwrap();
    assert_eq!(stage.drift(&order), ["/file_text.second"]);
    stage.make(&order);
    assert_eq!(read("second"), "same");
    // What a provider says is sensitive is not told, only that it differs.
    let other = files(folder, "another");
    let seen = format!("{:?}", stage.see(&other));
    assert!(seen.contains("/file_text.second/secret") && !seen.contains("hidden-"), "{seen}");
    stage.make(&other);
    tests::wait::until("both are gone", || match stage.delete(&other) {
        Ok(providers::Deleted::Gone) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(!folder.join("first").exists() && !folder.join("second").exists());
}

#[test]
fn an_engine_here_heals_what_providers_made() {
    let Some(mirror) = mirror() else { return };
    let more = json!({ "mirror": mirror, "providers": [FILE, "hashicorp/time"], "recheck_seconds": 0 });
    let Some(stage) = Stage::new(&more) else { return };
    let folder = stage.path("made");
    std::fs::create_dir(&folder).unwrap();
    heals(&stage, &folder);
}

#[test]
fn a_server_heals_what_providers_made() {
    let Some(mirror) = mirror() else { return };
    let more = json!({ "providers": [FILE, "hashicorp/time"], "recheck_seconds": 0 });
    let Some(stage) = Hosted::with(Some(mirror), &more) else { return };
    let folder = stage.path("made");
    std::fs::create_dir(&folder).unwrap();
    heals(&stage, &folder);
}
