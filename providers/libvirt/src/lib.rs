//! libvirt: networks, volumes and virtual machines on a host that a member owns.
//!
//! The C library is spoken to by another process of the same program (`helper`, a feature), which is asked one thing at a time within a
//! deadline. A domain's or network's owner stands in its metadata; that of pools and volumes is remembered beside Charter.

#[cfg(feature = "helper")]
mod agent;
mod apply;
mod check;
mod client;
mod config;
mod delete;
mod domain;
#[cfg(feature = "helper")]
pub mod events;
mod fragment;
#[cfg(feature = "helper")]
pub mod helper;
mod label;
mod listen;
mod live;
mod macs;
mod names;
mod network;
mod observe;
mod spec;
mod storage;
mod vagrant;
mod wire;
mod xml;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use serde_json::Value;
use state::canonical::Digest;
use state::errors::chain;
use state::ids::{Kind, ResourceName, SecretName};
use state::observation::FieldDrift;
use state::resource::{Origin, Resource};

use providers::secrets::SecretError;
use providers::{Applied, Deleted, Invalid, Observed, Provider, ProviderError, Scope, Script, Tool, Wanted};

use self::client::Client;
pub use self::client::Helper;
pub use self::config::{LibvirtConfig, Range};
use self::label::{Label, Labels};
use self::listen::Listener;
use self::live::Asked;
use self::macs::Macs;
use self::spec::SeedSpec;

/// Makes networks, volumes and virtual machines on one host.
pub struct Libvirt {
    site: Arc<Site>,
}

/// The host as every call sees it.
pub(crate) struct Site {
    config: LibvirtConfig,
    client: Client,
    listener: Listener,
    labels: Mutex<Option<Labels>>,
    /// Guests that were asked to stop, and when.
    stops: Mutex<BTreeMap<String, Instant>>,
    /// What guests were asked for while they run.
    asked: Asked,
    /// Whose interfaces' addresses are whose.
    macs: Macs,
}

/// Why something can't be done right now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Hindrance {
    #[error("{0}")]
    Libvirt(String),
    #[error("libvirt says: {0}; where this host's KVM can't run it, order `virtualization: emulated`, or another processor in `xml`")]
    Kvm(String),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("a secret's name is none")]
    Name(#[from] state::ids::NameError),
    #[error("what was made can't be remembered in the folder libvirt.records names")]
    Record(#[from] io::Error),
    #[error("{what} is of {other}")]
    Anothers { what: String, other: String },
    #[error("{0} is there and nobody's that Charter knows")]
    NotOwned(String),
    #[error("the pool {0} is not there")]
    NoPool(String),
    #[error("the pool {0} is not active")]
    PoolAway(String),
    #[error("{0} is larger than it is to be, and a volume is never made smaller")]
    Smaller(String),
    #[error("the image {} can't be read", .path.display())]
    Image {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the image {} is another one: its SHA-256 is {found}, and the order says {wanted}", .path.display())]
    Digest { path: PathBuf, wanted: String, found: String },
    #[error("the address {mac} is {other}'s already")]
    Mac { mac: String, other: String },
    #[error("{0}")]
    Invalid(String),
}

/// Adds a difference, if it is one.
pub(crate) fn compare(drift: &mut Vec<FieldDrift>, path: &str, wanted: Value, found: Value) {
    if wanted != found {
        drift.push(FieldDrift {
            path: path.to_owned(),
            wanted: Some(wanted).filter(|value| !value.is_null()),
            found: Some(found).filter(|value| !value.is_null()),
        });
    }
}

impl Site {
    fn stops(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something with the labels of what has no metadata.
    fn with_labels<T>(&self, work: impl FnOnce(&mut Labels) -> io::Result<T>) -> Result<T, Hindrance> {
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = match &mut *labels {
            Some(labels) => labels,
            none => none.insert(Labels::open(&self.config.records)?),
        };
        Ok(work(labels)?)
    }

    fn label(&self, external: &str) -> Result<Option<Label>, Hindrance> {
        self.with_labels(|labels| Ok(labels.get(external).cloned()))
    }

    fn labels(&self) -> Result<Vec<(String, Label)>, Hindrance> {
        self.with_labels(|labels| Ok(labels.iter().map(|(name, label)| (name.clone(), label.clone())).collect()))
    }

    fn put_label(&self, external: &str, label: Label) -> Result<(), Hindrance> {
        self.with_labels(|labels| labels.put(external, label))
    }

    fn drop_label(&self, external: &str) -> Result<(), Hindrance> {
        self.with_labels(|labels| labels.remove(external))
    }

    /// A seed's bytes, and their digest.
    fn seed(&self, origin: &Origin, spec: &SeedSpec) -> Result<(Vec<u8>, String), Hindrance> {
        let secret = |name: &SecretName| self.config.secret(name).map_err(Hindrance::from);
        let files = storage::seed_files(origin, spec, &secret)?;
        let bytes = storage::seed_image(&files)?;
        let digest = Digest::of(&bytes).hex();
        Ok((bytes, digest))
    }
}

impl Libvirt {
    /// Takes a configuration that was checked, and the program that speaks to the daemon. Nothing is asked of it yet.
    pub fn new(config: LibvirtConfig, helper: Helper) -> Self {
        Self {
            site: Arc::new(Site {
                client: Client::new(helper.clone(), config.uri.clone(), config.deadline()),
                listener: Listener::new(helper, config.uri.clone(), config.watched()),
                config,
                labels: Mutex::default(),
                stops: Mutex::default(),
                asked: Asked::default(),
                macs: Macs::default(),
            }),
        }
    }

    /// The JSON schemas of the kinds' specifications.
    pub fn schemas() -> BTreeMap<Kind, Value> {
        spec::schemas()
    }
}

#[async_trait]
impl Provider for Libvirt {
    fn kinds(&self) -> Vec<Kind> {
        spec::KINDS.map(spec::kind).to_vec()
    }

    fn validate(&self, resource: &Resource) -> Result<(), Invalid> {
        // Which channel it is of is not known here: it is held to that when it is made.
        check::read(&self.site.config, resource, None).map(drop)
    }

    fn external(&self, scope: &Scope, resource: &Resource) -> String {
        names::external(&resource.origin(&scope.channel))
    }

    fn render(&self, scope: &Scope, resource: &Resource) -> Result<Vec<Script>, Invalid> {
        apply::render(&self.site, scope, resource)
    }

    fn translate(&self, tool: Tool, scope: &Scope, resources: &[Resource]) -> Option<Result<Script, Invalid>> {
        match tool {
            Tool::Vagrant => vagrant::render(&self.site, scope, resources),
        }
    }

    async fn observe(&self, scope: &Scope, wanted: &[Wanted<'_>]) -> Observed {
        self.site.listener.looks(scope);
        match observe::observe(&self.site, scope, wanted).await {
            Ok(observed) => observed,
            Err(hindrance) => Observed::unknown(wanted.iter().map(|one| one.name.clone()), &chain(&hindrance)),
        }
    }

    async fn changed(&self, scope: &Scope) {
        self.site.listener.changed(scope).await;
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
