//! The peer's side, against a chaincode that says what a test wants it to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ccaas::{Dial, External, Options, PeerLimits, Program, Server};
use chaincode::stub::{Response, Stub, StubError};
use prost::Message;
use protos::peer::chaincode_message::Type;
use protos::peer::chaincode_server::{Chaincode, ChaincodeServer};
use protos::peer::{
    ChaincodeEvent, ChaincodeId, ChaincodeMessage, DelState, GetHistoryForKey, GetQueryResult, GetState, GetStateByRange, PutState,
    QueryResponse, QueryStateClose, QueryStateNext, Response as Answer,
};
use protos::queryresult::Kv;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status, Streaming};

use crate::peer::{PACKAGE, message, ok, refused, text};
use crate::proposals::{Proposed, args, somebody};

/// A ledger's stub over 250 keys.
struct Keys {
    values: BTreeMap<String, Vec<u8>>,
    writes: BTreeMap<String, Option<Vec<u8>>>,
    event: Option<(String, Vec<u8>)>,
}

impl Keys {
    fn new() -> Self {
        Self {
            values: (0..250).map(|number| (format!("k{number:03}"), b"v".to_vec())).collect(),
            writes: BTreeMap::new(),
            event: None,
        }
    }
}

impl Stub for Keys {
    fn get_state(&mut self, key: &str) -> Result<Option<Vec<u8>>, StubError> {
        match key {
            "broken" => Err(StubError("the disk is full".into())),
            key => Ok(self.values.get(key).cloned()),
        }
    }
    fn get_state_by_range(&mut self, start: &str, end: &str) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        let inside = self.values.range(start.to_owned()..end.to_owned());
        Ok(inside.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
    fn put_state(&mut self, key: &str, value: Vec<u8>) {
        self.writes.insert(key.to_owned(), Some(value));
    }
    fn del_state(&mut self, key: &str) {
        self.writes.insert(key.to_owned(), None);
    }
    fn set_event(&mut self, name: &str, payload: Vec<u8>) {
        self.event = Some((name.to_owned(), payload));
    }
}

/// A chaincode's end of one stream.
struct Script {
    inbound: Streaming<ChaincodeMessage>,
    outbound: mpsc::Sender<Result<ChaincodeMessage, Status>>,
}

impl Script {
    async fn next(&mut self) -> ChaincodeMessage {
        self.inbound.message().await.unwrap().expect("the stream goes on")
    }
    async fn send(&self, message: ChaincodeMessage) {
        self.outbound.send(Ok(message)).await.unwrap();
    }
    async fn register(&mut self) {
        let id = ChaincodeId {
            name: PACKAGE.into(),
            ..ChaincodeId::default()
        };
        self.send(message(Type::Keepalive, "", b"")).await;
        self.send(message(Type::Register, "", &id.encode_to_vec())).await;
        assert_eq!(self.next().await.r#type(), Type::Registered);
        assert_eq!(self.next().await.r#type(), Type::Ready);
    }
    /// Keeps the stream open until the peer lets go.
    async fn held(mut self) {
        while let Ok(Some(_)) = self.inbound.message().await {}
    }
    /// The next transaction's id.
    async fn transaction(&mut self) -> String {
        let message = self.next().await;
        assert_eq!(message.r#type(), Type::Transaction);
        message.txid
    }
    /// Makes one call and gives its answer.
    async fn call(&mut self, tx_id: &str, kind: Type, payload: Vec<u8>) -> ChaincodeMessage {
        self.send(message(kind, tx_id, &payload)).await;
        self.next().await
    }
    async fn complete(&self, tx_id: &str) {
        let answer = Answer {
            status: 200,
            payload: b"done".to_vec(),
            ..Answer::default()
        };
        let event = ChaincodeEvent {
            event_name: "told".into(),
            payload: b"of it".to_vec(),
            ..ChaincodeEvent::default()
        };
        self.send(ChaincodeMessage {
            chaincode_event: Some(event),
            ..message(Type::Completed, tx_id, &answer.encode_to_vec())
        })
        .await;
    }
}

type Play = dyn Fn(Script) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

struct Scripted(Arc<Play>);

#[tonic::async_trait]
impl Chaincode for Scripted {
    type ConnectStream = ReceiverStream<Result<ChaincodeMessage, Status>>;
    async fn connect(&self, request: Request<Streaming<ChaincodeMessage>>) -> Result<tonic::Response<Self::ConnectStream>, Status> {
        let (outbound, answers) = mpsc::channel(64);
        tokio::spawn((self.0)(Script {
            inbound: request.into_inner(),
            outbound,
        }));
        Ok(tonic::Response::new(ReceiverStream::new(answers)))
    }
}

/// Serves a script on every stream.
async fn scripted<F>(play: impl Fn(Script) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = ChaincodeServer::new(Scripted(Arc::new(move |script| Box::pin(play(script)))));
    let served = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(served);
    address
}

/// Runs one transaction.
async fn run(external: &External, number: u64) -> (Response, Keys) {
    let external = external.clone();
    let proposed = Proposed::new(number, &somebody(), &args(&["a"]));
    tokio::task::spawn_blocking(move || {
        let mut keys = Keys::new();
        let response = external.run(&mut keys, &proposed.invocation(), &proposed.signed);
        (response, keys)
    })
    .await
    .unwrap()
}

fn quick(address: SocketAddr) -> Dial {
    let mut dial = Dial::new(address.to_string());
    dial.limits = PeerLimits {
        dial: Duration::from_millis(500),
        registration: Duration::from_millis(200),
        execution: Duration::from_millis(300),
        ..PeerLimits::default()
    };
    dial
}

#[tokio::test]
async fn every_call_is_answered_or_refused_with_a_reason() {
    let address = scripted(|mut script| async move {
        script.register().await;
        let tx = script.transaction().await;
        let get = |key: &str, collection: &str| {
            GetState {
                key: key.into(),
                collection: collection.into(),
            }
            .encode_to_vec()
        };
        let got = script.call(&tx, Type::GetState, get("k007", "")).await;
        assert_eq!((got.r#type(), got.payload.as_slice()), (Type::Response, &b"v"[..]));
        assert!(script.call(&tx, Type::GetState, get("absent", "")).await.payload.is_empty());
        let put = |key: &str, value: &[u8], collection: &str| {
            PutState {
                key: key.into(),
                value: value.to_vec(),
                collection: collection.into(),
            }
            .encode_to_vec()
        };
        let del = |collection: &str| {
            DelState {
                key: "k001".into(),
                collection: collection.into(),
            }
            .encode_to_vec()
        };
        for (kind, payload) in [
            (Type::PutState, put("new", b"value", "")),
            (Type::PutState, put("k002", b"", "")),
            (Type::DelState, del("")),
        ] {
            assert_eq!(script.call(&tx, kind, payload).await.r#type(), Type::Response);
        }
        let range = |collection: &str, metadata: &[u8]| {
            GetStateByRange {
                start_key: "k".into(),
                end_key: "l".into(),
                collection: collection.into(),
                metadata: metadata.to_vec(),
            }
            .encode_to_vec()
        };
        let query = GetQueryResult {
            query: "{}".into(),
            ..GetQueryResult::default()
        };
        let history = GetHistoryForKey { key: "k001".into() };
        let next = QueryStateNext { id: "none".into() };
        for (kind, payload, words) in [
            (Type::GetState, get("broken", ""), "the disk is full"),
            (Type::GetState, get("k001", "secrets"), "no collection secrets"),
            (Type::PutState, put("a", b"b", "secrets"), "private data"),
            (Type::DelState, del("secrets"), "private data"),
            (Type::GetStateByRange, range("secrets", b""), "private data"),
            (Type::GetPrivateDataHash, get("k001", "secrets"), "private data"),
            (Type::PurgePrivateData, get("k001", "secrets"), "private data"),
            (Type::GetStateByRange, range("", b"\x08\x05"), "bookmarks"),
            (Type::GetQueryResult, query.encode_to_vec(), "rich queries"),
            (Type::GetHistoryForKey, history.encode_to_vec(), "no history"),
            (Type::InvokeChaincode, Vec::new(), "call another"),
            (Type::GetStateMetadata, Vec::new(), "GET_STATE_METADATA"),
            (Type::WriteBatchState, Vec::new(), "WRITE_BATCH_STATE"),
            (Type::QueryStateNext, next.encode_to_vec(), "query iterator not found"),
            (Type::PutState, put("", b"value", ""), "a key is not empty"),
            (Type::GetState, b"\xff".to_vec(), "unmarshal failed"),
        ] {
            let told = script.call(&tx, kind, payload).await;
            refused(&told, words);
            assert!(text(&told).starts_with(&format!("{} failed: transaction ID: {tx}: ", kind.as_str_name())));
        }
        let page = |answer: ChaincodeMessage| {
            assert_eq!(answer.r#type(), Type::Response, "{}", text(&answer));
            let page = QueryResponse::decode(answer.payload.as_slice()).unwrap();
            let keys = page.results.iter().map(|result| {
                let entry = Kv::decode(result.result_bytes.as_slice()).unwrap();
                assert_eq!((entry.namespace.as_str(), entry.value.as_slice()), (chaincode::NAME, &b"v"[..]));
                entry.key
            });
            (keys.collect::<Vec<_>>(), page.has_more, page.id)
        };
        let (mut keys, more, id) = page(script.call(&tx, Type::GetStateByRange, range("", b"")).await);
        assert!(keys.len() == 100 && more);
        let (_, _, other) = page(script.call(&tx, Type::GetStateByRange, range("", b"")).await);
        assert_ne!(id, other);
        let next = || QueryStateNext { id: id.clone() }.encode_to_vec();
        for (length, wanted) in [(100, true), (50, false)] {
            let (found, more, same) = page(script.call(&tx, Type::QueryStateNext, next()).await);
            assert_eq!((found.len(), more, &same), (length, wanted, &id));
            keys.extend(found);
        }
        assert_eq!(keys, (0..250).map(|number| format!("k{number:03}")).collect::<Vec<_>>());
        // Read to its end, and closed by the chaincode: neither goes on.
        let close = QueryStateClose { id: other.clone() };
        page(script.call(&tx, Type::QueryStateClose, close.encode_to_vec()).await);
        for id in [id.clone(), other] {
            let told = script.call(&tx, Type::QueryStateNext, QueryStateNext { id }.encode_to_vec()).await;
            refused(&told, "query iterator not found");
        }
        script.complete(&tx).await;
        // The peer has the first one's end when it sends the next one.
        let next = script.transaction().await;
        refused(&script.call(&tx, Type::GetState, get("k001", "")).await, "no ledger context");
        script.send(message(Type::Error, &next, b"no more of this")).await;
        script.held().await;
    })
    .await;
    let external = External::new(Dial::new(address.to_string())).unwrap();
    let (response, keys) = run(&external, 1).await;
    assert_eq!((response.status, response.payload.as_slice()), (200, &b"done"[..]), "{response:?}");
    assert_eq!(keys.event, Some(("told".into(), b"of it".to_vec())));
    let written: Vec<(&str, Option<&[u8]>)> = keys.writes.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    assert_eq!(written, [("k001", None), ("k002", None), ("new", Some(&b"value"[..]))]);
    let (response, _) = run(&external, 2).await;
    assert_eq!(
        (response.status, response.message.as_str()),
        (500, "transaction returned with failure: no more of this")
    );
}

#[tokio::test]
async fn bounds_of_ranges_are_told() {
    let address = scripted(|mut script| async move {
        script.register().await;
        let tx = script.transaction().await;
        let range = GetStateByRange {
            start_key: "k".into(),
            end_key: "l".into(),
            ..GetStateByRange::default()
        };
        let first = script.call(&tx, Type::GetStateByRange, range.encode_to_vec()).await;
        assert_eq!(first.r#type(), Type::Response);
        refused(
            &script.call(&tx, Type::GetStateByRange, range.encode_to_vec()).await,
            "1 range queries open",
        );
        let id = QueryResponse::decode(first.payload.as_slice()).unwrap().id;
        let next = QueryStateNext { id }.encode_to_vec();
        refused(&script.call(&tx, Type::QueryStateNext, next).await, "more than 150 results");
        script.complete(&tx).await;
        script.held().await;
    })
    .await;
    let mut dial = Dial::new(address.to_string());
    dial.limits.ranges = 1;
    dial.limits.range_results = 150;
    let (response, _) = run(&External::new(dial).unwrap(), 1).await;
    assert_eq!(response.status, 200, "{response:?}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_an_error() {
    let address = scripted(|mut script| async move {
        script.register().await;
        let tx = script.transaction().await;
        let range = GetStateByRange {
            start_key: "k".into(),
            end_key: "l".into(),
            ..GetStateByRange::default()
        };
        refused(
            &script.call(&tx, Type::GetStateByRange, range.encode_to_vec()).await,
            "the limit is 1000",
        );
        script.complete(&tx).await;
        script.held().await;
    })
    .await;
    let mut dial = Dial::new(address.to_string());
    dial.limits.message_bytes = 1_000;
    let (response, _) = run(&External::new(dial).unwrap(), 1).await;
    assert_eq!(response.status, 200, "{response:?}");
}

#[tokio::test]
async fn a_chaincode_that_is_not_there_is_found_again_when_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let external = External::new(quick(address)).unwrap();
    let (response, _) = run(&external, 1).await;
    assert_eq!(response.status, 500);
    assert!(
        response.message.contains("could not launch the chaincode") && response.message.contains("refused"),
        "{response:?}"
    );
    for number in 2..4 {
        let mut options = Options::new(PACKAGE);
        options.program = Program::new(|_, _| ok(b"here"));
        let server = Server::bind(&address.to_string(), options).await.unwrap();
        let (response, _) = run(&external, number).await;
        assert_eq!(response.payload, b"here", "{response:?}");
        server.stop().await.unwrap();
        let (response, _) = run(&external, number).await;
        assert_eq!(response.status, 500, "{response:?}");
    }
}

#[tokio::test]
async fn transactions_that_wait_for_the_same_dialling_wait_once() {
    let silent = scripted(|script| async move { script.held().await }).await;
    let mut dial = quick(silent);
    dial.limits.registration = Duration::from_millis(400);
    let external = External::new(dial).unwrap();
    let began = std::time::Instant::now();
    let all: Vec<_> = (0..40)
        .map(|number| {
            let external = external.clone();
            tokio::spawn(async move { run(&external, number).await.0 })
        })
        .collect();
    for one in all {
        let response = one.await.unwrap();
        assert!(response.message.contains("timeout expired"), "{response:?}");
    }
    // One after the other it would be 16 seconds.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_chaincode_that_ends_in_mid_transaction_is_an_error_and_dialled_again() {
    let address = scripted(|mut script| async move {
        script.register().await;
        let tx = script.transaction().await;
        let call = GetState {
            key: "k001".into(),
            ..GetState::default()
        };
        script.call(&tx, Type::GetState, call.encode_to_vec()).await;
    })
    .await;
    let external = External::new(Dial::new(address.to_string())).unwrap();
    for number in 0..3 {
        let (response, _) = run(&external, number).await;
        assert_eq!((response.status, response.message.as_str()), (500, "chaincode stream terminated"));
    }
}

#[tokio::test]
async fn a_slow_chaincode_is_given_up_and_others_go_on() {
    let address = scripted(|mut script| async move {
        script.register().await;
        let _slow = script.transaction().await;
        let fast = script.transaction().await;
        script.complete(&fast).await;
        script.held().await;
    })
    .await;
    let external = External::new(quick(address)).unwrap();
    let slow = tokio::spawn({
        let external = external.clone();
        async move { run(&external, 1).await.0 }
    });
    // The second is only answered once the script has both, whichever of them comes first.
    let (fast, _) = run(&external, 2).await;
    let slow = slow.await.unwrap();
    let mut statuses = [fast.status, slow.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 500]);
    let given_up = if fast.status == 500 { fast } else { slow };
    assert_eq!(given_up.message, "timeout expired while executing transaction");
}

#[tokio::test]
async fn a_chaincode_that_registers_wrongly_is_refused() {
    let silent = scripted(|script| async move {
        script.held().await;
    })
    .await;
    let hasty = scripted(|script| async move {
        script.send(message(Type::GetState, "a", b"")).await;
        script.held().await;
    })
    .await;
    let other = scripted(|script| async move {
        let id = ChaincodeId {
            name: "other:1".into(),
            ..ChaincodeId::default()
        };
        script.send(message(Type::Register, "", &id.encode_to_vec())).await;
        script.held().await;
    })
    .await;
    for (address, words) in [
        (silent, "timeout expired"),
        (hasty, "said GET_STATE"),
        (other, "registered as \"other:1\""),
    ] {
        let mut dial = quick(address);
        dial.package_id = Some(PACKAGE.into());
        let (response, _) = run(&External::new(dial).unwrap(), 1).await;
        assert_eq!(response.status, 500);
        assert!(
            response.message.contains("registration failed") && response.message.contains(words),
            "{response:?}"
        );
    }
}

#[test]
fn what_can_not_be_dialled_says_why() {
    for address in ["", "a b:1", "http://a:1", "a:1/x y"] {
        let error = External::new(Dial::new(address)).unwrap_err();
        assert!(error.to_string().contains("HOST:PORT"), "{error}");
    }
}
