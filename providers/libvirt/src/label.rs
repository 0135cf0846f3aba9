//! Whose something is. Domains and networks carry it in their metadata; for pools and volumes, where the daemon keeps none, it is
//! remembered beside Charter, written before anything is made.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use state::ids::{Channel, Kind, MemberId, ResourceName};
use state::resource::{OnRetire, Resource};

use providers::Scope;
use providers::made::Made;
use providers::records::Folder;

use crate::fragment::Fragment;
use crate::spec::DomainSpec;
use crate::xml::Element;

/// The name of the metadata's element, and what it belongs to.
const ELEMENT: &str = "charter:resource";
/// The name of the element in it that keeps a domain's fragment.
const FRAGMENT: &str = "charter:xml";
const NAMESPACE: &str = "https://charter.dao/libvirt";
/// The largest record that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// Whose something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Label {
    pub(crate) made: Made,
    /// How long it may take to stop, in seconds; of a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop_seconds: Option<u64>,
    /// The fragment that its definition holds; of a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) xml: Option<String>,
    /// Where it is; of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<Place>,
}

/// Where a volume is, and what was put into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) pool: String,
    pub(crate) volume: String,
    /// A digest of what it was made from.
    pub(crate) content: String,
    /// Whether all of that is in it.
    pub(crate) whole: bool,
}

/// Whose a thing is, as a resource sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Ours,
    /// Another resource's of some Charter.
    Anothers(String),
    /// Nobody's that Charter knows.
    Nobody,
}

impl Label {
    pub(crate) fn new(scope: &Scope, resource: &Resource) -> Self {
        Self {
            made: Made::new(scope, resource),
            stop_seconds: None,
            xml: None,
            place: None,
        }
    }

    /// That of a domain.
    pub(crate) fn of_domain(scope: &Scope, resource: &Resource, spec: &DomainSpec) -> Self {
        let fragment = spec.xml.as_ref().and_then(|xml| Fragment::read(xml).ok());
        Self {
            stop_seconds: Some(spec.stop_seconds),
            xml: fragment.map(|fragment| fragment.to_text()),
            ..Self::new(scope, resource)
        }
    }

    /// The fragment that the definition holds.
    pub(crate) fn fragment(&self) -> Option<Fragment> {
        self.xml.as_ref().and_then(|xml| Fragment::read(xml).ok())
    }

    /// As metadata.
    pub(crate) fn to_element(&self) -> Element {
        let element = Element::new(ELEMENT)
            .with("xmlns:charter", NAMESPACE)
            .with("channel", &self.made.channel)
            .with("member", &self.made.member)
            .with("resource", &self.made.resource)
            .with("kind", &self.made.kind)
            .with("origin", &self.made.origin)
            .with(
                "on-retire",
                match self.made.on_retire {
                    OnRetire::Delete => "delete",
                    OnRetire::Retain => "retain",
                },
            );
        let element = match self.stop_seconds {
            Some(seconds) => element.with("stop-seconds", seconds),
            None => element,
        };
        match &self.xml {
            Some(xml) => element.holding(Element::new(FRAGMENT).saying(xml)),
            None => element,
        }
    }

    /// From the definition of a domain or a network.
    pub(crate) fn of(definition: &Element) -> Option<Self> {
        let metadata = definition.child("metadata")?;
        Self::read(metadata.children.iter().find(|child| is_label(child))?)
    }

    /// From the text of a definition, of which only the metadata is read: in a text `<` stands for itself nowhere else.
    pub(crate) fn in_text(definition: &str) -> Option<Self> {
        const END: &str = "</metadata>";
        let from = definition.find("<metadata>")?;
        let length = definition.get(from..)?.find(END)? + END.len();
        let metadata = Element::read(definition.get(from..from + length)?).ok()?;
        Self::of(&Element::new("definition").holding(metadata))
    }

    fn read(element: &Element) -> Option<Self> {
        let said = |name: &str| element.attribute(name);
        Some(Self {
            made: Made {
                channel: Channel::new(said("channel")?).ok()?,
                member: MemberId::new(said("member")?).ok()?,
                resource: ResourceName::new(said("resource")?).ok()?,
                kind: Kind::new(said("kind")?).ok()?,
                origin: said("origin")?.parse().ok()?,
                on_retire: match said("on-retire") {
                    Some("retain") => OnRetire::Retain,
                    _ => OnRetire::Delete,
                },
            },
            stop_seconds: said("stop-seconds").and_then(|seconds| seconds.parse().ok()),
            xml: element
                .children
                .first()
                .and_then(|fragment| Fragment::read(&fragment.text).ok())
                .map(|fragment| fragment.to_text()),
            place: None,
        })
    }
}

