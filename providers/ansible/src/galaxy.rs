//! Roles and collections of a Galaxy server, each in its exact version, installed beside a playbook once for each change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use state::canonical::{self, Digest};

use providers::detached::{self, Run};

use crate::config::AnsibleConfig;
use crate::events::line;
use crate::render::{Field, requirements};
use crate::run::{environment, remove};
use crate::spec::PlaybookSpec;
use crate::{Hindrance, Site};

/// Where they are, in a working directory.
pub(crate) const FOLDER: &str = "galaxy";
/// What they are installed by.
const REQUIREMENTS: &str = "galaxy/requirements.yml";
/// The most of what it complains of that is told.
const MAX_WORDS: usize = 500;

/// What has to be installed.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    requirements: Value,
    digest: Digest,
    roles: BTreeMap<String, String>,
    collections: BTreeMap<String, String>,
}

impl Wanted {
    /// What an order names; none: nothing.
    pub(crate) fn of(config: &AnsibleConfig, spec: &PlaybookSpec) -> Result<Option<Self>, Hindrance> {
        if spec.roles.is_empty() && spec.collections.is_empty() {
            return Ok(None);
        }
        let all = requirements(spec, |field, name, version| match (&config.packages, field) {
            (None, _) => json!({ "name": name }),
            (Some(folder), Field::Roles) => json!({ "src": folder.join(format!("{name}-{version}.tar.gz")), "name": name }),
            (Some(folder), Field::Collections) => {
                let package = format!("{}-{version}.tar.gz", name.replace('.', "-"));
                json!({ "name": folder.join(package), "type": "file" })
            }
        });
        Ok(Some(Self {
            digest: canonical::digest(&all).map_err(|error| Hindrance::Invalid(error.to_string()))?,
            requirements: all,
            roles: spec.roles.clone(),
            collections: spec.collections.clone(),
        }))
    }
}

/// Installs what isn't yet.
pub(crate) async fn install(site: &Site, external: &str, folder: &Path, wanted: &Wanted) -> Result<(), Hindrance> {
    let installed = site.records.get(external)?.and_then(|record| record.installed);
    if installed == Some(wanted.digest) && folder.join(REQUIREMENTS).exists() {
        return Ok(());
    }
    remove(&folder.join(FOLDER))?;
    fs::create_dir_all(folder.join(FOLDER))?;
    fs::write(folder.join(REQUIREMENTS), format!("{:#}\n", wanted.requirements))?;
    let program = site.config.playbook.with_file_name("ansible-galaxy");
    let environment = environment(site, folder);
    for (field, all) in [("role", &wanted.roles), ("collection", &wanted.collections)] {
        if all.is_empty() {
            continue;
        }
        let place = format!("{FOLDER}/{field}s");
        let arguments = [field, "install", "-r", REQUIREMENTS, "-p", &place, "--force"];
        let arguments: &[&str] = match field {
            // What they need is named in the order, in its exact version.
            "collection" => &[&arguments[..], &["--no-deps"]].concat(),
            _ => &arguments,
        };
        let what = format!("ansible-galaxy {field} install");
        let ended = detached::run(&Run {
            program: &program,
            folder,
            notes: folder,
            what: &what,
            arguments,
            environment: &environment,
            deadline: site.config.deadline(),
            log: None,
        })
        .await?;
        if ended.code != Some(0) {
            let said = [ended.complaints, String::from_utf8_lossy(&ended.output).into_owned()].join(" ");
            return Err(Hindrance::Galaxy(line(&said, MAX_WORDS)));
        }
    }
    verify(folder, wanted)?;
    if let Some(mut record) = site.records.get(external)? {
        record.installed = Some(wanted.digest);
        site.records.put(external, &record)?;
    }
    Ok(())
}

/// What was installed is what was named, whatever its package was called.
fn verify(folder: &Path, wanted: &Wanted) -> Result<(), Hindrance> {
    for (name, version) in &wanted.collections {
        let path = folder
            .join(FOLDER)
            .join("collections/ansible_collections")
            .join(name.replace('.', "/"))
            .join("MANIFEST.json");
        let manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap_or_default()).unwrap_or_default();
        if manifest["collection_info"]["version"] != json!(version) {
            return Err(Hindrance::Galaxy(format!(
                "the collection {name} came in another version than {version}: {}",
                manifest["collection_info"]["version"]
            )));
        }
    }
    match wanted
        .roles
        .keys()
        .find(|name| !folder.join(FOLDER).join("roles").join(name).is_dir())
    {
        Some(name) => Err(Hindrance::Galaxy(format!("the role {name} was not installed"))),
        None => Ok(()),
    }
}
