//! An embedded server with two members, and clients that speak to it through misbehaving peers.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::peer::Peer;
use crate::common::{CITY, ENERGY, agreement, channel, resource};
use embedded::{MemberSpec, NetworkSpec, Server};
use ledger_sync::gateway::Timeouts;
use ledger_sync::{GatewayClient, GatewayConfig, Ledger, PeerConfig, Pending};
use msp::PemSigner;
use serde_json::json;

pub struct Consortium {
    pub directory: tempfile::TempDir,
    pub server: Server,
}

impl Consortium {
    /// A server with an agreement in force.
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let member = |name: &str, msp_id: &str| MemberSpec {
            name: name.into(),
            msp_id: msp_id.into(),
        };
        let members = vec![member("city", CITY), member("energy", ENERGY)];
        let ledger = embedded::Ledger::init(&directory.path().join("ledger"), &NetworkSpec { members }).unwrap();
        ledger.create_channel(channel().as_str(), &["city", "energy"]).unwrap();
        for name in ["city", "energy"] {
            ledger.export_identity(name, &directory.path().join(name)).unwrap();
        }
        let server = Server::bind(ledger, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let this = Self { directory, server };
        this.agree().await;
        this
    }

    fn place(&self) -> &Path {
        self.directory.path()
    }

    pub fn server_ca(&self) -> Vec<u8> {
        std::fs::read(self.place().join("city/tls-ca.pem")).unwrap()
    }

    pub fn signer(&self, name: &str) -> Arc<PemSigner> {
        let msp_id = if name == "city" { CITY } else { ENERGY };
        Arc::new(PemSigner::from_msp_dir(&self.place().join(name).join("msp"), msp_id).unwrap())
    }

    pub fn pending(&self, name: &str) -> Pending {
        Pending::new(self.place().join(name).join("pending"))
    }

    /// A peer that stands before the server.
    pub async fn peer(&self) -> Peer {
        Peer::before(&self.server, &self.server_ca(), "localhost", None).await
    }

    pub fn config(&self, name: &str, peers: &[&Peer]) -> GatewayConfig {
        let peers = peers.iter().map(|peer| PeerConfig {
            endpoint: peer.endpoint.clone(),
            tls_ca_pem: peer.ca_pem.clone(),
            server_name: None,
        });
        GatewayConfig {
            peers: peers.collect(),
            client_tls: None,
            timeouts: Timeouts {
                commit: Duration::from_secs(2),
                evaluate: Duration::from_secs(2),
                endorse: Duration::from_secs(5),
                submit: Duration::from_secs(2),
                ..Timeouts::default()
            },
            pending: self.pending(name),
        }
    }

    /// A member's client through peers.
    pub fn client(&self, name: &str, peers: &[&Peer]) -> GatewayClient {
        GatewayClient::connect(self.config(name, peers), self.signer(name)).unwrap()
    }

    /// A member's client at the server itself.
    pub fn direct(&self, name: &str) -> GatewayClient {
        let mut config = self.config(name, &[]);
        config.peers = vec![PeerConfig {
            endpoint: format!("https://localhost:{}", self.server.address().port()),
            tls_ca_pem: self.server_ca(),
            server_name: None,
        }];
        GatewayClient::connect(config, self.signer(name)).unwrap()
    }

    async fn agree(&self) {
        let (city, energy) = (self.direct("city"), self.direct("energy"));
        let on = channel();
        let text = |value: serde_json::Value| vec![value.to_string().into_bytes()];
        for (client, name, role) in [
            (&city, "city", "data-service-provider"),
            (&energy, "energy", "value-service-provider"),
        ] {
            client
                .submit(&on, "register", text(json!({ "member": name, "role": role })))
                .await
                .unwrap();
        }
        let agreement = agreement();
        city.submit(&on, "constitute", vec![serde_json::to_vec(&agreement).unwrap()])
            .await
            .unwrap();
        let digest = agreement.digest().unwrap();
        energy.submit(&on, "accept", text(json!({ "digest": digest }))).await.unwrap();
    }
}

pub fn order(name: &str, owner: &str) -> Vec<Vec<u8>> {
    let resources = json!({ "resources": [serde_json::to_value(resource(name, owner, &[])).unwrap()] });
    vec![resources.to_string().into_bytes()]
}
