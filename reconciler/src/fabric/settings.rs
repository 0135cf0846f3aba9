//! The table `[fabric]` of `charter.toml`: what this member brings to a Fabric network, none of which the others see.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::Address;

/// How this member works on a Fabric network. Relative paths are relative to the configuration's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FabricConfig {
    /// The folder with Fabric's binaries; without it they are looked for on `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin: Option<PathBuf>,
    /// The folder with a `core.yaml`, where the administrator's key is in an HSM; without it a minimal one is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// The MSP folder of an administrator of this organisation, with its key.
    pub admin_msp: PathBuf,
    /// The chaincode package that this organisation's peers install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PathBuf>,
    /// This organisation's peers, `HOST:PORT`, where they are reached otherwise than the channel document says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Address>,
    /// The client certificate for peers that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_tls: Option<ClientTls>,
    /// The client certificate for orderers that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orderer_tls: Option<ClientTls>,
    /// The orderer nodes that this organisation runs, by their admin endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orderers: Vec<OrdererAdmin>,
    /// Seconds that one run of a tool may take, 5 to 3,600.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u32,
}

fn default_timeout() -> u32 {
    120
}

/// A client's certificate and its key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The admin endpoint of one orderer node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrdererAdmin {
    /// `HOST:PORT` of the channel participation service.
    pub admin: Address,
    /// The authority of its TLS certificate, with the identity that it knows; without it plain HTTP, on this machine only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<AdminTls>,
}

/// How to speak to an admin endpoint over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// The authority that vouches for the node, PEM.
    pub ca: PathBuf,
    /// The client certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl FabricConfig {
    /// Checks what the types don't.
    pub fn check(&self) -> Result<(), String> {
        if !(5..=3_600).contains(&self.timeout_seconds) {
            return Err("fabric.timeout_seconds has to be between 5 and 3600".into());
        }
        for orderer in &self.orderers {
            let host = orderer.admin.host();
            let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            if orderer.tls.is_none() && !here {
                return Err(format!(
                    "fabric.orderers: {} is on another machine and has no tls: whoever reaches a plain admin endpoint administers \
                     the orderer; add tls = {{ ca, cert, key }}",
                    orderer.admin
                ));
            }
        }
        Ok(())
    }

    /// Makes every path absolute, from the configuration's folder.
    pub fn resolve(&mut self, folder: &Path) {
        let join = |path: &mut PathBuf| *path = folder.join(&*path);
        self.bin.iter_mut().for_each(join);
        self.config.iter_mut().for_each(join);
        self.package.iter_mut().for_each(join);
        join(&mut self.admin_msp);
        for tls in self.peer_tls.iter_mut().chain(&mut self.orderer_tls) {
            join(&mut tls.cert);
            join(&mut tls.key);
        }
        for tls in self.orderers.iter_mut().filter_map(|orderer| orderer.tls.as_mut()) {
            join(&mut tls.ca);
            join(&mut tls.cert);
            join(&mut tls.key);
        }
    }

    /// How long one run of a tool may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.timeout_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_admin_endpoint_is_on_this_machine_only() {
        let read = |text: &str| toml::from_str::<FabricConfig>(text).unwrap().check();
        assert!(read("admin_msp = 'a'\norderers = [{ admin = '127.0.0.1:7053' }]").is_ok());
        assert!(read("admin_msp = 'a'\norderers = [{ admin = 'localhost:7053' }]").is_ok());
        let error = read("admin_msp = 'a'\norderers = [{ admin = 'orderer.city:7053' }]").unwrap_err();
        assert!(error.contains("orderer.city:7053") && error.contains("tls"), "{error}");
        let tls = "admin_msp = 'a'\n[[orderers]]\nadmin = 'orderer.city:7053'\ntls = { ca = 'a', cert = 'b', key = 'c' }";
        assert!(read(tls).is_ok());
        assert!(read("admin_msp = 'a'\ntimeout_seconds = 1").is_err());
    }
}
