//! Kubernetes: any objects of any kinds, applied on the server's side, in one cluster that a member gives.
//!
//! What is there is compared with what applying would make of it, so nothing that a server or a controller fills in is ever drift. Labels
//! say whose an object is; nothing else is changed or deleted.

mod apply;
mod compare;
mod config;
mod delete;
mod health;
mod live;
mod object;
mod observe;
mod record;
mod send;
mod server;
mod sight;
mod spec;
mod watch;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use state::errors::chain;
use state::ids::{Kind, ResourceName};
use state::observation::Observation;
use state::resource::{Origin, Resource};
use tokio::sync::OnceCell;

use providers::{Applied, Deleted, Invalid, Observed, Provider, ProviderError, Scope, Script, Wanted};

pub use self::config::{Impersonate, KubernetesConfig};
use self::object::ObjectId;
use self::record::{Record, Records};
use self::server::{Server, Trouble};
pub use self::spec::namespaces;
use self::watch::Watches;

/// Makes `kubernetes/manifest` and `kubernetes/namespace` in one cluster.
pub struct Kubernetes {
    site: Arc<Site>,
}

/// The cluster as every call sees it.
pub(crate) struct Site {
    config: KubernetesConfig,
    server: OnceCell<Arc<Server>>,
    watches: Watches,
    memory: Mutex<Memory>,
}

/// What is remembered between calls.
#[derive(Default)]
struct Memory {
    records: BTreeMap<Scope, Records>,
    /// What the last pass saw of objects that are not as they were asked for.
    seen: BTreeMap<(Scope, ObjectId), Seen>,
    /// What was in sync at the last look, and stays so while none of its objects changes.
    settled: BTreeMap<(Scope, ResourceName), Settled>,
    /// Kinds that may be listed in single namespaces only, by group and kind.
    narrow: BTreeSet<(String, String)>,
    /// How many objects this pass may still delete.
    deletions: u32,
}

/// What a pass saw of an object.
enum Seen {
    Nothing,
    This(Box<str>),
}

/// A resource that was in sync.
struct Settled {
    /// As it was asked for.
    resource: Resource,
    /// Its objects, and the version that each had.
    objects: Vec<(ObjectId, Box<str>)>,
    /// How it was seen.
    observation: Observation,
}

/// Why something can't be done right now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Hindrance {
    #[error(transparent)]
    Server(#[from] Trouble),
    #[error(transparent)]
    Secret(#[from] providers::secrets::SecretError),
    #[error("what was made can't be remembered in the folder kubernetes.records names")]
    Record(#[from] io::Error),
    #[error("the server has no kind {0}: order its CustomResourceDefinition first")]
    NoKind(String),
    #[error("{object} is of {other}")]
    Anothers { object: String, other: String },
    #[error("{object}: {fields} managed by others: take them (take in its specification), or leave them out")]
    Contested { object: String, fields: String },
    #[error("{0}: the API server refuses it; its words may hold the secret, and are not shown")]
    Hidden(String),
    #[error("{0}")]
    Invalid(String),
}

impl Site {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn server(&self) -> Result<&Arc<Server>, Trouble> {
        let open = || async { Server::open(&self.config).await.map(Arc::new) };
        self.server.get_or_try_init(open).await
    }

    /// Forgets that a resource was in sync.
    fn unsettle(&self, scope: &Scope, name: &ResourceName) {
        self.memory().settled.remove(&(scope.clone(), name.clone()));
    }

    /// Runs something with the records of a scope.
    fn records<T>(&self, scope: &Scope, work: impl FnOnce(&mut Records) -> io::Result<T>) -> io::Result<T> {
        let mut memory = self.memory();
        if !memory.records.contains_key(scope) {
            let records = Records::open(&self.config.records, scope)?;
            memory.records.insert(scope.clone(), records);
        }
        match memory.records.get_mut(scope) {
            Some(records) => work(records),
            None => Err(io::Error::other("the records of a scope were just read")),
        }
    }

    /// The record of a resource, if something was made for it.
    fn record(&self, scope: &Scope, name: &ResourceName) -> io::Result<Option<Record>> {
        self.records(scope, |records| Ok(records.get(name).cloned()))
    }
}

impl Kubernetes {
    /// Takes a configuration that was checked. Nothing is asked of the cluster yet.
    pub fn new(config: KubernetesConfig) -> Self {
        let memory = Memory {
            deletions: config.deletions,
            ..Memory::default()
        };
        Self {
            site: Arc::new(Site {
                watches: Watches::new(config.watch),
                config,
                server: OnceCell::new(),
                memory: Mutex::new(memory),
            }),
        }
    }

    /// The JSON schemas of the kinds' specifications.
    pub fn schemas() -> BTreeMap<Kind, Value> {
        spec::schemas()
    }
}

#[async_trait]
impl Provider for Kubernetes {
    fn kinds(&self) -> Vec<Kind> {
        ["manifest", "namespace"].map(spec::kind).to_vec()
    }

    fn validate(&self, resource: &Resource) -> Result<(), Invalid> {
        // The channel that a resource was ordered on first is not known here, and only gives a namespace its name.
        let anywhere: Origin = resource.origin.as_deref().cloned().unwrap_or(Origin {
            channel: state::ids::Channel::new("channel").expect("the literal is a channel's name"),
            resource: resource.name.clone(),
        });
        let named = resource.kind.name() != "namespace" || resource.spec.as_map().contains_key("name");
        match spec::read(&self.site.config, resource, &anywhere) {
            Err(Invalid::Denied { .. }) if !named => Ok(()),
            read => read.map(drop),
        }
    }

    fn external(&self, scope: &Scope, resource: &Resource) -> String {
        resource.origin(&scope.channel).to_string()
    }

    fn render(&self, scope: &Scope, resource: &Resource) -> Result<Vec<Script>, Invalid> {
        send::render(&self.site, scope, resource)
    }

    async fn observe(&self, scope: &Scope, wanted: &[Wanted<'_>]) -> Observed {
        match observe::observe(&self.site, scope, wanted).await {
            Ok(observed) => observed,
            Err(hindrance) => Observed::unknown(wanted.iter().map(|one| one.name.clone()), &chain(&hindrance)),
        }
    }

    async fn changed(&self, scope: &Scope) {
        match self.site.server().await {
            Ok(server) => self.site.watches.changed(server, scope).await,
            // There is nothing that could tell.
            Err(_) => std::future::pending().await,
        }
    }

    async fn apply(&self, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
        apply::apply(&self.site, scope, resource).await
    }

    async fn delete(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
        delete::delete(&self.site, scope, name, external).await
    }

    async fn release(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
        delete::release(&self.site, scope, name, external).await
    }
}
