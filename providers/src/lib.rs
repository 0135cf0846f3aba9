//! What makes ordered resources real: the [`Provider`] trait, and one folder for each provider.
//!
//! A provider observes in bulk, applies and deletes idempotently, never waits for readiness and never retries: the next pass does.

pub mod conformance;
pub mod detached;
pub mod digests;
pub mod fields;
pub mod hold;
pub mod machine;
pub mod made;
pub mod memory;
pub mod records;
pub mod refusal;
pub mod registry;
pub mod secrets;

use std::collections::BTreeMap;

use async_trait::async_trait;
use state::event::Position;
use state::ids::{Channel, Kind, MemberId, ResourceName};
use state::observation::Observation;
use state::resource::{OnRetire, Origin, Outputs, Resource};
use thiserror::Error;

/// For whom and for which channel a provider works.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// The channel that the resources were ordered on.
    pub channel: Channel,
    /// The member whose Charter this is.
    pub member: MemberId,
}

impl Scope {
    /// For a member, on a channel.
    pub fn new(channel: Channel, member: MemberId) -> Self {
        Self { channel, member }
    }
}

/// An operation failed.
pub fn failed(operation: &'static str, external: &str, source: impl std::error::Error + Send + Sync + 'static) -> ProviderError {
    ProviderError::Failed {
        operation,
        external: external.to_owned(),
        source: Box::new(source),
    }
}

/// What came of taking something down: it is gone, or it waits for something.
pub fn taken_down<E>(done: Result<Option<String>, E>, external: &str) -> Result<Deleted, ProviderError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    Ok(match done.map_err(|error| failed("delete", external, error))? {
        Some(why) => Deleted::Pending { why },
        None => Deleted::Gone,
    })
}

/// Why something that was carried to a channel is not there yet.
pub fn still_held(by: &str) -> String {
    format!("{by} still has it: it goes over when it is handed over there (charter handover)")
}

/// Whether what is there and nobody's may be taken over.
pub fn adopts(resource: &Resource) -> bool {
    resource.adopt || resource.origin.is_some()
}

/// A resource to observe.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a ResourceName,
    /// What it is.
    pub kind: &'a Kind,
    /// Where it was ordered first, if it was carried to this channel.
    pub origin: Option<&'a Origin>,
    /// The resource with its references replaced by values, to compare with. None while they are not known: then only its
    /// existence, ownership and outputs are observed, and no drift.
    pub resource: Option<&'a Resource>,
}

impl<'a> Wanted<'a> {
    /// A resource whose references are values.
    pub fn of(resource: &'a Resource) -> Self {
        Self {
            name: &resource.name,
            kind: &resource.kind,
            origin: resource.origin.as_deref(),
            resource: Some(resource),
        }
    }
}

/// An owned object that no wanted resource names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The resource that it was made for, as its owner label says.
    pub name: ResourceName,
    /// What it is.
    pub kind: Kind,
    /// Its external name.
    pub external: String,
    /// What its owner label says should happen to it when it is retired.
    pub on_retire: OnRetire,
}

/// What a bulk observation saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// One observation for each wanted resource.
    pub resources: BTreeMap<ResourceName, Observation>,
    /// Owned objects of this scope that nobody wants any more.
    pub orphans: Vec<Orphan>,
}

impl Observed {
    /// Nothing could be seen, of these or of what nobody wants.
    pub fn unknown(names: impl IntoIterator<Item = ResourceName>, why: &str) -> Self {
        let unknown = |name| (name, Observation::Unknown { why: why.to_owned() });
        Self {
            resources: names.into_iter().map(unknown).collect(),
            orphans: Vec::new(),
        }
    }
}

/// What applying did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is there and ready.
    Done {
        /// Its external name.
        external: String,
        /// What it gives to others.
        outputs: Outputs,
    },
    /// It was made or changed, and is not ready yet. The next pass looks again.
    Pending {
        /// Its external name.
        external: String,
        /// What it waits for.
        why: String,
    },
}

/// What deleting did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone, or was never there.
    Gone,
    /// It is going. The next pass looks again.
    Pending {
        /// What it waits for.
        why: String,
    },
}

