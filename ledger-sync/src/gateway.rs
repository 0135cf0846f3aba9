//! A ledger behind its peers' gateways, over gRPC and TLS.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use msp::{Certificate, Signer};
use prost::Message;
use protos::common::{BlockchainInfo, Status as DeliverStatus};
use protos::gateway::EvaluateRequest;
use protos::gateway::gateway_client::GatewayClient as Stub;
use protos::peer::deliver_client::DeliverClient;
use protos::peer::{DeliverResponse, deliver_response};
use protos::{MAX_GRPC_MESSAGE_BYTES, prost_types};
use sha2::{Digest as _, Sha256};
use state::ids::Channel;
use state::time::Timestamp;
use tonic::transport::Channel as Connection;
use tonic::{Code, Request, Response, Status};

use crate::ledger::{BlockStream, Committed, EvaluateError, Fault, Ledger, Resolved, Stage, StreamError, SubmitError};
use crate::limits;
use crate::peers::{Peer, Peers};
use crate::pending::Pending;
use crate::proposal::{self, Range};

pub use crate::peers::{ClientTls, ConnectError, PeerConfig};

/// The system chaincode of every peer that tells a channel's height.
const QUERY_CHAINCODE: &str = "qscc";

/// How long the calls of a gateway may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting.
    pub connect: Duration,
    /// Asking the chaincode.
    pub evaluate: Duration,
    /// Collecting endorsements.
    pub endorse: Duration,
    /// Handing a transaction to the orderer.
    pub submit: Duration,
    /// Waiting for a commit, each time.
    pub commit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            evaluate: Duration::from_secs(30),
            endorse: Duration::from_secs(45),
            submit: Duration::from_secs(10),
            commit: Duration::from_secs(60),
        }
    }
}

/// Where the peers are, and what a client keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The peers, in the order in which they are tried: at least one.
    pub peers: Vec<PeerConfig>,
    /// What is shown to peers that ask for a client certificate.
    pub client_tls: Option<ClientTls>,
    /// How long calls may take.
    pub timeouts: Timeouts,
    /// The folder of transactions whose outcome is not known yet.
    pub pending: Pending,
}

/// Tells the time: Unix seconds.
pub type Clock = dyn Fn() -> i64 + Send + Sync;

/// One member's connections to its peers.
#[derive(Clone)]
pub struct GatewayClient {
    pub(crate) peers: Arc<Peers>,
    pub(crate) timeouts: Timeouts,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) chaincode: String,
    pub(crate) pending: Pending,
    clock: Arc<Clock>,
    /// SHA-256 of the TLS client certificate: a peer that asks for one wants to see it in a request for blocks, too.
    tls_hash: Vec<u8>,
}

impl GatewayClient {
    /// Prepares the connections; nothing is sent yet. It has to be called inside a Tokio runtime.
    pub fn connect(config: GatewayConfig, signer: Arc<dyn Signer>) -> Result<Self, ConnectError> {
        let GatewayConfig {
            peers,
            client_tls,
            timeouts,
            pending,
        } = config;
        let tls_hash = match &client_tls {
            None => Vec::new(),
            Some(client) => {
                let certificate = Certificate::from_pem(&client.certificate_pem).map_err(ConnectError::ClientCertificate)?;
                Sha256::digest(certificate.der()).to_vec()
            }
        };
        Ok(Self {
            peers: Arc::new(Peers::connect(peers, client_tls.as_ref(), timeouts.connect)?),
            timeouts,
            signer,
            chaincode: chaincode::NAME.to_owned(),
            pending,
            clock: Arc::new(present),
            tls_hash,
        })
    }

