//! A member's configuration file, `charter.toml`: who it is, where its ledger is, what its machine allows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ansible::AnsibleConfig;
use kubernetes::KubernetesConfig;
use libvirt::LibvirtConfig;
use policies::LocalPolicy;
use providers::machine::MachineConfig;
use serde::{Deserialize, Serialize};
use state::git::Store;
use state::ids::{Channel, MemberId, MspId};
use terraform::TerraformConfig;
use thiserror::Error;

use crate::discovery::{self, Pattern};
use crate::fabric::FabricConfig;
use crate::identity::SignerConfig;

/// The name of the configuration file in a member's folder.
pub const FILE_NAME: &str = "charter.toml";

/// A member's configuration. Relative paths are relative to the file's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The member that this Charter runs for.
    pub member: MemberId,
    /// The member's git repository.
    #[serde(default = "default_store")]
    pub store: PathBuf,
    /// Where the ledger is and as whom to speak to it.
    pub ledger: LedgerConfig,
    /// How the service behaves.
    #[serde(default)]
    pub service: ServiceConfig,
    /// The member's own machine, if it runs resources there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineConfig>,
    /// The member's cluster, if it runs resources there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesConfig>,
    /// The host of its virtual machines; without it the member makes no `libvirt/…` resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt: Option<LibvirtConfig>,
    /// What Terraform may do for it; without it the member makes no `terraform/…` resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terraform: Option<TerraformConfig>,
    /// What Ansible may do for it; without it the member makes no `ansible/…` resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ansible: Option<AnsibleConfig>,
    /// How this member makes and joins channels on a Fabric network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fabric: Option<FabricConfig>,
    /// What this member's Charter never does, whatever the ledger orders.
    #[serde(default)]
    pub policy: LocalPolicy,
    /// The folder of the file itself; not part of it.
    #[serde(skip)]
    folder: PathBuf,
}

/// Where the ledger is, and as whom to speak to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// The peer's gateway, for example `https://127.0.0.1:7051`.
    pub endpoint: String,
    /// The peer's TLS certificate authority, PEM.
    pub tls_ca: PathBuf,
    /// The name in the peer's TLS certificate, where it is not the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The TLS client certificate for peers that ask for one, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// Its private key, PEM, open to its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// The member's MSP id.
    pub msp_id: MspId,
    /// The folder with the member's certificate and key, in Fabric's layout.
    pub msp: PathBuf,
    /// The channels to follow, whatever the peers have joined.
    #[serde(default)]
    pub channels: BTreeSet<Channel>,
    /// Which channels are followed as soon as a peer has joined them; every one, where `channels` names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover: Option<Vec<Pattern>>,
    /// Where the signing key is, when it is not in the folder `msp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<SignerConfig>,
    /// Further peers, asked in their order when the one before them can't serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<FurtherPeer>,
    /// A peer of another member, whose blocks have to be the same: the validation codes and the state are not one peer's word then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<FurtherPeer>,
}

/// A peer beside the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherPeer {
    /// Its gateway.
    pub endpoint: String,
    /// Its TLS certificate authority, PEM; none: that of the first peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// The name in its TLS certificate, where it is not the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// How the service behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Where `/healthz` and `/metrics` answer; loopback, port 0 for a free one.
    pub listen: SocketAddr,
    /// Seconds between two looks at the world when nothing wakes the service, 1 to 3,600.
    pub interval_seconds: u32,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            interval_seconds: 30,
        }
    }
}

fn default_store() -> PathBuf {
    "store.git".into()
}

/// A configuration can't be used. Nothing was started.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file can't be written.
    #[error("cannot write the configuration {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a configuration.
    #[error("{} is not a valid configuration: {message}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        message: String,
    },
}

