//! The peers that one member may speak to, and which of them it speaks to now.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use state::ids::Channel;
use thiserror::Error;
use tonic::transport::{Certificate, Channel as Connection, ClientTlsConfig, Endpoint, Identity};

use crate::limits;

/// One peer, and how to know that it is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The URL, for example `https://peer0.city:7051`.
    pub endpoint: String,
    /// The certificates of the authorities that may vouch for the server, PEM.
    pub tls_ca_pem: Vec<u8>,
    /// The name in the server's certificate, where it is not the URL's host.
    pub server_name: Option<String>,
}

/// The certificate that this member shows to peers that ask for one.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The certificate, and those between it and its authority, PEM.
    pub certificate_pem: Vec<u8>,
    /// Its private key, PEM.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        formatter.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// The peers can't be called as configured.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No peer is named.
    #[error("no peer is configured: name one as ledger.endpoint")]
    Nobody,
    /// Not a URL with TLS.
    #[error("the peer's endpoint {0:?} has to be an https:// URL")]
    Endpoint(String),
    /// The certificates can't be used.
    #[error("the TLS settings for {endpoint} can't be used: check its CA certificates, its server name, and the client certificate")]
    Tls {
        /// The endpoint.
        endpoint: String,
        /// What the transport said.
        #[source]
        source: tonic::transport::Error,
    },
    /// The client certificate is none.
    #[error("the TLS client certificate can't be used")]
    ClientCertificate(#[source] msp::MspError),
}

/// One peer, connected when it is first used, and again after it was cut.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) endpoint: String,
    pub(crate) connection: Connection,
}

impl Peer {
    fn connect(config: PeerConfig, client: Option<&ClientTls>, within: Duration) -> Result<Self, ConnectError> {
        let PeerConfig {
            endpoint,
            tls_ca_pem,
            server_name,
        } = config;
        if !endpoint.starts_with("https://") {
            return Err(ConnectError::Endpoint(limits::quoted(&endpoint)));
        }
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(tls_ca_pem));
        if let Some(name) = server_name {
            tls = tls.domain_name(name);
        }
        if let Some(client) = client {
            tls = tls.identity(Identity::from_pem(&client.certificate_pem, &client.key_pem));
        }
        let connection = Endpoint::from_shared(endpoint.clone())
            .map_err(|_| ConnectError::Endpoint(limits::quoted(&endpoint)))?
            .tls_config(tls)
            .map_err(|source| ConnectError::Tls {
                endpoint: endpoint.clone(),
                source,
            })?
            .connect_timeout(within)
            .http2_keep_alive_interval(limits::KEEP_ALIVE)
            .keep_alive_timeout(limits::KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Self { endpoint, connection })
    }
}

/// The peers in the order in which they are tried. Each channel stays with the one that served it last, until that one fails.
#[derive(Debug)]
pub(crate) struct Peers {
    all: Vec<Arc<Peer>>,
    turn: Mutex<BTreeMap<Channel, usize>>,
}

impl Peers {
    /// Prepares the connections; nothing is sent yet. It has to be called inside a Tokio runtime.
    pub(crate) fn connect(peers: Vec<PeerConfig>, client: Option<&ClientTls>, within: Duration) -> Result<Self, ConnectError> {
        if peers.is_empty() {
            return Err(ConnectError::Nobody);
        }
        let connected = peers.into_iter().map(|peer| Peer::connect(peer, client, within).map(Arc::new));
        Ok(Self {
            all: connected.collect::<Result<_, _>>()?,
            turn: Mutex::default(),
        })
    }

    /// Every peer, in the order of the configuration.
    pub(crate) fn all(&self) -> &[Arc<Peer>] {
        &self.all
    }

    /// Every peer, the one of a channel first.
    pub(crate) fn in_turn(&self, channel: &Channel) -> Vec<Arc<Peer>> {
        let turn = self.turn().get(channel).copied().unwrap_or(0);
        let (before, rest) = self.all.split_at(turn.min(self.all.len()));
        rest.iter().chain(before).map(Arc::clone).collect()
    }

    /// The peer of a channel.
    pub(crate) fn present(&self, channel: &Channel) -> Arc<Peer> {
        let turn = self.turn().get(channel).copied().unwrap_or(0);
        Arc::clone(&self.all[turn % self.all.len()])
    }

    /// Turns to the next peer, if a channel still stands with this one: others may have turned meanwhile.
    pub(crate) fn leave(&self, channel: &Channel, endpoint: &str) {
        let mut turns = self.turn();
        let turn = turns.entry(channel.clone()).or_insert(0);
        if self.all.len() > 1 && self.all[*turn].endpoint == endpoint {
            *turn = (*turn + 1) % self.all.len();
            tracing::info!(%channel, left = endpoint, next = self.all[*turn].endpoint, "another peer is asked");
        }
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, BTreeMap<Channel, usize>> {
        // Every change is one number, so what a panicking thread left is whole.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(endpoint: &str) -> PeerConfig {
        let ca = msp::CertificateAuthority::create("city", "ca.city", crate::testing::START).unwrap();
        PeerConfig {
            endpoint: endpoint.into(),
            tls_ca_pem: ca.certificate_pem().as_bytes().to_vec(),
            server_name: None,
        }
    }

    #[tokio::test]
    async fn each_channel_has_its_own_turn() {
        let all = ["https://a:1", "https://b:1", "https://c:1"].map(peer).to_vec();
        let peers = Peers::connect(all, None, Duration::from_secs(1)).unwrap();
        let (one, two): (Channel, Channel) = ("one".parse().unwrap(), "two".parse().unwrap());
        peers.leave(&one, "https://a:1");
        // Somebody who was late to notice does not skip a peer.
        peers.leave(&one, "https://a:1");
        assert_eq!(peers.present(&one).endpoint, "https://b:1");
        assert_eq!(peers.present(&two).endpoint, "https://a:1");
        let order: Vec<String> = peers.in_turn(&one).iter().map(|peer| peer.endpoint.clone()).collect();
        assert_eq!(order, ["https://b:1", "https://c:1", "https://a:1"]);
        peers.leave(&one, "https://b:1");
        peers.leave(&one, "https://c:1");
        assert_eq!(peers.present(&one).endpoint, "https://a:1");
    }

    #[tokio::test]
    async fn only_tls_is_spoken() {
        let error = Peers::connect(vec![peer("http://a:1")], None, Duration::ZERO).unwrap_err();
        assert!(matches!(error, ConnectError::Endpoint(_)), "{error}");
        assert!(matches!(
            Peers::connect(Vec::new(), None, Duration::ZERO),
            Err(ConnectError::Nobody)
        ));
    }
}