    /// Returns the same client with another clock.
    pub fn with_clock(self, clock: Arc<Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The moment that stands in a request. A certificate that has expired is noticed here: peers only say «access denied».
    pub(crate) fn now(&self) -> Result<prost_types::Timestamp, msp::MspError> {
        let seconds = (self.clock)();
        self.signer.certificate().check_expiry(seconds)?;
        Ok(prost_types::Timestamp { seconds, nanos: 0 })
    }

    pub(crate) fn stub(&self, peer: &Peer) -> Stub<Connection> {
        Stub::new(peer.connection.clone())
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }

    pub(crate) async fn call<T>(
        stage: Stage,
        peer: &Peer,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>> + Send,
    ) -> Result<T, Fault> {
        let started = tokio::time::Instant::now();
        match tokio::time::timeout(within, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // The request carries the same deadline, and the transport calls it a cancellation.
            Ok(Err(status)) if status.code() == Code::Cancelled && started.elapsed() >= within * 9 / 10 => {
                Err(Fault::deadline(stage, &peer.endpoint, within))
            }
            Ok(Err(status)) => Err(Fault::from_status(stage, &peer.endpoint, &status)),
            Err(_) => Err(Fault::deadline(stage, &peer.endpoint, within)),
        }
    }

    /// Makes a call that has no effect at one peer after the other, until one answers or says what they would all say.
    pub(crate) async fn at_any<T, F, C>(&self, channel: &Channel, call: C) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>> + Send,
        C: Fn(Arc<Peer>) -> F + Send,
    {
        let mut told: Option<Fault> = None;
        for peer in self.peers.in_turn(channel) {
            match call(Arc::clone(&peer)).await {
                Ok(answer) => return Ok(answer),
                Err(fault) if fault.refusal().is_some() || !fault.transient() => return Err(fault),
                Err(fault) => {
                    self.peers.leave(channel, &peer.endpoint);
                    // What one peer has answered tells more than that another one can't be reached.
                    if told.as_ref().is_none_or(|told| told.code == tonic::Code::Unavailable) {
                        told = Some(fault);
                    }
                }
            }
        }
        Err(told.expect("a client has at least one peer, and each was asked"))
    }

    async fn evaluate_at(&self, peer: Arc<Peer>, channel: &Channel, chaincode: &str, args: &[Vec<u8>]) -> Result<Vec<u8>, EvaluateError> {
        let signer = self.signer.as_ref();
        let proposed = proposal::propose(signer, channel, chaincode, args.to_vec(), self.now()?)?;
        let mut request = Request::new(EvaluateRequest {
            transaction_id: proposed.tx_id.clone(),
            channel_id: channel.to_string(),
            proposed_transaction: Some(proposed.signed(signer)?),
            target_organizations: Vec::new(),
        });
        request.set_timeout(self.timeouts.evaluate);
        let mut stub = self.stub(&peer);
        let answer = Self::call(Stage::Evaluate, &peer, self.timeouts.evaluate, stub.evaluate(request)).await;
        Ok(answer.map_err(EvaluateError::Call)?.result.unwrap_or_default().payload)
    }

    async fn deliver(&self, peer: &Peer, channel: &Channel, range: Range) -> Result<tonic::Streaming<DeliverResponse>, StreamError> {
        let envelope = proposal::seek(self.signer.as_ref(), channel, range, self.now()?, &self.tls_hash)?;
        let mut stub = DeliverClient::new(peer.connection.clone()).max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES);
        // The request's side stays open: a peer may take its end for ours.
        let requests = stream::once(async { envelope }).chain(stream::pending());
        // No deadline here: a peer sends its headers with the first block, and a quiet channel may not have it for days.
        let answer = stub
            .deliver(requests)
            .await
            .map_err(|status| stream_fault(&status, &peer.endpoint, channel))?;
        Ok(answer.into_inner())
    }

    /// Asks one peer how many blocks it has: by its query chaincode, and where that can't be asked, by its newest block.
    async fn height_at(&self, peer: Arc<Peer>, channel: &Channel) -> Result<u64, StreamError> {
        let args = [b"GetChainInfo".to_vec(), channel.as_str().as_bytes().to_vec()];
        let asked = self.evaluate_at(Arc::clone(&peer), channel, QUERY_CHAINCODE, &args).await;
        match asked.as_deref().map(BlockchainInfo::decode) {
            Ok(Ok(info)) => return Ok(info.height),
            Err(EvaluateError::Call(fault)) if fault.code == Code::DeadlineExceeded => {
                return Err(StreamError::Call {
                    channel: channel.clone(),
                    source: fault.clone(),
                });
            }
            // No such chaincode for this member, or not through this gateway: the blocks themselves tell.
            _ => {}
        }
        let ask = async {
            let mut responses = self.deliver(&peer, channel, Range::Newest).await?;
            let first = responses.next().await.ok_or_else(|| StreamError::Ended {
                endpoint: peer.endpoint.clone(),
                channel: channel.clone(),
                what: "no newest block came",
            })?;
            let newest = block(first, &peer.endpoint, channel, || (self.clock)())?;
            Ok(newest.header.map_or(0, |header| header.number.saturating_add(1)))
        };
        let within = self.timeouts.evaluate;
        tokio::time::timeout(within, ask).await.unwrap_or_else(|_| {
            Err(StreamError::Call {
                channel: channel.clone(),
                source: Fault::deadline(Stage::Blocks, &peer.endpoint, within),
            })
        })
    }
}

/// The function's name and its arguments, as the chaincode gets them.
pub(crate) fn all_args(function: &str, args: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all = Vec::with_capacity(args.len() + 1);
    all.push(function.as_bytes().to_vec());
    all.extend_from_slice(args);
    all
}