impl Config {
    /// Puts together a new configuration that will live in a folder.
    pub fn new(folder: &Path, member: MemberId, ledger: LedgerConfig, machine: Option<MachineConfig>) -> Self {
        Self {
            member,
            store: default_store(),
            ledger,
            service: ServiceConfig::default(),
            machine,
            kubernetes: None,
            libvirt: None,
            terraform: None,
            ansible: None,
            fabric: None,
            policy: LocalPolicy::default(),
            folder: folder.to_owned(),
        }
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let invalid = |message: String| ConfigError::Invalid {
            path: path.to_owned(),
            message,
        };
        let mut config: Config = toml::from_str(&text).map_err(|error| invalid(located(&text, &error)))?;
        let absolute = std::path::absolute(path).map_err(failed)?;
        config.folder = absolute.parent().map(Path::to_owned).unwrap_or_default();
        if let Some(machine) = &mut config.machine {
            machine.root = config.folder.join(&machine.root);
            machine.secrets = machine.secrets.take().map(|secrets| config.folder.join(secrets));
        }
        if let Some(kubernetes) = &mut config.kubernetes {
            kubernetes.resolve(&config.folder);
        }
        if let Some(libvirt) = &mut config.libvirt {
            libvirt.resolve(&config.folder);
        }
        if let Some(terraform) = &mut config.terraform {
            terraform.resolve(&config.folder);
        }
        if let Some(ansible) = &mut config.ansible {
            ansible.resolve(&config.folder);
        }
        if let Some(fabric) = &mut config.fabric {
            fabric.resolve(&config.folder);
        }
        config.check().map_err(invalid)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let mut endpoints = BTreeSet::new();
        for (key, endpoint) in std::iter::once(("ledger.endpoint", &self.ledger.endpoint))
            .chain(self.ledger.peers.iter().map(|peer| ("ledger.peers.endpoint", &peer.endpoint)))
            .chain(self.ledger.witness.iter().map(|peer| ("ledger.witness.endpoint", &peer.endpoint)))
        {
            if !endpoint.starts_with("https://") {
                return Err(format!("{key} has to start with https://"));
            }
            if !endpoints.insert(endpoint) {
                return Err(format!("{key} names {endpoint} twice: a peer that is down is not another peer"));
            }
        }
        if self.ledger.client_certificate.is_some() != self.ledger.client_key.is_some() {
            return Err("ledger.client_certificate and ledger.client_key belong together: name both, or none".into());
        }
        if self.ledger.channels.is_empty() && self.discover().is_empty() {
            return Err("ledger.channels and ledger.discover are empty: name a channel, or a pattern of those to find".into());
        }
        if let Some(signer) = &self.ledger.signer {
            signer.check()?;
        }
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.check()?;
        }
        if let Some(libvirt) = &self.libvirt {
            libvirt.check()?;
        }
        if let Some(terraform) = &self.terraform {
            terraform.check()?;
        }
        if let Some(ansible) = &self.ansible {
            ansible.check()?;
        }
        if let Some(fabric) = &self.fabric {
            fabric.check()?;
        }
        if !self.service.listen.ip().is_loopback() {
            return Err("service.listen has to be a loopback address: /metrics has no authentication".into());
        }
        if !(1..=3_600).contains(&self.service.interval_seconds) {
            return Err("service.interval_seconds has to be between 1 and 3600".into());
        }
        Ok(())
    }

    /// Writes the file into its folder, by rename.
    pub fn write(&self) -> Result<PathBuf, ConfigError> {
        let path = self.folder.join(FILE_NAME);
        let failed = |source| ConfigError::Write {
            path: path.clone(),
            source,
        };
        let text = toml::to_string_pretty(self).map_err(|error| failed(std::io::Error::other(error)))?;
        if std::fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(path);
        }
        let next = self.folder.join(".charter.toml.next");
        std::fs::write(&next, text).map_err(failed)?;
        std::fs::rename(&next, &path).map_err(failed)?;
        Ok(path)
    }

    /// Which channels are followed as soon as a peer has joined them.
    pub fn discover(&self) -> Vec<Pattern> {
        match &self.ledger.discover {
            Some(patterns) => patterns.clone(),
            None if self.ledger.channels.is_empty() => vec![Pattern::every()],
            None => Vec::new(),
        }
    }

    /// The channels that are named, and those that were found earlier: the store has taken something in from them.
    pub fn channels(&self) -> BTreeSet<Channel> {
        let mut channels = self.ledger.channels.clone();
        let patterns = self.discover();
        if patterns.is_empty() || !self.store().exists() {
            return channels;
        }
        // A store that can't be opened has no channels to speak of; who works with it says what is wrong with it.
        if let Ok(kept) = Store::open(&self.store()).and_then(|store| discovery::kept(&store, &patterns)) {
            channels.extend(kept);
        }
        channels
    }

    /// The folder that the configuration is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The member's git repository.
    pub fn store(&self) -> PathBuf {
        self.folder.join(&self.store)
    }

    /// The member's certificate and key.
    pub fn msp(&self) -> PathBuf {
        self.folder.join(&self.ledger.msp)
    }

    /// The file that tells git which key signs this member's commits.
    pub fn allowed_signers(&self) -> PathBuf {
        self.folder.join("identity/allowed_signers")
    }

    /// The folder of transactions whose outcome is not known yet.
    pub fn pending(&self) -> PathBuf {
        self.folder.join("pending")
    }

    /// The time between two looks at the world.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(u64::from(self.service.interval_seconds))
    }
}

