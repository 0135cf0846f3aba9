//! Reading a desired state back from the files of a commit.

use std::collections::HashMap;

use thiserror::Error;

use super::{AgreementRecord, DesiredState, MemberRecord, Ordered};
use crate::ids::{Channel, MemberId, ResourceName};
use crate::paths;
use crate::records::{AnyRecord, Collection};
use crate::rules::{self, Refusal};
use crate::sorted;

/// A file of the store is not what Charter writes: the store is damaged, or was edited by hand.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file that can't be read.
    #[error("{path} is not what Charter writes; rebuild the store from the ledger with 'charter replay'")]
    File {
        /// Its path in the commit.
        path: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A file under another name than its content's.
    #[error("{0} stands under another name than its content has; rebuild the store from the ledger with 'charter replay'")]
    Misplaced(String),
    /// The graph breaks a rule.
    #[error("the resources of the commit don't form a graph")]
    Graph(#[source] Refusal),
}

/// One file of a commit on `desired/<channel>`, read by itself: files can be read side by side.
pub struct File(Content);

enum Content {
    Agreement(Box<AgreementRecord>),
    Member(MemberId, MemberRecord),
    Resource(Ordered),
    Retired(Ordered),
    Record(AnyRecord),
    Other,
}

impl File {
    /// Reads one file; what is none of the state's is passed over later.
    pub fn read(path: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let misplaced = || LoadError::Misplaced(path.to_owned());
        let ordered = |folder| -> Result<Ordered, LoadError> {
            let ordered: Ordered = parse(path, bytes)?;
            if paths::resource(folder, &ordered.resource.kind, &ordered.resource.name) != path {
                return Err(misplaced());
            }
            Ok(ordered)
        };
        Ok(Self(if path == paths::AGREEMENT {
            Content::Agreement(parse(path, bytes)?)
        } else if let Some(name) = path.strip_prefix("members/").and_then(|rest| rest.strip_suffix(".json")) {
            let member = MemberId::new(name).map_err(|_| misplaced())?;
            Content::Member(member, parse(path, bytes)?)
        } else if path.starts_with("resources/") {
            Content::Resource(ordered("resources")?)
        } else if path.starts_with("retired/") {
            Content::Retired(ordered("retired")?)
        } else if let Some(collection) = Collection::ALL.iter().find(|collection| below(path, collection.folder())) {
            let record = collection.parse(bytes).map_err(|source| LoadError::File {
                path: path.to_owned(),
                source,
            })?;
            if record.path() != path {
                return Err(misplaced());
            }
            Content::Record(record)
        } else {
            Content::Other
        }))
    }
}

/// Puts the files of a commit together.
pub struct Loader {
    state: DesiredState,
    // Maps are made at once from lists: a search for each name would cost more than reading its file.
    resources: Vec<(ResourceName, Ordered)>,
    retired: Vec<(ResourceName, Ordered)>,
}

impl Loader {
    /// Starts with an empty channel.
    pub fn new(channel: Channel) -> Self {
        Self {
            state: DesiredState::new(channel),
            resources: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// Takes one file.
    pub fn take(&mut self, file: File) {
        match file.0 {
            Content::Agreement(record) => self.state.agreement = Some(*record),
            Content::Member(member, record) => {
                self.state.members.insert(member, record);
            }
            Content::Resource(ordered) => self.resources.push((ordered.resource.name.clone(), ordered)),
            Content::Record(record) => self.state.records.put(record),
            Content::Retired(ordered) => self.retired.push((ordered.resource.name.clone(), ordered)),
            Content::Other => {}
        }
    }

    /// Checks the graph and gives the state.
    pub fn finish(self) -> Result<DesiredState, LoadError> {
        let state = DesiredState {
            resources: sorted::map(self.resources),
            retired: sorted::map(self.retired),
            ..self.state
        };
        check_graph(&state).map_err(LoadError::Graph)?;
        Ok(state)
    }
}

fn below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn check_graph(state: &DesiredState) -> Result<(), Refusal> {
    let resources = &state.resources;
    // Only asked, never walked: its order doesn't show.
    let places: HashMap<&ResourceName, u32> = resources.keys().zip(0..).collect();
    let mut edges: Vec<(u32, u32)> = Vec::with_capacity(places.len() * 2);
    for (dependent, (name, ordered)) in (0..).zip(resources) {
        for on in ordered.resource.depends_on.iter().chain(ordered.resource.spec.referred()) {
            let Some(dependency) = places.get(on) else {
                if state.imported(on.as_str()).is_some() {
                    continue;
                }
                return Err(Refusal::Dangling {
                    resource: name.clone(),
                    on: on.clone(),
                });
            };
            edges.push((*dependency, dependent));
        }
    }
    if rules::is_acyclic(places.len(), edges) {
        return Ok(());
    }
    let dependencies = resources
        .iter()
        .map(|(name, ordered)| (name.clone(), ordered.resource.dependencies()))
        .collect();
    rules::acyclic(&dependencies)
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::File {
        path: path.to_owned(),
        source,
    })
}
