//! How a command gets at the ledger: the configured one, or the data directory's own, started for as long as the command runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embedded::{LedgerError, Server};
use ledger_sync::gateway::{ClientTls, GatewayClient, GatewayConfig, PeerConfig, Timeouts};
use ledger_sync::limits::WITNESS_PATIENCE;
use ledger_sync::{Ledger, Pending, Witnessed};
use msp::Signer;

use super::error::{CliError, Doing};
use super::{Global, output};
use crate::clock;
use crate::config::Config;
use crate::identity;

/// The folder of a data directory's own ledger.
pub(crate) fn ledger_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger")
}

/// The file that remembers where a data directory's ledger listens.
fn address_file(data_dir: &Path) -> PathBuf {
    ledger_folder(data_dir).join("address")
}

/// Where a data directory's ledger listened last.
pub(crate) fn last_address(data_dir: &Path) -> Option<SocketAddr> {
    std::fs::read_to_string(address_file(data_dir)).ok()?.trim().parse().ok()
}

/// Where a ledger may be served when the address that its data directory remembers is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// Anywhere, and remembered: whoever asks tells the members.
    Remembered,
    /// Anywhere, for the length of a command.
    Once,
    /// Nowhere: the members' configurations name the address.
    Refused,
}

/// Serves a ledger at an address that was asked for, or at the one that its data directory remembers.
pub(crate) async fn serve(
    ledger: embedded::Ledger,
    data_dir: &Path,
    listen: Option<SocketAddr>,
    elsewhere: Elsewhere,
) -> Result<Server, CliError> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = match (listen, last_address(data_dir)) {
        (Some(address), _) => Server::bind(ledger, address).await,
        (None, None) => Server::bind(ledger, anywhere).await,
        (None, Some(address)) => match Server::bind(ledger.clone(), address).await {
            Err(LedgerError::Serve { .. }) if elsewhere != Elsewhere::Refused => Server::bind(ledger, anywhere).await,
            other => other,
        },
    };
    let server = server.map_err(|error| {
        CliError::new("the embedded ledger can't be served")
            .because(error)
            .next("free that address, or name another one with --listen and in ledger.endpoint of the members' charter.toml")
    })?;
    if elsewhere != Elsewhere::Once || last_address(data_dir).is_none() {
        let path = address_file(data_dir);
        std::fs::write(&path, format!("{}\n", server.address())).doing(format!("cannot write {}", path.display()))?;
    }
    Ok(server)
}

/// The ledger for as long as a command runs.
pub(crate) struct Access {
    server: Option<Server>,
    endpoint: Option<String>,
}

impl Access {
    /// Makes sure that there is a ledger: one that runs, or the data directory's own, started here.
    pub(crate) async fn open(global: &Global) -> Result<Self, CliError> {
        if global.config.is_some() {
            return Ok(Self {
                server: None,
                endpoint: None,
            });
        }
        match embedded::Ledger::open(&ledger_folder(&global.data_dir)) {
            Ok(ledger) => {
                let server = serve(ledger, &global.data_dir, None, Elsewhere::Once).await?;
                output::note("the embedded ledger was started for this command; its one operator holds every member's key");
                let endpoint = Some(endpoint(server.address()));
                Ok(Self {
                    server: Some(server),
                    endpoint,
                })
            }
            // It runs in another process, or the members' ledger is elsewhere: their configurations say where.
            Err(LedgerError::Locked(_)) => Ok(Self {
                server: None,
                endpoint: last_address(&global.data_dir).map(endpoint),
            }),
            Err(LedgerError::Absent(_)) => Ok(Self {
                server: None,
                endpoint: None,
            }),
            Err(error) => Err(CliError::new("the embedded ledger can't be opened").because(error)),
        }
    }

    /// A member's connection.
    pub(crate) fn connect(&self, config: &Config) -> Result<Arc<dyn Ledger>, CliError> {
        connect(config, self.endpoint.as_deref())
    }

