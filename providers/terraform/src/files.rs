//! Configurations in files: read from the member's folder, held to their digests, and understood as far as they are checked.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use providers::detached::NOTES;
use providers::digests::{self, is_plain};
use providers::refusal::{Refusal, wrong};

use crate::local::{APPLIED, LAID, PLANNED};
use crate::render::CONFIGURATION;

/// The files of a configuration, by their paths.
pub(crate) type Files = BTreeMap<String, String>;

/// Whether a name is one of Charter's own, or one that an engine reads beside what is checked.
fn is_taken(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    [CONFIGURATION, PLANNED, APPLIED, LAID].contains(&path)
        || NOTES.contains(&path)
        || ends(&[
            ".tfvars",
            ".tfvars.json",
            ".tofu",
            ".tofu.json",
            ".hcl",
            ".tfstate",
            ".tfplan",
            ".next",
        ])
        || ends(&["override.tf", "override.tf.json"])
}

/// Reads the files that an order names.
pub(crate) fn read(folder: Option<&Path>, wanted: &BTreeMap<String, String>) -> Result<Files, Refusal> {
    let files = digests::read("terraform.configurations", folder, wanted, is_taken)?;
    let text = |(path, bytes): (String, Vec<u8>)| match String::from_utf8(bytes) {
        Ok(text) => Ok((path, text)),
        Err(_) => Err(wrong(format!("files/{path} is no text"))),
    };
    files.into_iter().map(text).collect()
}

/// The folder of a path.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// What a file of this path says.
type Body<'a> = (&'a str, Map<String, Value>);

/// What each file says that is configuration, in Terraform's JSON syntax, with its path.
pub(crate) fn bodies(files: &Files) -> Result<Vec<Body<'_>>, Refusal> {
    let mut all = Vec::new();
    for (path, text) in files {
        let unread = |error: String| wrong(format!("files/{path} is no configuration: {error}"));
        let body: Value = if path.ends_with(".tf") {
            hcl::from_str(text).map_err(|error| unread(error.to_string()))?
        } else if path.ends_with(".tf.json") {
            serde_json::from_str(text).map_err(|error| unread(error.to_string()))?
        } else {
            continue;
        };
        match body {
            Value::Object(body) => all.push((path.as_str(), body)),
            _ => return Err(unread("it holds no blocks".to_owned())),
        }
    }
    match all.iter().any(|(path, _)| folder_of(path).is_empty()) || files.is_empty() {
        true => Ok(all),
        false => Err(wrong(
            "files: none of them is a configuration beside the folder's own name: *.tf or *.tf.json",
        )),
    }
}

/// Whether a path, as a file of a configuration says it, leads to another one that is ordered.
pub(crate) fn leads(files: &Files, from: &str, said: &str) -> bool {
    reached(from, said).is_some_and(|path| files.contains_key(&path))
}

/// Whether a module's source, as a file says it, is a folder with files that are ordered.
pub(crate) fn is_module(files: &Files, from: &str, source: &str) -> bool {
    source.starts_with("./") && reached(from, source).is_some_and(|folder| files.keys().any(|path| folder_of(path) == folder))
}

/// Where a path leads that is said in a file: never upwards.
fn reached(from: &str, said: &str) -> Option<String> {
    let said = said.strip_prefix("${path.module}/").unwrap_or(said);
    let said = said.strip_prefix("./").unwrap_or(said).trim_end_matches('/');
    let folder = folder_of(from);
    let path = if folder.is_empty() {
        said.to_owned()
    } else {
        format!("{folder}/{said}")
    };
    is_plain(&path).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use state::canonical::Digest;

    #[test]
    fn paths_lead_to_what_is_ordered_and_nowhere_else() {
        let files: Files = ["main.tf", "net/main.tf", "net/list.json"]
            .map(|path| (path.to_owned(), String::new()))
            .into();
        assert!(leads(&files, "main.tf", "net/list.json") && leads(&files, "net/main.tf", "${path.module}/list.json"));
        for bad in [
            "list.json",
            "../main.tf",
            "/etc/passwd",
            "net/../main.tf",
            "",
            "${path.root}/main.tf",
        ] {
            assert!(!leads(&files, "main.tf", bad), "{bad}");
        }
        assert!(is_module(&files, "main.tf", "./net") && is_module(&files, "main.tf", "./net/"));
        assert!(
            !is_module(&files, "main.tf", "../net") && !is_module(&files, "main.tf", "./other") && !is_module(&files, "main.tf", "net")
        );
    }

    #[test]
    fn what_an_engine_reads_unseen_is_no_file_of_an_orders() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("main.tf"), "output \"a\" { value = 1 }").unwrap();
        let digest = Digest::of(b"output \"a\" { value = 1 }").hex();
        let said = |folder: Option<&Path>, path: &str, digest: &str| match read(folder, &[(path.to_owned(), digest.to_owned())].into()) {
            Ok(files) => serde_json::to_string(&bodies(&files).unwrap()).unwrap(),
            Err(Refusal::Wrong(why) | Refusal::Denied(why)) => why,
        };
        let here = Some(folder.path());
        assert_eq!(
            said(here, "main.tf", &digest),
            json!([["main.tf", { "output": { "a": { "value": 1 } } }]]).to_string()
        );
        for bad in [
            "a.auto.tfvars",
            "x_override.tf",
            "override.tf",
            "a.tofu",
            "main.tf.json",
            "applied.kept",
            "laid.kept.next",
            "output",
            "run.input",
        ] {
            assert!(said(here, bad, &digest).contains("is a name that Charter writes"), "{bad}");
        }
    }
}
