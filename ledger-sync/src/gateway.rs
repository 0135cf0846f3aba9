//! A ledger behind a peer's gateway, over gRPC and TLS.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use msp::Signer;
use prost::Message;
use protos::common::{Envelope, Status as DeliverStatus};
use protos::gateway::gateway_client::GatewayClient as Stub;
use protos::gateway::{
    CommitStatusRequest, CommitStatusResponse, EndorseRequest, EvaluateRequest, SignedCommitStatusRequest, SubmitRequest,
};
use protos::peer::deliver_client::DeliverClient;
use protos::peer::{DeliverResponse, TxValidationCode, deliver_response};
use protos::{MAX_GRPC_MESSAGE_BYTES, prost_types};
use state::ids::Channel;
use thiserror::Error;
use tonic::transport::{Certificate, Channel as Connection, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::ledger::{BlockStream, Committed, EvaluateError, Fault, Ledger, Stage, StreamError, SubmitError};
use crate::limits;
use crate::proposal::{self, Range};

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

/// Where a gateway is and how to know that it is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The URL, for example `https://peer0.city:7051`.
    pub endpoint: String,
    /// The certificates of the authorities that may vouch for the server, PEM.
    pub tls_ca_pem: Vec<u8>,
    /// The name in the server's certificate, where it is not the URL's host.
    pub domain: Option<String>,
    /// How long calls may take.
    pub timeouts: Timeouts,
}

/// A gateway can't be called as configured.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Not a URL with TLS.
    #[error("the gateway's endpoint {0:?} has to be an https:// URL")]
    Endpoint(String),
    /// The certificates can't be used.
    #[error("the TLS settings for {endpoint} can't be used: check its CA certificates")]
    Tls {
        /// The endpoint.
        endpoint: String,
        /// What the transport said.
        #[source]
        source: tonic::transport::Error,
    },
}

/// One member's connection to a gateway. It connects when it is first used, and again after it was cut.
#[derive(Clone)]
pub struct GatewayClient {
    connection: Connection,
    endpoint: String,
    timeouts: Timeouts,
    signer: Arc<dyn Signer>,
    chaincode: String,
}

