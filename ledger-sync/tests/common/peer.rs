//! A peer that stands before another one and misbehaves as it is told: it loses calls and answers, hangs, and lies about blocks.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, stream};
use msp::{CertificateAuthority, Enrolment};
use protos::common::{Block, Envelope};
use protos::gateway::gateway_client::GatewayClient as Upstream;
use protos::gateway::gateway_server::{Gateway, GatewayServer};
use protos::gateway::{
    ChaincodeEventsResponse, CommitStatusResponse, EndorseRequest, EndorseResponse, EvaluateRequest, EvaluateResponse,
    SignedChaincodeEventsRequest, SignedCommitStatusRequest, SubmitRequest, SubmitResponse,
};
use protos::peer::DeliverResponse;
use protos::peer::deliver_client::DeliverClient;
use protos::peer::deliver_response::Type;
use protos::peer::deliver_server::{Deliver, DeliverServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

pub const MOST: usize = 300 * 1024 * 1024;

/// A call that a peer serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    Evaluate,
    Endorse,
    Submit,
    CommitStatus,
    Deliver,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is refused, and never gets through.
    Lost(Code, &'static str),
    /// It gets through, and its answer is lost.
    AnswerLost(Code, &'static str),
    /// It never gets through, and is never answered.
    Hung,
    /// It gets through, and is never answered.
    AnswerHung,
}

/// What a stream sends in a block's place.
pub enum Sent {
    Block(Block),
    Status(i32),
    /// Nothing more, for ever.
    Silence,
}

type Lie = dyn Fn(Block) -> Vec<Sent> + Send + Sync;

#[derive(Default)]
struct Orders {
    /// What becomes of calls, and how often.
    fates: BTreeMap<At, (Fate, usize)>,
    lie: Option<Arc<Lie>>,
}

#[derive(Clone)]
struct Service {
    upstream: Channel,
    orders: Arc<Mutex<Orders>>,
    calls: watch::Sender<BTreeMap<At, usize>>,
}

/// A running peer. It ends when it is dropped.
pub struct Peer {
    pub endpoint: String,
    pub ca_pem: Vec<u8>,
    service: Service,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The TLS authority of a test's peers and clients.
pub fn authority() -> CertificateAuthority {
    CertificateAuthority::create("tls", "tlsca", 1_780_000_000).unwrap()
}

impl Peer {
    /// Stands before an embedded server. With an authority, it asks for client certificates.
    pub async fn before(server: &embedded::Server, server_ca: &[u8], host: &str, clients: Option<&CertificateAuthority>) -> Self {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(server_ca))
            .domain_name("localhost");
        let upstream = Endpoint::from_shared(format!("https://{}", server.address()))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect_lazy();
        let ca = authority();
        let issued = ca.enrol("peer", &Enrolment::TlsServer { hosts: &[host] }, 1_780_000_000).unwrap();
        let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(&issued.certificate_pem, &issued.key_pem));
        if let Some(clients) = clients {
            tls = tls.client_ca_root(Certificate::from_pem(clients.certificate_pem()));
        }
        let service = Service {
            upstream,
            orders: Arc::default(),
            calls: watch::Sender::new(BTreeMap::new()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(
                GatewayServer::new(service.clone())
                    .max_decoding_message_size(MOST)
                    .max_encoding_message_size(MOST),
            )
            .add_service(
                DeliverServer::new(service.clone())
                    .max_decoding_message_size(MOST)
                    .max_encoding_message_size(MOST),
            );
        let task = tokio::spawn(async move { router.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() });
        Self {
            endpoint: format!("https://localhost:{}", address.port()),
            ca_pem: ca.certificate_pem().as_bytes().to_vec(),
            service,
            task,
        }
    }

    /// Says what becomes of the next calls of a kind.
    pub fn next(&self, at: At, fate: Fate, times: usize) {
        self.service.orders.lock().unwrap().fates.insert(at, (fate, times));
    }

    /// Says what becomes of all calls from now on.
    pub fn down(&self) {
        for at in [At::Evaluate, At::Endorse, At::Submit, At::CommitStatus, At::Deliver] {
            self.next(at, Fate::Lost(Code::Unavailable, "connection refused"), usize::MAX);
        }
    }

    /// Behaves from now on.
    pub fn heal(&self) {
        *self.service.orders.lock().unwrap() = Orders::default();
    }

    /// Changes what streams send from now on.
    pub fn lie(&self, lie: impl Fn(Block) -> Vec<Sent> + Send + Sync + 'static) {
        self.service.orders.lock().unwrap().lie = Some(Arc::new(lie));
    }

    /// How many calls of a kind came.
    pub fn calls(&self, at: At) -> usize {
        self.service.calls.borrow().get(&at).copied().unwrap_or(0)
    }

    /// Waits until so many calls of a kind have come.
    pub async fn called(&self, at: At, times: usize) {
        let mut calls = self.service.calls.subscribe();
        let came = calls.wait_for(|calls| calls.get(&at).copied().unwrap_or(0) >= times);
        tokio::time::timeout(Duration::from_secs(30), came)
            .await
            .expect("the call comes")
            .unwrap();
    }
}

impl Service {
    fn fate(&self, at: At) -> Option<Fate> {
        let mut orders = self.orders.lock().unwrap();
        let (fate, times) = orders.fates.get_mut(&at)?;
        let fate = fate.clone();
        *times = times.saturating_sub(1);
        if *times == 0 {
            orders.fates.remove(&at);
        }
        Some(fate)
    }

    fn came(&self, at: At) {
        self.calls.send_modify(|calls| *calls.entry(at).or_default() += 1);
    }

    async fn pass<T>(&self, at: At, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<Response<T>, Status> {
        let fate = self.fate(at);
        match fate {
            None => {
                let answer = call.await;
                self.came(at);
                answer
            }
            Some(Fate::Lost(code, message)) => {
                self.came(at);
                Err(Status::new(code, message))
            }
            Some(Fate::AnswerLost(code, message)) => {
                call.await?;
                self.came(at);
                Err(Status::new(code, message))
            }
            Some(Fate::Hung) => {
                self.came(at);
                std::future::pending().await
            }
            Some(Fate::AnswerHung) => {
                call.await?;
                self.came(at);
                std::future::pending().await
            }
        }
    }

    fn up(&self) -> Upstream<Channel> {
        Upstream::new(self.upstream.clone())
            .max_decoding_message_size(MOST)
            .max_encoding_message_size(MOST)
    }
}

#[tonic::async_trait]
impl Gateway for Service {
    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Result<Response<EvaluateResponse>, Status> {
        let mut up = self.up();
        self.pass(At::Evaluate, up.evaluate(request.into_inner())).await
    }

    async fn endorse(&self, request: Request<EndorseRequest>) -> Result<Response<EndorseResponse>, Status> {
        let mut up = self.up();
        self.pass(At::Endorse, up.endorse(request.into_inner())).await
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let mut up = self.up();
        self.pass(At::Submit, up.submit(request.into_inner())).await
    }

    async fn commit_status(&self, request: Request<SignedCommitStatusRequest>) -> Result<Response<CommitStatusResponse>, Status> {
        let mut up = self.up();
        self.pass(At::CommitStatus, up.commit_status(request.into_inner())).await
    }

    type ChaincodeEventsStream = Pin<Box<dyn Stream<Item = Result<ChaincodeEventsResponse, Status>> + Send>>;

    async fn chaincode_events(&self, _: Request<SignedChaincodeEventsRequest>) -> Result<Response<Self::ChaincodeEventsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<DeliverResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Deliver for Service {
    type DeliverStream = Answers;
    type DeliverFilteredStream = Answers;
    type DeliverWithPrivateDataStream = Answers;

    async fn deliver(&self, request: Request<Streaming<Envelope>>) -> Result<Response<Answers>, Status> {
        let mut up = DeliverClient::new(self.upstream.clone()).max_decoding_message_size(MOST);
        let requests = request.into_inner().filter_map(|envelope| std::future::ready(envelope.ok()));
        let answers = self.pass(At::Deliver, up.deliver(requests)).await?.into_inner();
        let orders = Arc::clone(&self.orders);
        let lied = answers.flat_map(move |answer| {
            let lie = orders.lock().unwrap().lie.clone();
            let sent = match (answer, lie) {
                (
                    Ok(DeliverResponse {
                        r#type: Some(Type::Block(block)),
                    }),
                    Some(lie),
                ) => lie(block),
                (other, _) => return stream::iter(vec![Some(other)]),
            };
            let answer = |kind| Some(Ok::<_, Status>(DeliverResponse { r#type: Some(kind) }));
            let sent = sent.into_iter().map(|sent| match sent {
                Sent::Block(block) => answer(Type::Block(block)),
                Sent::Status(status) => answer(Type::Status(status)),
                Sent::Silence => None,
            });
            stream::iter(sent.collect::<Vec<_>>())
        });
        let until_silent = lied.then(|one| match one {
            Some(one) => std::future::ready(one).left_future(),
            None => std::future::pending().right_future(),
        });
        Ok(Response::new(Box::pin(until_silent)))
    }

    async fn deliver_filtered(&self, _: Request<Streaming<Envelope>>) -> Result<Response<Answers>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn deliver_with_private_data(&self, _: Request<Streaming<Envelope>>) -> Result<Response<Answers>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