/// One rendered script: what will be run, kept for audit. Secrets in it are references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// A file name of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Script {
    /// A file of a resource's, which is at this path where it is run: folders stand in the script's name.
    pub fn of_file(resource: &ResourceName, path: &str, bytes: Vec<u8>) -> Self {
        Self {
            name: format!("{resource}.{}", path.replace('/', "__")),
            bytes,
        }
    }
}

/// Another tool that makes things of the same sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Vagrant, by a Vagrantfile.
    Vagrant,
}

/// A resource can't be made by this provider on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// The specification is not one of this kind.
    #[error("{resource}: {message}")]
    Spec {
        /// The resource.
        resource: ResourceName,
        /// The field and what is wrong with it.
        message: String,
    },
    /// The member's own configuration does not allow it.
    #[error("{resource} is not allowed on this machine: {message}")]
    Denied {
        /// The resource.
        resource: ResourceName,
        /// What would have to be allowed, and where.
        message: String,
    },
}

/// Applying or deleting failed. The next pass tries again.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// The resource was refused before anything was done.
    #[error("the resource is refused")]
    Invalid(#[from] Invalid),
    /// Something that is not ours stands where the resource would be.
    #[error("{external} exists and is not Charter's: remove it, or order the resource with adopt: true")]
    NotOwned {
        /// Its external name.
        external: String,
    },
    /// An operation failed.
    #[error("cannot {operation} {external}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// The external name.
        external: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Makes resources of some kinds real. One object is one configured instance.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The kinds that it makes.
    fn kinds(&self) -> Vec<Kind>;

    /// Checks a resource as it was ordered (references may stand for values), and against the member's own configuration.
    fn validate(&self, resource: &Resource) -> Result<(), Invalid>;

    /// The external name of a resource: a pure function of scope and resource. What was carried from another channel keeps the one that
    /// it had there: [`Resource::origin`] stands in the place of the scope's channel and the resource's name.
    fn external(&self, scope: &Scope, resource: &Resource) -> String;

    /// Renders what will be run. Pure: the same input gives the same bytes. References may stand for values.
    fn render(&self, scope: &Scope, resource: &Resource) -> Result<Vec<Script>, Invalid>;

    /// Renders those of its resources that another tool can make, in that tool's words; none: there is no such resource. Charter runs
    /// none of it.
    fn translate(&self, _tool: Tool, _scope: &Scope, _resources: &[Resource]) -> Option<Result<Script, Invalid>> {
        None
    }

    /// Observes all wanted resources, and finds owned objects that are not among them. What can't be seen is `Unknown`. What is carried
    /// here and still another channel's is `Pending`; once that has let go of it it is there and not owned, for the plan to adopt.
    async fn observe(&self, scope: &Scope, wanted: &[Wanted<'_>]) -> Observed;

    /// What goes on right now for resources of a scope, in words: nobody waits for it here, and it stands in no history.
    fn going_on(&self, _scope: &Scope) -> BTreeMap<ResourceName, String> {
        BTreeMap::new()
    }

    /// Whether deleting undoes what was made for a resource. `Err`: why not; it is let go of then, and that is what is reported.
    fn undoes(&self, _resource: &Resource) -> Result<(), String> {
        Ok(())
    }

    /// Waits until what the last look saw is no longer so, as far as that is told without looking. It may be wrong both ways: who waits
    /// looks again, and looks now and then anyway.
    async fn changed(&self, _scope: &Scope) {
        std::future::pending().await
    }

    /// Makes or changes one resource whose references are replaced by values. Idempotent; returns before it is ready. What is there and
    /// nobody's is taken over where the resource says `adopt`, or where it is carried here.
    async fn apply(&self, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError>;

    /// Applies what the transaction at a position of the channel's ledger has ordered, for providers whose servers keep a word on why.
    async fn apply_ordered(&self, scope: &Scope, resource: &Resource, _order: Position) -> Result<Applied, ProviderError> {
        self.apply(scope, resource).await
    }

    /// Deletes what was made for a resource. Idempotent; nothing unowned is ever touched.
    async fn delete(&self, scope: &Scope, kind: &Kind, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError>;

    /// Takes the owner label off what was made for a resource and leaves the rest where it is.
    async fn release(&self, scope: &Scope, kind: &Kind, name: &ResourceName, external: &str) -> Result<(), ProviderError>;
}