fn present() -> i64 {
    // A clock before 1970 is refused by the ledger, not here.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Ledger for GatewayClient {
    async fn submit(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        self.transact(channel, function, &args).await
    }

    async fn resolve(&self, channel: &Channel, function: Option<&str>) -> Result<Vec<Resolved>, SubmitError> {
        self.resolve_pending(channel, function).await
    }

    async fn evaluate(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        let all = all_args(function, &args);
        let asked = self
            .at_any(channel, |peer| {
                let all = &all;
                async move {
                    match self.evaluate_at(peer, channel, &self.chaincode, all).await {
                        Err(EvaluateError::Call(fault)) => Err(fault),
                        // What was not sent is the same at every peer.
                        other => Ok(other),
                    }
                }
            })
            .await;
        match asked {
            Ok(answer) => answer,
            Err(fault) => Err(match fault.refusal() {
                Some((status, message)) => EvaluateError::Refused {
                    function: function.to_owned(),
                    status,
                    message,
                },
                None => EvaluateError::Call(fault),
            }),
        }
    }

    async fn blocks(&self, channel: &Channel, from: u64) -> Result<BlockStream, StreamError> {
        let (client, channel) = (self.clone(), channel.clone());
        let peer = self.peers.present(&channel);
        let endpoint = peer.endpoint.clone();
        let ended = StreamError::Ended {
            endpoint: endpoint.clone(),
            channel: channel.clone(),
            what: "the peer closed the stream",
        };
        let clock = Arc::clone(&self.clock);
        let opened = {
            let channel = channel.clone();
            stream::once(async move { client.deliver(&peer, &channel, Range::From(from)).await })
        };
        let blocks = opened
            .map_ok(move |responses| {
                let (endpoint, channel, clock) = (endpoint.clone(), channel.clone(), Arc::clone(&clock));
                responses.map(move |response| block(response, &endpoint, &channel, || clock()))
            })
            .try_flatten();
        Ok(blocks.chain(stream::once(async { Err(ended) })).boxed())
    }

    /// Asks every peer, and takes the greatest number: one that is cut off from the orderers doesn't know what it misses.
    async fn height(&self, channel: &Channel) -> Result<u64, StreamError> {
        let mut asked: stream::FuturesUnordered<_> = self
            .peers
            .in_turn(channel)
            .into_iter()
            .enumerate()
            .map(|(place, peer)| async move { (place, self.height_at(peer, channel).await) })
            .collect();
        let (mut greatest, mut failed): (Option<u64>, Option<(usize, StreamError)>) = (None, None);
        let mut patience = None;
        loop {
            let next = match patience {
                None => asked.next().await,
                // Whoever hasn't answered shortly after another one is not waited for.
                Some(until) => tokio::time::timeout_at(until, asked.next()).await.unwrap_or(None),
            };
            match next {
                Some((_, Ok(height))) => {
                    greatest = greatest.max(Some(height));
                    patience.get_or_insert_with(|| tokio::time::Instant::now() + limits::OTHER_PEERS);
                }
                // What the channel's own peer says is told.
                Some((place, Err(error))) => {
                    if failed.as_ref().is_none_or(|(other, _)| place < *other) {
                        failed = Some((place, error));
                    }
                }
                None => break,
            }
        }
        match (greatest, failed) {
            (Some(height), _) => Ok(height),
            (None, failed) => Err(failed
                .expect("a client has at least one peer, and each gave an answer or an error")
                .1),
        }
    }

    async fn joined(&self) -> Result<BTreeSet<Channel>, EvaluateError> {
        self.joined_anywhere().await
    }

    fn avoid(&self, channel: &Channel, endpoint: &str) {
        self.peers.leave(channel, endpoint);
    }

    fn endpoint(&self, channel: &Channel) -> String {
        self.peers.present(channel).endpoint.clone()
    }
}

fn stream_fault(status: &Status, endpoint: &str, channel: &Channel) -> StreamError {
    let source = Fault::from_status(Stage::Blocks, endpoint, status);
    if source.is_too_large() {
        return StreamError::TooLarge {
            endpoint: endpoint.to_owned(),
            channel: channel.clone(),
            source,
        };
    }
    StreamError::Call {
        channel: channel.clone(),
        source,
    }
}

fn block(
    response: Result<DeliverResponse, Status>,
    endpoint: &str,
    channel: &Channel,
    clock: impl Fn() -> i64,
) -> Result<protos::common::Block, StreamError> {
    let ended = |what| StreamError::Ended {
        endpoint: endpoint.to_owned(),
        channel: channel.clone(),
        what,
    };
    let response = response.map_err(|status| stream_fault(&status, endpoint, channel))?;
    match response.r#type {
        Some(deliver_response::Type::Block(block)) => Ok(block),
        Some(deliver_response::Type::Status(status)) if status == DeliverStatus::Success as i32 => {
            Err(ended("the peer says that there are no more"))
        }
        Some(deliver_response::Type::Status(status)) if status == DeliverStatus::BadRequest as i32 => Err(StreamError::NotAccepted {
            endpoint: endpoint.to_owned(),
            channel: channel.clone(),
            at: Timestamp::clamped(clock()),
        }),
        Some(deliver_response::Type::Status(status)) => Err(StreamError::Refused {
            endpoint: endpoint.to_owned(),
            channel: channel.clone(),
            status,
        }),
        _ => Err(ended("the peer sent something else than a full block")),
    }
}