/// What is wrong with a file, and where. The line itself is left out: it may hold what should never have been written there.
fn located(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim_end();
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_in_the_file_is_refused_and_not_repeated() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(FILE_NAME);
        let text = "member = \"city\"\n[ledger]\nendpoint = \"https://127.0.0.1:7051\"\ntls_ca = \"a\"\nmsp_id = \"CityMSP\"\nmsp = \"m\"\n\
                    channels = [\"c-1\"]\n[ledger.signer.pkcs11]\nmodule = \"/m.so\"\ntoken = \"city\"\n";
        std::fs::write(&path, text).unwrap();
        let read = Config::read(&path).unwrap();
        assert!(matches!(read.ledger.signer, Some(SignerConfig::Pkcs11(_))));
        assert_eq!(Config::read(&read.write().unwrap()).unwrap(), read);
        std::fs::write(&path, format!("{text}pin = \"982451653\"\n")).unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("line 11: unknown field `pin`") && error.contains("`pin_file`"),
            "{error}"
        );
        assert!(!error.contains("982451653"), "{error}");
    }
    #[test]
    fn further_peers_are_read_written_and_held_to_sense() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(FILE_NAME);
        let read = |ledger: &str, peers: &str| {
            let text = format!(
                "member = \"city\"\n[ledger]\nendpoint = \"https://a:7051\"\ntls_ca = \"a\"\nmsp_id = \"CityMSP\"\nmsp = \"m\"\n\
                 channels = [\"c-1\"]\n{ledger}\n{peers}\n"
            );
            std::fs::write(&path, text).unwrap();
            Config::read(&path).map_err(|error| error.to_string())
        };
        let peer = |endpoint: &str| format!("[[ledger.peers]]\nendpoint = \"{endpoint}\"\n");
        let tls = "client_certificate = \"c\"\nclient_key = \"k\"\nserver_name = \"peer0.city.example\"";
        let full = read(
            tls,
            &format!("{}tls_ca = \"b\"\n{}", peer("https://b:7051"), peer("https://c:7051")),
        )
        .unwrap();
        assert_eq!(full.ledger.peers.len(), 2);
        assert_eq!(full.ledger.peers[0].tls_ca.as_deref(), Some(Path::new("b")));
        assert_eq!(Config::read(&full.write().unwrap()).unwrap(), full);
        for (ledger, peers, says) in [
            ("client_key = \"k\"", String::new(), "belong together"),
            ("", peer("http://b:7051"), "has to start with https://"),
            ("", peer("https://a:7051"), "twice"),
            (
                "",
                format!("{}tls_cert = \"x\"\n", peer("https://b:7051")),
                "unknown field `tls_cert`",
            ),
        ] {
            let error = read(ledger, &peers).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
