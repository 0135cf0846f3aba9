//! A peer that says what a test wants it to say, and a server for it.

use std::time::Duration;

use ccaas::{Limits, Options, Program, Server};
use chaincode::stub::{Invocation, Response, Stub};
use prost::Message;
use protos::peer::chaincode_client::ChaincodeClient;
use protos::peer::chaincode_message::Type;
use protos::peer::{self, ChaincodeId, ChaincodeInput, ChaincodeMessage, QueryResponse, QueryResultBytes};
use protos::queryresult::Kv;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use crate::proposals::{CHANNEL, Proposed};

pub(crate) const PACKAGE: &str = "charter:0000000000000000000000000000000000000000000000000000000000000000";

/// No answer takes this long that comes at all.
const LATE: Duration = Duration::from_secs(20);

/// Serves a function with some bounds.
pub(crate) async fn serve(limits: Limits, run: impl Fn(&mut dyn Stub, &Invocation<'_>) -> Response + Send + Sync + 'static) -> Server {
    let mut options = Options::new(PACKAGE);
    options.limits = limits;
    options.program = Program::new(run);
    Server::bind("127.0.0.1:0", options).await.unwrap()
}

/// An answer without a refusal.
pub(crate) fn ok(payload: &[u8]) -> Response {
    Response {
        status: 200,
        message: String::new(),
        payload: payload.to_vec(),
    }
}

pub(crate) struct Peer {
    outbound: mpsc::Sender<ChaincodeMessage>,
    inbound: Streaming<ChaincodeMessage>,
}

impl Peer {
    /// Opens a stream and says nothing.
    pub(crate) async fn connect(server: &Server) -> Self {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address()))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let (outbound, messages) = mpsc::channel(256);
        let inbound = ChaincodeClient::new(channel)
            .connect(Request::new(ReceiverStream::new(messages)))
            .await
            .unwrap()
            .into_inner();
        Self { outbound, inbound }
    }

    /// Opens a stream and registers the chaincode.
    pub(crate) async fn registered(server: &Server) -> Self {
        let mut peer = Self::connect(server).await;
        let register = peer.next().await;
        assert_eq!(register.r#type(), Type::Register);
        assert_eq!(ChaincodeId::decode(register.payload.as_slice()).unwrap().name, PACKAGE);
        peer.say(Type::Registered, "", b"").await;
        peer.say(Type::Ready, "", b"").await;
        peer
    }

    pub(crate) async fn send(&self, message: ChaincodeMessage) {
        self.outbound.send(message).await.unwrap();
    }

    /// Sends a message of a transaction.
    pub(crate) async fn say(&self, kind: Type, tx_id: &str, payload: &[u8]) {
        self.send(message(kind, tx_id, payload)).await;
    }

    /// Starts a transaction.
    pub(crate) async fn start(&self, proposed: &Proposed) {
        self.send(transaction(proposed)).await;
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> ChaincodeMessage {
        self.received().await.unwrap().expect("the stream goes on")
    }

    /// How the stream ends, whatever comes before that.
    pub(crate) async fn end(mut self) -> Result<(), Status> {
        while self.received().await?.is_some() {}
        Ok(())
    }

    pub(crate) async fn received(&mut self) -> Result<Option<ChaincodeMessage>, Status> {
        tokio::time::timeout(LATE, self.inbound.message()).await.expect("an answer in time")
    }
}

pub(crate) fn message(kind: Type, tx_id: &str, payload: &[u8]) -> ChaincodeMessage {
    ChaincodeMessage {
        r#type: kind.into(),
        txid: tx_id.into(),
        channel_id: CHANNEL.into(),
        payload: payload.to_vec(),
        ..ChaincodeMessage::default()
    }
}

pub(crate) fn transaction(proposed: &Proposed) -> ChaincodeMessage {
    let input = ChaincodeInput {
        args: proposed.args.clone(),
        ..ChaincodeInput::default()
    };
    ChaincodeMessage {
        proposal: Some(proposed.signed.clone()),
        ..message(Type::Transaction, &proposed.tx_id, &input.encode_to_vec())
    }
}

/// Demands that a message ends a transaction well.
#[track_caller]
pub(crate) fn completed(message: &ChaincodeMessage) -> peer::Response {
    assert_eq!(message.r#type(), Type::Completed, "{}", text(message));
    peer::Response::decode(message.payload.as_slice()).unwrap()
}

/// Demands that a message is an error that says so.
#[track_caller]
pub(crate) fn refused(message: &ChaincodeMessage, words: &str) {
    assert_eq!(message.r#type(), Type::Error);
    assert!(text(message).contains(words), "no {words:?} in {:?}", text(message));
}

pub(crate) fn text(message: &ChaincodeMessage) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

/// A page of a range.
pub(crate) fn page(keys: &[String], id: &str, has_more: bool) -> Vec<u8> {
    let results = keys.iter().map(|key| QueryResultBytes {
        result_bytes: Kv {
            namespace: chaincode::NAME.into(),
            key: key.clone(),
            value: key.as_bytes().to_vec(),
        }
        .encode_to_vec(),
    });
    QueryResponse {
        results: results.collect(),
        has_more,
        id: id.into(),
        metadata: Vec::new(),
    }
    .encode_to_vec()
}