impl GatewayClient {
    /// Prepares the connection; nothing is sent yet. It has to be called inside a Tokio runtime.
    pub fn connect(config: GatewayConfig, signer: Arc<dyn Signer>) -> Result<Self, ConnectError> {
        let GatewayConfig {
            endpoint,
            tls_ca_pem,
            domain,
            timeouts,
        } = config;
        if !endpoint.starts_with("https://") {
            return Err(ConnectError::Endpoint(limits::quoted(&endpoint)));
        }
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(tls_ca_pem));
        if let Some(domain) = domain {
            tls = tls.domain_name(domain);
        }
        let connection = Endpoint::from_shared(endpoint.clone())
            .map_err(|_| ConnectError::Endpoint(limits::quoted(&endpoint)))?
            .tls_config(tls)
            .map_err(|source| ConnectError::Tls {
                endpoint: endpoint.clone(),
                source,
            })?
            .connect_timeout(timeouts.connect)
            .http2_keep_alive_interval(limits::KEEP_ALIVE)
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Self {
            connection,
            endpoint,
            timeouts,
            signer,
            chaincode: chaincode::NAME.to_owned(),
        })
    }

    fn stub(&self) -> Stub<Connection> {
        Stub::new(self.connection.clone())
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }

    async fn call<T>(
        &self,
        stage: Stage,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>> + Send,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(within, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Fault::from_status(stage, &self.endpoint, &status)),
            Err(_) => Err(Fault::deadline(stage, &self.endpoint, within)),
        }
    }

    /// Has the gateway collect endorsements, and signs the transaction that it puts together.
    async fn endorse(&self, channel: &Channel, function: &str, args: &[Vec<u8>]) -> Result<(String, Envelope), SubmitError> {
        let signer = self.signer.as_ref();
        let proposed = proposal::propose(signer, channel, &self.chaincode, all_args(function, args), now())?;
        let mut request = Request::new(EndorseRequest {
            transaction_id: proposed.tx_id.clone(),
            channel_id: channel.to_string(),
            proposed_transaction: Some(proposed.signed(signer)?),
            endorsing_organizations: Vec::new(),
        });
        request.set_timeout(self.timeouts.endorse);
        let mut stub = self.stub();
        let answer = self.call(Stage::Endorse, self.timeouts.endorse, stub.endorse(request)).await;
        let answer = answer.map_err(|fault| match fault.refusal() {
            Some((status, message)) => SubmitError::Refused {
                function: function.to_owned(),
                status,
                message,
            },
            None => SubmitError::Endorse(fault),
        })?;
        let mut envelope = answer.prepared_transaction.ok_or_else(|| SubmitError::Answer {
            endpoint: self.endpoint.clone(),
            what: "a transaction",
        })?;
        // What is signed has to be what was proposed: the gateway could put anything together.
        proposed.check(&envelope).map_err(|source| SubmitError::Other {
            endpoint: self.endpoint.clone(),
            source,
        })?;
        envelope.signature = signer.sign(&envelope.payload)?;
        Ok((proposed.tx_id, envelope))
    }

    async fn send(&self, channel: &Channel, tx_id: &str, envelope: &Envelope) -> Result<(), Fault> {
        let mut request = Request::new(SubmitRequest {
            transaction_id: tx_id.to_owned(),
            channel_id: channel.to_string(),
            prepared_transaction: Some(envelope.clone()),
        });
        request.set_timeout(self.timeouts.submit);
        let mut stub = self.stub();
        self.call(Stage::Submit, self.timeouts.submit, stub.submit(request)).await.map(drop)
    }

    async fn commit_status(&self, channel: &Channel, tx_id: &str) -> Result<CommitStatusResponse, SubmitError> {
        let request = CommitStatusRequest {
            transaction_id: tx_id.to_owned(),
            channel_id: channel.to_string(),
            identity: self.signer.identity(),
        }
        .encode_to_vec();
        let signature = self.signer.sign(&request)?;
        let mut request = Request::new(SignedCommitStatusRequest { request, signature });
        request.set_timeout(self.timeouts.commit);
        let mut stub = self.stub();
        let call = self.call(Stage::CommitStatus, self.timeouts.commit, stub.commit_status(request));
        call.await.map_err(|source| SubmitError::Unknown {
            tx_id: tx_id.to_owned(),
            source,
        })
    }

    /// Sends one signed envelope until its outcome is known. Sending the same one again is harmless: a ledger takes it once.
    async fn settle(&self, channel: &Channel, tx_id: &str, envelope: &Envelope) -> Result<CommitStatusResponse, SubmitError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = self.send(channel, tx_id, envelope).await;
            if let Err(source) = &sent
                && (!source.transient() || attempt > limits::RESENDS)
            {
                return Err(SubmitError::Submit {
                    tx_id: tx_id.to_owned(),
                    source: source.clone(),
                });
            }
            if sent.is_ok() {
                match self.commit_status(channel, tx_id).await {
                    Ok(status) => return Ok(status),
                    Err(SubmitError::Unknown { source, .. }) if source.transient() && attempt <= limits::RESENDS => {}
                    Err(error) => return Err(error),
                }
            }
            tracing::debug!(
                tx_id,
                attempt,
                "the outcome of a transaction is not known; the same envelope is sent again"
            );
            pause(attempt).await;
        }
    }

    async fn deliver(&self, channel: &Channel, range: Range) -> Result<tonic::Streaming<DeliverResponse>, StreamError> {
        let envelope = proposal::seek(self.signer.as_ref(), channel, range, now())?;
        let mut stub = DeliverClient::new(self.connection.clone()).max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES);
        // The request's side stays open: a peer may take its end for ours.
        let requests = stream::once(async { envelope }).chain(stream::pending());
        // No deadline here: a peer sends its headers with the first block, and a quiet channel may not have it for days.
        let answer = stub.deliver(requests).await.map_err(|status| StreamError::Call {
            channel: channel.clone(),
            source: Fault::from_status(Stage::Blocks, &self.endpoint, &status),
        })?;
        Ok(answer.into_inner())
    }
}

/// The function's name and its arguments, as the chaincode gets them.
fn all_args(function: &str, args: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all = Vec::with_capacity(args.len() + 1);
    all.push(function.as_bytes().to_vec());
    all.extend_from_slice(args);
    all
}

