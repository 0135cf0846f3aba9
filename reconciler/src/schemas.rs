//! The published JSON schemas, as they stand in `docs/schemas/`: of documents, and of what resources of each kind ask for.

use std::collections::BTreeMap;

use ansible::Ansible;
use kubernetes::Kubernetes;
use libvirt::Libvirt;
use providers::machine::Machine;
use serde_json::Value;
use state::resource::Resource;
use terraform::Terraform;

use crate::document::{self, DocumentKind};
use crate::{fabric, terms};

/// All of them, by their names: a document's, or a kind's. A kind's is that of a resource's `spec`.
pub fn all() -> BTreeMap<String, Value> {
    let documents = DocumentKind::ALL.map(|kind| (kind.schema_name().to_owned(), kind.schema().to_value()));
    let more = [
        (fabric::document::SCHEMA_NAME.to_owned(), fabric::document::schema().to_value()),
        (terms::SCHEMA_NAME.to_owned(), terms::schema().to_value()),
    ];
    documents.into_iter().chain(more).chain(kinds()).collect()
}

/// Those of kinds.
fn kinds() -> BTreeMap<String, Value> {
    let all = [
        Machine::schemas(),
        Kubernetes::schemas(),
        Libvirt::schemas(),
        Terraform::schemas(),
        Ansible::schemas(),
    ];
    let named = all.into_iter().flatten().map(|(kind, mut schema)| {
        schema["title"] = Value::String(kind.to_string());
        (kind.to_string(), schema)
    });
    named.collect()
}

/// The resources of a document whose specs don't fit what their kinds ask for, each with why. Kinds that nobody here knows are passed
/// over. It is no judgement: that is their owners', whose Charters may be of other versions.
pub fn misfits<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Vec<String> {
    let kinds = kinds();
    let misfits = resources.into_iter().filter_map(|resource| {
        let schema = kinds.get(resource.kind.as_str())?;
        // A published schema can be used.
        let misfits = document::misfits(schema, &resource.spec.to_value())
            .ok()
            .filter(|all| !all.is_empty())?;
        let Resource { name, kind, owner, .. } = resource;
        Some(format!(
            "{name} does not fit 'charter schema {kind}', and {owner}'s Charter will refuse it: {}",
            misfits.join("; ")
        ))
    });
    misfits.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::document::Document;

    fn files(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files(&path, found),
                false => assert!(found.insert(path)),
            }
        }
    }

    #[test]
    fn what_examples_order_fits() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/smart-city");
        let mut all = BTreeSet::new();
        files(&folder, &mut all);
        let mut kinds = BTreeSet::new();
        for path in all.iter().filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
            if let Ok(Document::Order(resources) | Document::Amendment(resources)) = Document::read(path) {
                assert_eq!(misfits(&resources), Vec::<String>::new(), "{}", path.display());
                kinds.extend(resources.iter().map(|resource| resource.kind.to_string()));
            }
        }
        for kind in [
            "ansible/playbook",
            "kubernetes/manifest",
            "libvirt/domain",
            "machine/service",
            "terraform/workspace",
        ] {
            assert!(kinds.contains(kind), "{kind}: {kinds:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let of = |kind: &str, spec: Value| -> Resource {
            serde_json::from_value(serde_json::json!({ "name": "a", "kind": kind, "owner": "city", "spec": spec })).unwrap()
        };
        let domain = of(
            "libvirt/domain",
            serde_json::json!({ "cpus": 1, "memory_mb": 64, "disks": [{ "volume": true }] }),
        );
        let told = misfits(&[domain, of("other/thing", serde_json::json!({ "x": 1 }))]).join("\n");
        for part in [
            "a does not fit 'charter schema libvirt/domain', and city's Charter will refuse it",
            "memory_mb",
            "memory_mib",
            "/disks/0/volume: ",
        ] {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("other/thing"), "{told}");
    }

    #[test]
    fn the_published_ones_are_these() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
        let mut published = BTreeSet::new();
        files(&folder, &mut published);
        for (name, schema) in all() {
            let path = folder.join(format!("{name}.json"));
            assert!(published.remove(&path), "put 'charter schema {name}' into docs/schemas/{name}.json");
            let text = std::fs::read_to_string(&path).unwrap();
            let stands: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(stands, schema, "put 'charter schema {name}' into docs/schemas/{name}.json");
            assert!(jsonschema::meta::is_valid(&schema), "{name} is no schema");
        }
        assert_eq!(published, BTreeSet::new(), "no schemas of these names");
    }
}
