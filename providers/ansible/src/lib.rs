//! Ansible: machines that exist already, configured by plays over SSH, with the `ansible-playbook` of the member's own.
//!
//! What a playbook would do is its own check mode, and that knows three values: it changes something, it doesn't, or nobody knows. What
//! these inputs did on which host, and when, is remembered: where that is fresh, nothing is run.

mod apply;
mod check;
mod config;
mod events;
mod files;
mod galaxy;
mod observe;
mod plays;
mod record;
mod render;
mod run;
mod spec;
mod version;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use state::errors::chain;
use state::ids::{Kind, ResourceName};
use state::resource::{Origin, Resource};
use tokio::sync::{OnceCell, Semaphore, watch};

use providers::detached::{RunError, now};
use providers::secrets::SecretError;
use providers::{Applied, Deleted, Invalid, Observed, Provider, ProviderError, Scope, Script, Wanted};

pub use self::config::AnsibleConfig;
use self::record::Records;
use self::spec::PlaybookSpec;

/// Runs Ansible for a member.
pub struct Ansible {
    site: Arc<Site>,
}

/// The place as every call sees it.
pub(crate) struct Site {
    config: AnsibleConfig,
    records: Records,
    /// How many playbooks may run.
    turns: Semaphore,
    /// How many runs have ended that nobody waited for any more, and up to which of them each scope has looked.
    ended: watch::Sender<u64>,
    heard: Mutex<BTreeMap<Scope, u64>>,
    /// The version of the program, once it was asked.
    version: OnceCell<(u64, u64)>,
}

/// Why something can't be done right now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Hindrance {
    #[error("{} can't be started: install Ansible (ansible-core 2.14 or newer), and name it with ansible.playbook in charter.toml", .program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is no ansible-playbook: it says {said:?}", .program.display())]
    NoAnsible { program: PathBuf, said: String },
    #[error("ansible-core {0} is too old: install 2.14 or newer")]
    Old(String),
    #[error(transparent)]
    Run(RunError),
    #[error("roles and collections can't be installed: {0}")]
    Galaxy(String),
    #[error("{0}")]
    Failed(String),
    #[error("what is remembered of {0} is gone: the next look begins anew")]
    Lost(String),
    #[error("it is of {0}")]
    Anothers(String),
    #[error("it is there and nobody's that Charter knows")]
    NotOwned,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the folder that ansible.folder names can't be used")]
    Folder(#[from] io::Error),
    #[error("{0}")]
    Invalid(String),
}

impl From<RunError> for Hindrance {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Start { program, source } => Self::Start { program, source },
            RunError::Folder(error) => Self::Folder(error),
            other => Self::Run(other),
        }
    }
}

/// The name of a playbook outside: a function of where a resource was ordered first.
pub(crate) fn external(origin: &Origin) -> String {
    format!("{}.{}", origin.channel, origin.resource)
}

impl Site {
    /// The working directory of a playbook.
    fn folder(&self, external: &str) -> PathBuf {
        self.config.folder.join("work").join(external)
    }

    /// The folder of locks: who works on a playbook has the one of its name.
    fn locks(&self) -> PathBuf {
        self.config.folder.join("locks")
    }

    /// How long what was seen of an order counts.
    fn recheck(&self, spec: &PlaybookSpec) -> Duration {
        Duration::from_secs(spec.recheck_seconds.unwrap_or(self.config.recheck_seconds))
    }

    /// Whether what was seen at a time, in seconds since 1970, still counts.
    fn is_fresh(&self, at: u64, recheck: Duration) -> bool {
        Duration::from_secs(now().saturating_sub(at)) < recheck
    }

    /// Up to which run that has ended a scope has looked.
    fn heard(&self, scope: &Scope, up_to: Option<u64>) -> u64 {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let own = heard.entry(scope.clone()).or_default();
        *own = up_to.unwrap_or(*own);
        *own
    }
}

impl Ansible {
    /// Takes a configuration that was checked. Nothing is run yet.
    pub fn new(config: AnsibleConfig) -> Self {
        Self {
            site: Arc::new(Site {
                records: Records::new(&config.folder.join("records")),
                turns: Semaphore::new(usize::try_from(config.runs).unwrap_or(1)),
                ended: watch::Sender::new(0),
                heard: Mutex::default(),
                version: OnceCell::new(),
                config,
            }),
        }
    }

    /// The JSON schemas of the kinds' specifications.
    pub fn schemas() -> BTreeMap<Kind, Value> {
        BTreeMap::from([(spec::kind(), spec::schema())])
    }
}

#[async_trait]
impl Provider for Ansible {
    fn kinds(&self) -> Vec<Kind> {
        vec![spec::kind()]
    }

    fn validate(&self, resource: &Resource) -> Result<(), Invalid> {
        check::read(&self.site.config, resource).map(drop)
    }

    fn external(&self, scope: &Scope, resource: &Resource) -> String {
        external(&resource.origin(&scope.channel))
    }

    fn render(&self, _scope: &Scope, resource: &Resource) -> Result<Vec<Script>, Invalid> {
        let ordered = check::read(&self.site.config, resource)?;
        Ok(apply::scripts(&render::render(&self.site.config, &ordered), &resource.name))
    }

    fn going_on(&self, scope: &Scope) -> BTreeMap<ResourceName, String> {
        let all = self.site.records.of(scope).unwrap_or_default();
        let told = all.into_iter().filter_map(|(external, record)| {
            let words = run::progress(&self.site, &external, record.begun?.purpose).ok()?;
            Some((record.made.resource, words))
        });
        told.collect()
    }

    fn undoes(&self, resource: &Resource) -> Result<(), String> {
        match providers::fields::read::<PlaybookSpec>(&resource.spec) {
            Ok(spec) if spec.retire.is_none() => Err("it has no retiring play, so nothing on its hosts is undone".to_owned()),
            _ => Ok(()),
        }
    }

    async fn observe(&self, scope: &Scope, wanted: &[Wanted<'_>]) -> Observed {
        match observe::observe(&self.site, scope, wanted).await {
            Ok(observed) => observed,
            Err(hindrance) => Observed::unknown(wanted.iter().map(|one| one.name.clone()), &chain(&hindrance)),
        }
    }

    async fn changed(&self, scope: &Scope) {
        let heard = self.site.heard(scope, None);
        // The sender lives as long as this.
        if let Ok(count) = self.site.ended.subscribe().wait_for(|count| *count > heard).await {
            self.site.heard(scope, Some(*count));
        }
    }

    async fn apply(&self, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
        apply::apply(&self.site, scope, resource).await
    }

    async fn delete(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
        apply::delete(&self.site, scope, name, external).await
    }

    async fn release(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
        apply::release(&self.site, scope, name, external)
    }
}