fn now() -> prost_types::Timestamp {
    // A clock before 1970 is refused by the ledger, not here.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

async fn pause(attempt: u32) {
    tokio::time::sleep(crate::follow::jittered(Duration::from_millis(50) * 2u32.pow(attempt.min(6)))).await;
}

#[async_trait]
impl Ledger for GatewayClient {
    async fn submit(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        for attempt in 1..=limits::ENDORSEMENTS {
            let (tx_id, envelope) = self.endorse(channel, function, &args).await?;
            let status = self.settle(channel, &tx_id, &envelope).await?;
            match status.result() {
                TxValidationCode::Valid => {
                    return Ok(Committed {
                        tx_id,
                        block: status.block_number,
                        code: TxValidationCode::Valid,
                    });
                }
                TxValidationCode::MvccReadConflict | TxValidationCode::PhantomReadConflict => pause(attempt).await,
                code => {
                    return Err(SubmitError::Invalid {
                        tx_id,
                        block: status.block_number,
                        code,
                    });
                }
            }
        }
        Err(SubmitError::Conflict {
            function: function.to_owned(),
            attempts: limits::ENDORSEMENTS,
        })
    }

    async fn evaluate(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        let signer = self.signer.as_ref();
        let proposed = proposal::propose(signer, channel, &self.chaincode, all_args(function, &args), now())?;
        let mut request = Request::new(EvaluateRequest {
            transaction_id: proposed.tx_id.clone(),
            channel_id: channel.to_string(),
            proposed_transaction: Some(proposed.signed(signer)?),
            target_organizations: Vec::new(),
        });
        request.set_timeout(self.timeouts.evaluate);
        let mut stub = self.stub();
        let answer = self.call(Stage::Evaluate, self.timeouts.evaluate, stub.evaluate(request)).await;
        let answer = answer.map_err(|fault| match fault.refusal() {
            Some((status, message)) => EvaluateError::Refused {
                function: function.to_owned(),
                status,
                message,
            },
            None => EvaluateError::Call(fault),
        })?;
        Ok(answer.result.unwrap_or_default().payload)
    }

    async fn blocks(&self, channel: &Channel, from: u64) -> Result<BlockStream, StreamError> {
        let (client, channel) = (self.clone(), channel.clone());
        let endpoint = self.endpoint.clone();
        let ended = StreamError::Ended {
            endpoint: endpoint.clone(),
            channel: channel.clone(),
            what: "the peer closed the stream",
        };
        let opened = {
            let channel = channel.clone();
            stream::once(async move { client.deliver(&channel, Range::From(from)).await })
        };
        let blocks = opened
            .map_ok(move |responses| {
                let (endpoint, channel) = (endpoint.clone(), channel.clone());
                responses.map(move |response| block(response, &endpoint, &channel))
            })
            .try_flatten();
        Ok(blocks.chain(stream::once(async { Err(ended) })).boxed())
    }

    async fn height(&self, channel: &Channel) -> Result<u64, StreamError> {
        let ask = async {
            let mut responses = self.deliver(channel, Range::Newest).await?;
            let first = responses.next().await.ok_or_else(|| StreamError::Ended {
                endpoint: self.endpoint.clone(),
                channel: channel.clone(),
                what: "no newest block came",
            })?;
            let newest = block(first, &self.endpoint, channel)?;
            Ok(newest.header.map_or(0, |header| header.number.saturating_add(1)))
        };
        let within = self.timeouts.evaluate;
        tokio::time::timeout(within, ask).await.unwrap_or_else(|_| {
            Err(StreamError::Call {
                channel: channel.clone(),
                source: Fault::deadline(Stage::Blocks, &self.endpoint, within),
            })
        })
    }
}

fn block(response: Result<DeliverResponse, Status>, endpoint: &str, channel: &Channel) -> Result<protos::common::Block, StreamError> {
    let ended = |what| StreamError::Ended {
        endpoint: endpoint.to_owned(),
        channel: channel.clone(),
        what,
    };
    let response = response.map_err(|status| StreamError::Call {
        channel: channel.clone(),
        source: Fault::from_status(Stage::Blocks, endpoint, &status),
    })?;
    match response.r#type {
        Some(deliver_response::Type::Block(block)) => Ok(block),
        Some(deliver_response::Type::Status(status)) if status == DeliverStatus::Success as i32 => {
            Err(ended("the peer says that there are no more"))
        }
        Some(deliver_response::Type::Status(status)) => Err(StreamError::Refused {
            endpoint: endpoint.to_owned(),
            channel: channel.clone(),
            status,
        }),
        _ => Err(ended("the peer sent something else than a full block")),
    }
}