/// Whether an element of metadata is a label. The daemon may give its namespace another prefix.
fn is_label(element: &Element) -> bool {
    let (prefix, name) = element.name.split_once(':').unwrap_or(("", &element.name));
    let declared = match prefix {
        "" => element.attribute("xmlns"),
        prefix => element.attribute(&format!("xmlns:{prefix}")),
    };
    name == "resource" && declared == Some(NAMESPACE)
}

/// Puts a label into a definition's metadata, or takes it out of there, and leaves what others have there.
pub(crate) fn relabel(definition: &mut Element, label: Option<&Label>) {
    let mut metadata = definition.child("metadata").cloned().unwrap_or_else(|| Element::new("metadata"));
    let is_ours = |child: &Element| child.name == ELEMENT || is_label(child) && Label::read(child).is_some();
    metadata.children.retain(|child| !is_ours(child));
    metadata.children.extend(label.map(Label::to_element));
    match metadata.children.is_empty() {
        true => definition.remove("metadata"),
        false => definition.put(metadata),
    }
}

/// Whose a thing with this label is.
pub(crate) fn owner(label: Option<&Label>, scope: &Scope, name: &ResourceName) -> Owner {
    match label {
        None => Owner::Nobody,
        Some(label) if label.made.is_ours(scope, name) => Owner::Ours,
        Some(label) => Owner::Anothers(label.made.owner()),
    }
}

/// The labels of what the daemon keeps no metadata of, by external name, as they are on the disk and in memory.
#[derive(Debug)]
pub(crate) struct Labels {
    folder: Folder,
    all: BTreeMap<String, Label>,
}

impl Labels {
    /// Reads what there is. A label that can't be read counts as lost: what it was of is nobody's.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let folder = Folder::new(folder, MAX_BYTES);
        let mut all = BTreeMap::new();
        for (name, bytes) in folder.read()?.unwrap_or_default() {
            match serde_json::from_slice(&bytes) {
                Ok(label) => {
                    all.insert(name, label);
                }
                Err(error) => tracing::warn!(name, %error, "whose it is can't be read any more: it counts as nobody's"),
            }
        }
        Ok(Self { folder, all })
    }

    pub(crate) fn get(&self, external: &str) -> Option<&Label> {
        self.all.get(external)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Label)> {
        self.all.iter()
    }

    /// Writes a label, if it is another one, durably.
    pub(crate) fn put(&mut self, external: &str, label: Label) -> io::Result<()> {
        if self.all.get(external) == Some(&label) {
            return Ok(());
        }
        self.folder.write(external, &serde_json::to_vec(&label)?)?;
        self.all.insert(external.to_owned(), label);
        Ok(())
    }

    pub(crate) fn remove(&mut self, external: &str) -> io::Result<()> {
        if self.all.remove(external).is_none() {
            return Ok(());
        }
        self.folder.remove(external)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn label() -> Label {
        let resource: Resource = serde_json::from_value(json!({
            "name": "web", "kind": "libvirt/domain", "owner": "city", "spec": {}, "on_retire": "retain",
        }))
        .unwrap();
        let scope = Scope::new("ch".parse().unwrap(), "city".parse().unwrap());
        Label {
            stop_seconds: Some(5),
            xml: Some("<domain>\n  <title>a</title>\n</domain>\n".to_owned()),
            ..Label::new(&scope, &resource)
        }
    }

    #[test]
    fn metadata_says_whose_a_domain_is_under_any_prefix() {
        let domain = |element: Element| Element::new("domain").holding(Element::new("metadata").holding(element));
        assert_eq!(Label::of(&domain(label().to_element())), Some(label()));
        let text = domain(label().to_element()).to_xml();
        assert_eq!(Label::in_text(&text), Some(label()));
        assert_eq!(Label::in_text("<domain/>"), None);
        assert_eq!(
            Label::of(&Element::read(&text.replace("charter:", "ns0:").replace(":charter", ":ns0")).unwrap()),
            Some(label())
        );
        assert_eq!(
            Label::of(&Element::read(&text.replace(NAMESPACE, "https://elsewhere")).unwrap()),
            None
        );
        assert_eq!(Label::of(&Element::new("domain")), None);
    }

    #[test]
    fn labels_survive_and_a_broken_one_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let mut labels = Labels::open(&folder.path().join("libvirt")).unwrap();
        labels.put("ch.web", label()).unwrap();
        labels.put("ch.other", label()).unwrap();
        std::fs::write(folder.path().join("libvirt/ch.other.json"), "{").unwrap();
        let again = Labels::open(&folder.path().join("libvirt")).unwrap();
        assert_eq!(again.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["ch.web"]);
        labels.remove("ch.web").unwrap();
        assert!(Labels::open(&folder.path().join("libvirt")).unwrap().get("ch.web").is_none());
    }
}