    /// Stops the ledger if it was started here.
    pub(crate) async fn close(self) -> Result<(), CliError> {
        match self.server {
            Some(server) => server.stop().await.doing("the embedded ledger did not stop cleanly"),
            None => Ok(()),
        }
    }
}

/// The URL of an address on this machine.
pub(crate) fn endpoint(address: SocketAddr) -> String {
    format!("https://{address}")
}

/// A member's identity on the ledger.
pub(crate) fn signer(config: &Config) -> Result<Arc<dyn Signer>, CliError> {
    identity::open(config).map_err(|error| CliError::new(format!("the identity of {} can't be used", config.member)).because(error))
}

/// A member's connection to a ledger. An endpoint that is given takes the place of the configured peers.
pub(crate) fn connect(config: &Config, endpoint: Option<&str>) -> Result<Arc<dyn Ledger>, CliError> {
    let ledger = &config.ledger;
    let authority = |path: &Path| {
        let path = config.folder().join(path);
        std::fs::read(&path).doing(format!("cannot read the ledger's TLS authority {}", path.display()))
    };
    let mut peers = vec![PeerConfig {
        endpoint: endpoint.unwrap_or(&ledger.endpoint).to_owned(),
        tls_ca_pem: authority(&ledger.tls_ca)?,
        server_name: ledger.server_name.clone(),
    }];
    if endpoint.is_none() {
        for peer in &ledger.peers {
            peers.push(PeerConfig {
                endpoint: peer.endpoint.clone(),
                tls_ca_pem: authority(peer.tls_ca.as_ref().unwrap_or(&ledger.tls_ca))?,
                server_name: peer.server_name.clone(),
            });
        }
    }
    in_step(&peers)?;
    let identity = signer(config)?;
    let called = |peers| -> Result<Arc<dyn Ledger>, CliError> {
        let gateway = GatewayConfig {
            peers,
            client_tls: client_tls(config)?,
            timeouts: Timeouts::default(),
            pending: Pending::new(config.pending()),
        };
        let client = GatewayClient::connect(gateway, identity.clone()).doing("the ledger can't be called as configured")?;
        Ok(Arc::new(client.with_clock(Arc::new(clock::seconds))))
    };
    let first = called(peers)?;
    let Some(witness) = &ledger.witness else { return Ok(first) };
    let second = called(vec![PeerConfig {
        endpoint: witness.endpoint.clone(),
        tls_ca_pem: authority(witness.tls_ca.as_ref().unwrap_or(&ledger.tls_ca))?,
        server_name: witness.server_name.clone(),
    }])?;
    Ok(Arc::new(Witnessed::new(first, second, WITNESS_PATIENCE)))
}

/// Only a trial's ledger, on this machine, is told another time than the machine's.
fn in_step(peers: &[PeerConfig]) -> Result<(), CliError> {
    let here = |peer: &PeerConfig| {
        let authority = peer.endpoint.split("://").last().unwrap_or_default().trim_end_matches('/');
        // What is no plain address with a port is not taken for one of this machine.
        authority.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
    };
    match peers.iter().find(|peer| !here(peer)) {
        Some(peer) if clock::offset() != 0 => Err(CliError::new(format!(
            "{} is set, and {} is not on this machine: a ledger that others trust is told the machine's time",
            clock::OFFSET,
            peer.endpoint
        ))
        .next(format!("unset {}", clock::OFFSET))),
        _ => Ok(()),
    }
}

/// The TLS client certificate of a member, if it has one.
fn client_tls(config: &Config) -> Result<Option<ClientTls>, CliError> {
    let (Some(certificate), Some(key)) = (&config.ledger.client_certificate, &config.ledger.client_key) else {
        return Ok(None);
    };
    let (certificate, key) = (config.folder().join(certificate), config.folder().join(key));
    let certificate_pem = std::fs::read(&certificate).doing(format!("cannot read the TLS client certificate {}", certificate.display()))?;
    let key_pem = msp::folder::read_key(&key).doing("the key of the TLS client certificate can't be used")?;
    Ok(Some(ClientTls { certificate_pem, key_pem }))
}
