//! Serving a ledger over gRPC with TLS.

use std::net::SocketAddr;
use std::time::Duration;

use protos::gateway::gateway_server::GatewayServer;
use protos::peer::deliver_server::DeliverServer;
use protos::peer::endorser_server::EndorserServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server as Transport, ServerTlsConfig};

use crate::deliver::DeliverService;
use crate::endorser::EndorserService;
use crate::gateway::GatewayService;
use crate::{Ledger, LedgerError, TRUST_NOTICE};

/// How long calls may take to end once the server was asked to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How often an idle connection is checked.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// The most calls on one connection at a time.
const CALLS_PER_CONNECTION: u32 = 1024;

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), LedgerError>>,
}

/// Asks a server to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<bool>);

impl Shutdown {
    /// Asks the server to take no more calls and to end those that it has.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// Listens on an address (port 0: any free one) and serves the ledger until it is asked to stop. The log says plainly
    /// what trust such a ledger doesn't give.
    pub async fn bind(ledger: Ledger, address: SocketAddr) -> Result<Self, LedgerError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| LedgerError::Serve {
            address: address.to_string(),
            source,
        };
        let (certificate, key) = ledger.tls_identity();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        let mut transport = Transport::builder()
            .tls_config(tls)
            .map_err(|error| failed(error.into()))?
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .max_concurrent_streams(CALLS_PER_CONNECTION);
        let listener = TcpListener::bind(address).await.map_err(|error| failed(error.into()))?;
        let local = listener.local_addr().map_err(|error| failed(error.into()))?;
        let (sender, closing) = watch::channel(false);
        let most = ledger.limits().message_bytes;
        let gateway = GatewayServer::new(GatewayService {
            ledger: ledger.clone(),
            closing: closing.clone(),
        })
        .max_decoding_message_size(most)
        .max_encoding_message_size(protos::MAX_GRPC_MESSAGE_BYTES);
        let endorser = EndorserServer::new(EndorserService { ledger: ledger.clone() }).max_decoding_message_size(most);
        let deliver = DeliverServer::new(DeliverService {
            ledger,
            closing: closing.clone(),
        })
        .max_decoding_message_size(most)
        .max_encoding_message_size(protos::MAX_GRPC_MESSAGE_BYTES);
        let router = transport.add_service(gateway).add_service(deliver).add_service(endorser);
        tracing::warn!(address = %local, "{TRUST_NOTICE}");
        // Held until the server has ended: without a sender its calls would take it for ending.
        let held = sender.clone();
        let task = tokio::spawn(async move {
            let _held = held;
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let serving = router.serve_with_incoming_shutdown(incoming, asked(closing.clone()));
            let late = async {
                asked(closing).await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                served = serving => served.map_err(|error| LedgerError::Serve {
                    address: local.to_string(),
                    source: error.into(),
                }),
                // Every answer that was given stands on disk already; what is left is a client that doesn't let go.
                () = late => Ok(()),
            }
        });
        Ok(Self {
            address: local,
            shutdown: Shutdown(sender),
            task,
        })
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a handle that asks the server to stop.
    pub fn shutdown_handle(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Waits until the server has ended.
    pub async fn finished(self) -> Result<(), LedgerError> {
        let address = self.address.to_string();
        self.task.await.map_err(|error| LedgerError::Serve {
            address,
            source: error.into(),
        })?
    }

    /// Asks the server to stop and waits until it has.
    pub async fn stop(self) -> Result<(), LedgerError> {
        self.shutdown.begin();
        self.finished().await
    }
}

async fn asked(mut closing: watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    let _ = closing.wait_for(|closing| *closing).await;
}
