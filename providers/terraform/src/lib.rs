//! Terraform: whatever its providers make, by an engine (`tofu` or `terraform`) on the member's machine.
//!
//! A workspace is a working directory with its own state. What would be done is the engine's own plan, which is kept, shown attribute by
//! attribute, and carried out as it was shown or not at all.

mod apply;
mod check;
pub mod cli;
mod cloud;
mod config;
mod files;
mod hold;
mod local;
mod observe;
mod plan;
mod record;
mod render;
mod spec;
mod words;
mod workspace;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use state::errors::chain;
use state::event::Position;
use state::ids::{Kind, ResourceName, SecretName};
use state::resource::{Origin, Resource};
use tokio::sync::{OnceCell, Semaphore};

use providers::detached::{RunError, now};
use providers::secrets::SecretError;
use providers::{Applied, Deleted, Invalid, Observed, Provider, ProviderError, Scope, Script, Wanted};

use self::cli::Version;
use self::cloud::{Cloud, CloudError, Remote};
pub use self::config::{Backend, CloudConfig, TerraformConfig};
use self::local::Directory;
use self::record::Records;
use self::words::Said;
use self::workspace::Workspace;

/// Runs Terraform for a member.
pub struct Terraform {
    site: Site,
}

/// The place as every call sees it.
pub(crate) struct Site {
    config: TerraformConfig,
    place: Place,
    records: Records,
    /// How many engines may run.
    turns: Semaphore,
    /// What the engine on this machine is, once it was asked.
    engine: OnceCell<Version>,
}

/// Where workspaces are.
enum Place {
    /// On this machine, by this program.
    Here(PathBuf),
    /// On a server.
    There(Box<Cloud>),
}

/// The configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TerraformError {
    /// It names no place, or two.
    #[error("[terraform] in charter.toml has either an engine or a [terraform.cloud]")]
    Place,
    /// The server can't be asked.
    #[error("the server of [terraform.cloud] can't be asked from here")]
    Server(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why something can't be done right now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Hindrance {
    #[error("{} can't be started: name tofu or terraform with terraform.engine in charter.toml", .program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Run(RunError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error("the engine's {what} failed: {words}")]
    Engine { what: &'static str, words: String },
    #[error("its state is gone from {}: put it back from a copy; without it nobody knows what was made", .0.display())]
    StateGone(PathBuf),
    #[error("it is of {0}")]
    Anothers(String),
    #[error("it is there and nobody's that Charter knows")]
    NotOwned,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the folder that terraform.folder names can't be used")]
    Folder(#[from] io::Error),
    #[error("{0}")]
    Invalid(String),
}

/// Why a plan that was kept isn't carried out any more.
pub(crate) const STALE: &str = "its state has changed since it was planned: the next pass plans anew";

impl From<RunError> for Hindrance {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Start { program, source } => Self::Start { program, source },
            RunError::Folder(error) => Self::Folder(error),
            other => Self::Run(other),
        }
    }
}

impl Hindrance {
    /// A provider that a module needs, and orders may not use.
    fn provider(source: &str) -> Self {
        Self::Invalid(format!(
            "the provider {source}, which a module needs, is none of terraform.providers in charter.toml: add it to allow it"
        ))
    }

    /// An application that has failed, and what was done before.
    fn applying(said: &Said) -> Self {
        let (words, done) = (said.words(), said.done());
        let words = match done.is_empty() {
            true => words,
            false => format!("{words} (done before that: {})", done.join(", ")),
        };
        Self::Engine { what: "apply", words }
    }
}

/// The name of a workspace: a function of where a resource was ordered first.
pub(crate) fn external(origin: &Origin) -> String {
    format!("{}.{}", origin.channel, origin.resource)
}

impl Site {
    /// The working directory of a workspace.
    fn folder(&self, external: &str) -> PathBuf {
        self.config.folder.join(external)
    }

    /// A workspace, where this member's are.
    fn workspace<'a>(&'a self, external: &str, secrets: &BTreeMap<String, SecretName>) -> Box<dyn Workspace + 'a> {
        match &self.place {
            Place::Here(program) => Box::new(Directory::new(self, program, external, secrets)),
            Place::There(cloud) => Box::new(Remote::new(self, cloud, external, secrets)),
        }
    }

    /// Whether what was seen at a time, in seconds since 1970, still counts.
    fn is_fresh(&self, at: u64) -> bool {
        Duration::from_secs(now().saturating_sub(at)) < self.config.recheck()
    }

    fn engine_config(&self) -> io::Result<PathBuf> {
        let path = self.config.folder.join("engine.tfrc");
        cli::write(&path, self.config.mirror.as_deref())?;
        Ok(path)
    }
}

impl Terraform {
    /// Takes a configuration that was checked. Nothing is run yet.
    pub fn new(config: TerraformConfig) -> Result<Self, TerraformError> {
        let place = match (&config.engine, &config.cloud) {
            (Some(program), None) => Place::Here(program.clone()),
            (None, Some(cloud)) => {
                let cloud = Cloud::new(cloud).map_err(|error| TerraformError::Server(error.into()))?;
                Place::There(Box::new(cloud))
            }
            _ => return Err(TerraformError::Place),
        };
        Ok(Self {
            site: Site {
                place,
                records: Records::new(&config.folder.join("records")),
                engine: OnceCell::new(),
                turns: Semaphore::new(usize::try_from(config.runs).unwrap_or(1)),
                config,
            },
        })
    }

    /// The JSON schemas of the kinds' specifications.
    pub fn schemas() -> BTreeMap<Kind, Value> {
        BTreeMap::from([(spec::kind(), spec::schema())])
    }
}

#[async_trait]
impl Provider for Terraform {
    fn kinds(&self) -> Vec<Kind> {
        vec![spec::kind()]
    }

    fn validate(&self, resource: &Resource) -> Result<(), Invalid> {
        check::read(&self.site.config, resource).map(drop)
    }

    fn external(&self, scope: &Scope, resource: &Resource) -> String {
        external(&resource.origin(&scope.channel))
    }

    fn render(&self, scope: &Scope, resource: &Resource) -> Result<Vec<Script>, Invalid> {
        let ordered = check::read(&self.site.config, resource)?;
        let external = external(&resource.origin(&scope.channel));
        let rendered = render::render(&self.site.config, &external, &ordered);
        Ok(apply::scripts(&rendered, &resource.name))
    }

    async fn observe(&self, scope: &Scope, wanted: &[Wanted<'_>]) -> Observed {
        match observe::observe(&self.site, scope, wanted).await {
            Ok(observed) => observed,
            Err(hindrance) => Observed::unknown(wanted.iter().map(|one| one.name.clone()), &chain(&hindrance)),
        }
    }

    async fn apply(&self, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
        apply::apply(&self.site, scope, resource, None).await
    }

    async fn apply_ordered(&self, scope: &Scope, resource: &Resource, order: Position) -> Result<Applied, ProviderError> {
        apply::apply(&self.site, scope, resource, Some(order)).await
    }

    async fn delete(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
        apply::delete(&self.site, scope, name, external).await
    }

    async fn release(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
        apply::release(&self.site, scope, name, external)
    }
}
