//! The server that peers dial.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protos::peer::ChaincodeMessage;
use protos::peer::chaincode_server::{Chaincode, ChaincodeServer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server as Transport, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::session::{Session, Shared, Stage};
use crate::{Limits, Program, ServeError};

/// How often an idle connection is checked, as Fabric's own chaincode servers do.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long the answer to such a check may take.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);
/// The most streams on one connection; a peer opens one.
const STREAMS_PER_CONNECTION: u32 = 16;

/// What a chaincode server serves, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The package id, by which peers know the chaincode: the label and the package's SHA-256.
    pub package_id: String,
    /// Without it, whoever reaches the address may speak to the chaincode.
    pub tls: Option<Tls>,
    /// What runs.
    pub program: Program,
    /// The bounds.
    pub limits: Limits,
}

impl Options {
    /// The agreement's program for this package id, without TLS, with the default bounds.
    pub fn new(package_id: impl Into<String>) -> Self {
        Self {
            package_id: package_id.into(),
            tls: None,
            program: Program::default(),
            limits: Limits::default(),
        }
    }
}

/// A server's TLS; everything is PEM.
#[derive(Clone)]
pub struct Tls {
    /// The server's certificate, with its chain.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// With it, a peer has to show a certificate that one of these authorities vouches for.
    pub client_authorities: Option<Vec<u8>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("mutual", &self.client_authorities.is_some())
            .finish_non_exhaustive()
    }
}

/// A running chaincode server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), ServeError>>,
}

/// Asks a server to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<Stage>);

impl Shutdown {
    /// Asks the server to take no more transactions, to finish those that it has, and to end.
    pub fn begin(&self) {
        self.0.send_if_modified(|stage| {
            let open = *stage == Stage::Open;
            if open {
                *stage = Stage::Draining;
            }
            open
        });
    }
}

impl Server {
    /// Listens on an address `HOST:PORT` (port 0: any free one) and serves until it is asked to stop.
    pub async fn bind(address: &str, options: Options) -> Result<Self, ServeError> {
        let id = &options.package_id;
        if id.is_empty() || id.len() > 512 || id.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(ServeError::PackageId(id.chars().take(80).collect()));
        }
        let mut transport = Transport::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
            .max_concurrent_streams(STREAMS_PER_CONNECTION);
        if let Some(tls) = &options.tls {
            let mut config = ServerTlsConfig::new().identity(Identity::from_pem(&tls.certificate, &tls.key));
            if let Some(authorities) = &tls.client_authorities {
                config = config.client_ca_root(Certificate::from_pem(authorities));
            }
            transport = transport.tls_config(config).map_err(ServeError::Tls)?;
        }
        let unheard = |source| ServeError::Listen {
            address: address.to_owned(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(unheard)?;
        let local = listener.local_addr().map_err(unheard)?;
        let (sender, stage) = watch::channel(Stage::Open);
        let (message_bytes, grace) = (options.limits.message_bytes, options.limits.grace);
        let shared = Arc::new(Shared::new(options.package_id, options.program, options.limits));
        let service = ChaincodeServer::new(Service {
            shared,
            stage: stage.clone(),
        })
        .max_decoding_message_size(message_bytes)
        .max_encoding_message_size(protos::MAX_GRPC_MESSAGE_BYTES);
        let router = transport.add_service(service);
        // Held until the server has ended: without a sender its streams would take it for ending.
        let held = sender.clone();
        let task = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let serving = router.serve_with_incoming_shutdown(incoming, asked(stage.clone()));
            let late = async {
                asked(stage).await;
                tokio::time::sleep(grace).await;
            };
            let ended = tokio::select! {
                served = serving => served.map_err(|source| ServeError::Failed {
                    address: local.to_string(),
                    source: source.into(),
                }),
                // A peer gives a transaction up by then; what is left is a peer that doesn't let go.
                () = late => Ok(()),
            };
            held.send_replace(Stage::Ended);
            ended
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
    pub async fn finished(self) -> Result<(), ServeError> {
        let address = self.address.to_string();
        self.task.await.map_err(|source| ServeError::Failed {
            address,
            source: source.into(),
        })?
    }

    /// Asks the server to stop and waits until it has.
    pub async fn stop(self) -> Result<(), ServeError> {
        self.shutdown.begin();
        self.finished().await
    }
}

async fn asked(mut stage: watch::Receiver<Stage>) {
    // An error means that the sender is gone, and with it the server.
    let _ = stage.wait_for(|stage| *stage != Stage::Open).await;
}

struct Service {
    shared: Arc<Shared>,
    stage: watch::Receiver<Stage>,
}

#[tonic::async_trait]
impl Chaincode for Service {
    type ConnectStream = ReceiverStream<Result<ChaincodeMessage, Status>>;

    async fn connect(&self, request: Request<Streaming<ChaincodeMessage>>) -> Result<Response<Self::ConnectStream>, Status> {
        let permit = Arc::clone(&self.shared.streams).try_acquire_owned().map_err(|_| {
            let most = self.shared.limits.streams;
            Status::resource_exhausted(format!("{most} peers are connected already"))
        })?;
        let (outbound, answers) = mpsc::channel(self.shared.outbound());
        let session = Session::new(Arc::clone(&self.shared), outbound, self.stage.clone());
        tokio::spawn(async move {
            let _permit = permit;
            session.run(request.into_inner()).await;
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}
