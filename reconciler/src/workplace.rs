//! What a member brings to work, opened from its configuration: its store, its identity, its providers.

use std::path::Path;
use std::sync::Arc;

use ansible::Ansible;
use kubernetes::Kubernetes;
use ledger_sync::{FollowError, Ledger, Options, Progress};
use libvirt::Libvirt;
use msp::{MspError, Signer};
use providers::Provider;
use providers::machine::Machine;
use providers::registry::Registry;
use state::git::{GitError, Store};
use state::ids::{Channel, MemberId};
use state::time::Timestamp;
use terraform::Terraform;
use thiserror::Error;

use crate::clock::now;
use crate::config::Config;
use crate::control::Control;
use crate::controller::{Controller, Settings};
use crate::executor::Bounds;
use crate::hypervisor;
use crate::identity;

/// How long before a certificate's end that is said at each start: four weeks.
const SOON_SECONDS: i64 = 28 * 86_400;

/// What a member brings to work can't be used.
#[derive(Debug, Error)]
pub enum WorkplaceError {
    /// The store can't be used.
    #[error("the store of {member} can't be used")]
    Store {
        /// The member.
        member: MemberId,
        /// Why.
        #[source]
        source: GitError,
    },
    /// The identity can't be used.
    #[error("the identity of {member} can't be used")]
    Identity {
        /// The member.
        member: MemberId,
        /// Why.
        #[source]
        source: MspError,
    },
    /// A provider can't be set up.
    #[error("the provider {provider} of {member} can't be set up")]
    Provider {
        /// The member.
        member: MemberId,
        /// The provider.
        provider: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a member brings to work: its store, its identity, its providers.
#[derive(Clone)]
pub struct Workplace {
    /// The configuration.
    pub config: Config,
    /// The store.
    pub store: Store,
    /// The identity.
    pub signer: Arc<dyn Signer>,
    /// The providers.
    pub registry: Arc<Registry>,
}

impl Workplace {
    /// Opens what a configuration names. The store is made when it is not there.
    pub fn open(config: &Config) -> Result<Self, WorkplaceError> {
        let member = || config.member.clone();
        let store = Store::init(&config.store()).map_err(|source| WorkplaceError::Store { member: member(), source })?;
        let place = Self::with_store(config, store)?;
        place.prepare_machine()?;
        place.let_git_verify()?;
        Ok(place)
    }

    /// Opens what a configuration names, with a store that is open already.
    pub fn with_store(config: &Config, store: Store) -> Result<Self, WorkplaceError> {
        let member = || config.member.clone();
        let signer = identity::open(config).map_err(|source| WorkplaceError::Identity { member: member(), source })?;
        Ok(Self {
            config: config.clone(),
            store,
            signer,
            registry: Arc::new(registry(config)?),
        })
    }

    /// Makes the machine's root for a member that has never owned anything. A root that is gone later may be a disk that is not
    /// mounted, and is only observed.
    fn prepare_machine(&self) -> Result<(), WorkplaceError> {
        let Some(config) = &self.config.machine else { return Ok(()) };
        let failed = |source| WorkplaceError::Provider {
            member: self.config.member.clone(),
            provider: "machine",
            source,
        };
        let store = |source| WorkplaceError::Store {
            member: self.config.member.clone(),
            source,
        };
        let machine = Machine::new(config.clone()).map_err(|error| failed(error.into()))?;
        let owned = self.store.references("refs/heads/actual/").map_err(store)?;
        if !machine.has_root() && !config.root.exists() && owned.is_empty() {
            machine.init_root().map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// Tells plain git which key signs this member's commits, so that `git log --show-signature` says Good in its store.
    fn let_git_verify(&self) -> Result<(), WorkplaceError> {
        let member = &self.config.member;
        let failed = |source| WorkplaceError::Identity {
            member: member.clone(),
            source,
        };
        identity::keep_allowed_signers(&self.config, self.signer.as_ref(), self.last_signed()).map_err(failed)?;
        self.store
            .trust_signers(&self.config.allowed_signers())
            .map_err(|source| WorkplaceError::Store {
                member: member.clone(),
                source,
            })
    }

    /// When the certificate expires. Where that is soon, it is said.
    pub(crate) fn certificate_until(&self) -> Timestamp {
        let until = Timestamp::clamped(self.signer.certificate().not_after());
        let left = until.seconds() - now().seconds();
        if left < SOON_SECONDS {
            let days = left.div_euclid(86_400);
            tracing::warn!(member = %self.config.member, %until, days, "the certificate expires soon, or has: renew it, and start Charter again");
        }
        until
    }

    /// A moment that no commit of `actual` is after: a key that ends signed all of them. The clock may have been set back.
    fn last_signed(&self) -> Timestamp {
        // A store that can't be read says so when it is worked with.
        let heads = self.store.references("refs/heads/actual/").unwrap_or_default();
        let newest = heads
            .iter()
            .flat_map(|(_, head)| self.store.log(*head, None, 1).unwrap_or_default());
        let last = newest.map(|info| info.committer.seconds).fold(now().seconds(), i64::max);
        Timestamp::clamped(last)
    }

    /// Takes in everything that the ledger has of a channel now, for a command that works once.
    pub async fn catch_up(&self, channel: &Channel, ledger: Arc<dyn Ledger>) -> Result<Progress, FollowError> {
        let progress = ledger_sync::catch_up(ledger, self.store.clone(), channel.clone(), Options::default()).await?;
        remember_level(self.store.path(), channel);
        Ok(progress)
    }

    /// The controller of one channel.
    pub fn controller(&self, channel: &Channel, ledger: Arc<dyn Ledger>) -> Controller {
        Controller::new(Settings {
            member: self.config.member.clone(),
            channel: channel.clone(),
            store: self.store.clone(),
            registry: self.registry.clone(),
            policy: self.config.policy.clone(),
            signer: self.signer.clone(),
            clock: Arc::new(now),
            ledger,
            paused: Control::new(self.config.folder()).paused_file(channel),
            bounds: Bounds::default(),
        })
    }
}

/// Remembers that a store has had everything once. Where that fails, less is planned while the ledger is away, and nothing else.
pub(crate) fn remember_level(store: &Path, channel: &Channel) {
    if let Err(error) = Control::set_level(store, channel) {
        tracing::warn!(%channel, error = %error, "the store's standing can't be remembered");
    }
}

/// The providers that a configuration names.
pub fn registry(config: &Config) -> Result<Registry, WorkplaceError> {
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    if let Some(machine) = &config.machine {
        let machine = Machine::new(machine.clone()).map_err(|source| WorkplaceError::Provider {
            member: config.member.clone(),
            provider: "machine",
            source: source.into(),
        })?;
        providers.push(Arc::new(machine));
    }
    if let Some(kubernetes) = &config.kubernetes {
        providers.push(Arc::new(Kubernetes::new(kubernetes.clone())));
    }
    if let Some(libvirt) = &config.libvirt {
        let program = std::env::current_exe().map_err(|source| WorkplaceError::Provider {
            member: config.member.clone(),
            provider: "libvirt",
            source: source.into(),
        })?;
        providers.push(Arc::new(Libvirt::new(libvirt.clone(), hypervisor::helper(program))));
    }
    if let Some(terraform) = &config.terraform {
        let terraform = Terraform::new(terraform.clone()).map_err(|source| WorkplaceError::Provider {
            member: config.member.clone(),
            provider: "terraform",
            source: source.into(),
        })?;
        providers.push(Arc::new(terraform));
    }
    if let Some(ansible) = &config.ansible {
        providers.push(Arc::new(Ansible::new(ansible.clone())));
    }
    Registry::new(providers).map_err(|source| WorkplaceError::Provider {
        member: config.member.clone(),
        provider: "registry",
        source: source.into(),
    })
}
