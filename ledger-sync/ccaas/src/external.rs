//! The peer's side: a chaincode that is served elsewhere, dialled when a transaction needs it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chaincode::stub::{Invocation, Response, Stub};
use prost::Message;
use protos::peer::chaincode_client::ChaincodeClient;
use protos::peer::chaincode_message::Type;
use protos::peer::{self, ChaincodeId, ChaincodeInput, ChaincodeMessage, SignedProposal};
use state::errors::chain;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Streaming};

use crate::answers::Answers;
use crate::calls::{Key, is_sensible, key};
use crate::package::is_address;
use crate::stub::{bounded, error, fitting, message};
use crate::{DialError, PeerLimits};

/// How often an idle connection is checked: Fabric's servers end one that is checked more often than once a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long the answer to such a check may take.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);
/// The most messages on their way to the chaincode.
const OUTBOUND: usize = 256;
/// The most messages of one transaction that wait: a chaincode that keeps to the protocol has one.
const INBOUND: usize = 2;
/// The longest text of a chaincode's error that is passed on, in characters.
const LONGEST: usize = 4_000;

/// Where a chaincode is served.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The chaincode's name on every channel.
    pub chaincode: String,
    /// `HOST:PORT`.
    pub address: String,
    /// Whether to speak TLS.
    pub tls: Option<DialTls>,
    /// With it, a chaincode that registers with another package id is refused.
    pub package_id: Option<String>,
    /// The bounds.
    pub limits: PeerLimits,
}

impl Dial {
    /// The agreement's program at an address, without TLS, with the default bounds.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            chaincode: chaincode::NAME.to_owned(),
            address: address.into(),
            tls: None,
            package_id: None,
            limits: PeerLimits::default(),
        }
    }
}

/// How to speak TLS to a chaincode's server; everything is PEM.
#[derive(Clone)]
pub struct DialTls {
    /// The authority that vouches for the server's certificate.
    pub authority: Vec<u8>,
    /// The certificate and the key to show.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for DialTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DialTls")
            .field("mutual", &self.client.is_some())
            .finish_non_exhaustive()
    }
}

/// A chaincode that is served elsewhere. Clones share its one stream, which is opened when a transaction needs it, and again after it
/// has ended.
#[derive(Clone)]
pub struct External(Arc<Inner>);

struct Inner {
    dial: Dial,
    endpoint: Endpoint,
    dialled: Mutex<Dialled>,
}

/// How dialling ended last.
#[derive(Default)]
enum Dialled {
    #[default]
    Never,
    Open(Link),
    Failed {
        at: Instant,
        why: String,
    },
}

impl External {
    /// Describes a chaincode; nothing is dialled yet.
    pub fn new(dial: Dial) -> Result<Self, DialError> {
        let scheme = if dial.tls.is_some() { "https" } else { "http" };
        let wrong = || DialError::Address(bounded(&dial.address, 300));
        if !is_address(&dial.address) {
            return Err(wrong());
        }
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", dial.address))
            .map_err(|_| wrong())?
            .connect_timeout(dial.limits.dial)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true);
        if let Some(tls) = &dial.tls {
            let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authority));
            if let Some((certificate, key)) = &tls.client {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(config).map_err(DialError::Tls)?;
        }
        Ok(Self(Arc::new(Inner {
            dial,
            endpoint,
            dialled: Mutex::default(),
        })))
    }

    /// Returns the chaincode's name.
    pub fn name(&self) -> &str {
        &self.0.dial.chaincode
    }

    /// Runs one transaction: its calls are answered from the stub, on this thread. It blocks, within a Tokio runtime but never on a thread
    /// that runs its tasks (see [`tokio::task::spawn_blocking`]). What can't be run answers with status 500.
    pub fn run(&self, stub: &mut dyn Stub, invocation: &Invocation<'_>, proposal: &SignedProposal) -> Response {
        self.0.run(stub, invocation, proposal).unwrap_or_else(|why| {
            tracing::warn!(
                channel = invocation.channel,
                tx_id = invocation.tx_id,
                "a transaction was not run: {why}"
            );
            Response {
                status: 500,
                message: why,
                payload: Vec::new(),
            }
        })
    }
}

impl fmt::Debug for External {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("External").field(&self.0.dial).finish()
    }
}

impl Inner {
    fn run(&self, stub: &mut dyn Stub, invocation: &Invocation<'_>, proposal: &SignedProposal) -> Result<Response, String> {
        let deadline = Instant::now() + self.dial.limits.execution;
        let key: Key = (invocation.channel.to_owned(), invocation.tx_id.to_owned());
        let link = self.link()?;
        let live = Live::enter(&link, &key)?;
        let input = ChaincodeInput {
            args: invocation.args.to_vec(),
            ..ChaincodeInput::default()
        };
        let transaction = ChaincodeMessage {
            proposal: Some(proposal.clone()),
            ..message(&key, Type::Transaction, input.encode_to_vec())
        };
        link.send(fitting(transaction, self.dial.limits.message_bytes)?)?;
        let mut answers = Answers::new(stub, &self.dial.chaincode, &self.dial.limits);
        loop {
            let received = live.next(deadline)?;
            match received.r#type() {
                Type::Completed => {
                    let response = peer::Response::decode(received.payload.as_slice())
                        .map_err(|error| format!("the chaincode's answer cannot be decoded: {error}"))?;
                    if let Some(event) = received.chaincode_event {
                        answers.set_event(&event.event_name, event.payload);
                    }
                    return Ok(Response {
                        status: response.status,
                        message: response.message,
                        payload: response.payload,
                    });
                }
                Type::Error => {
                    let text = bounded(&String::from_utf8_lossy(&received.payload), LONGEST);
                    return Err(format!("transaction returned with failure: {text}"));
                }
                kind => {
                    let answer = fitting(answers.answer(received), self.dial.limits.message_bytes);
                    link.send(answer.unwrap_or_else(|why| error(&key, &format!("{} failed: {why}", kind.as_str_name()))))?;
                }
            }
        }
    }

    /// The stream, opened if there is none.
    fn link(&self) -> Result<Link, String> {
        let asked = Instant::now();
        let mut dialled = self.dialled.lock().unwrap_or_else(PoisonError::into_inner);
        match &*dialled {
            Dialled::Open(link) if !link.table.lock().ended => return Ok(link.clone()),
            // Another transaction tried while this one waited: to try for each of them in turn would take as many times as long.
            Dialled::Failed { at, why } if *at >= asked => return Err(why.clone()),
            Dialled::Open(_) | Dialled::Failed { .. } | Dialled::Never => {}
        }
        let runtime = Handle::try_current().map_err(|error| error.to_string())?;
        match runtime.block_on(self.open()) {
            Ok(link) => {
                *dialled = Dialled::Open(link.clone());
                Ok(link)
            }
            Err(why) => {
                let why = format!("could not launch the chaincode at {}: {why}", self.dial.address);
                *dialled = Dialled::Failed {
                    at: Instant::now(),
                    why: why.clone(),
                };
                Err(why)
            }
        }
    }

    async fn open(&self) -> Result<Link, String> {
        // The connector's own timeout doesn't cover a server that accepts and says nothing.
        let dialled = tokio::time::timeout(self.dial.limits.dial, self.endpoint.connect()).await;
        let channel = dialled
            .map_err(|_| "it does not answer".to_owned())?
            .map_err(|error| chain(&error))?;
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let mut client = ChaincodeClient::new(channel)
            .max_decoding_message_size(self.dial.limits.message_bytes)
            .max_encoding_message_size(protos::MAX_GRPC_MESSAGE_BYTES);
        let registered = tokio::time::timeout(self.dial.limits.registration, async {
            let connected = client.connect(Request::new(ReceiverStream::new(messages))).await;
            let mut inbound = connected.map_err(|status| status.message().to_owned())?.into_inner();
            self.register(&mut inbound, &outbound).await?;
            Ok(inbound)
        });
        let inbound = registered
            .await
            .map_err(|_| "chaincode registration failed: timeout expired".to_owned())
            .and_then(|registered: Result<_, String>| registered.map_err(|why| format!("chaincode registration failed: {why}")))?;
        let table = Arc::new(Table::default());
        let link = Link {
            table: Arc::clone(&table),
            outbound: outbound.clone(),
        };
        // The task holds no strong sender: when nobody wants the chaincode any more, the stream ends.
        tokio::spawn(read(inbound, table, outbound.downgrade()));
        Ok(link)
    }

    async fn register(&self, inbound: &mut Streaming<ChaincodeMessage>, outbound: &mpsc::Sender<ChaincodeMessage>) -> Result<(), String> {
        let first = loop {
            let received = inbound.message().await.map_err(|status| status.message().to_owned())?;
            match received {
                Some(message) if message.r#type() == Type::Keepalive => {}
                Some(message) => break message,
                None => return Err("its stream has ended".into()),
            }
        };
        if first.r#type() != Type::Register {
            return Err(format!("it said {} before it registered", first.r#type().as_str_name()));
        }
        let id = ChaincodeId::decode(first.payload.as_slice()).map_err(|error| error.to_string())?;
        if let Some(expected) = self.dial.package_id.as_ref().filter(|expected| **expected != id.name) {
            return Err(format!("it registered as {:?}, not as {expected}", bounded(&id.name, 200)));
        }
        for kind in [Type::Registered, Type::Ready] {
            let sent = outbound.send(message(&Key::default(), kind, Vec::new())).await;
            sent.map_err(|_| "its stream has ended".to_owned())?;
        }
        Ok(())
    }
}

/// One open stream.
#[derive(Clone)]
struct Link {
    table: Arc<Table>,
    outbound: mpsc::Sender<ChaincodeMessage>,
}

impl Link {
    fn send(&self, message: ChaincodeMessage) -> Result<(), String> {
        self.outbound.blocking_send(message).map_err(|_| TERMINATED.to_owned())
    }
}

const TERMINATED: &str = "chaincode stream terminated";

/// The transactions that run over one stream.
#[derive(Default)]
struct Table(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    ended: bool,
    live: BTreeMap<Key, SyncSender<ChaincodeMessage>>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction's place in the table, for as long as it runs.
struct Live<'a> {
    table: &'a Table,
    key: &'a Key,
    received: Receiver<ChaincodeMessage>,
}

impl<'a> Live<'a> {
    fn enter(link: &'a Link, key: &'a Key) -> Result<Self, String> {
        let mut rows = link.table.lock();
        if rows.ended {
            return Err(TERMINATED.into());
        }
        if rows.live.contains_key(key) {
            return Err(format!("transaction {} on channel {} runs already", key.1, key.0));
        }
        let (sender, received) = sync_channel(INBOUND);
        rows.live.insert(key.clone(), sender);
        Ok(Self {
            table: &link.table,
            key,
            received,
        })
    }

    fn next(&self, deadline: Instant) -> Result<ChaincodeMessage, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.received.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => "timeout expired while executing transaction".to_owned(),
            RecvTimeoutError::Disconnected => TERMINATED.to_owned(),
        })
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.table.lock().live.remove(self.key);
    }
}

/// Hands each message to its transaction, until the stream ends.
async fn read(mut inbound: Streaming<ChaincodeMessage>, table: Arc<Table>, outbound: mpsc::WeakSender<ChaincodeMessage>) {
    let why = loop {
        let message = match inbound.message().await {
            Ok(Some(message)) if is_sensible(&message) => message,
            Ok(Some(_)) => break "its message names a channel or transaction of no sensible length".to_owned(),
            Ok(None) => break "the chaincode has ended it".to_owned(),
            Err(status) => break status.message().to_owned(),
        };
        let kind = message.r#type();
        if kind == Type::Keepalive {
            continue;
        }
        let key = key(&message);
        let sent = match table.lock().live.get(&key) {
            Some(waiting) => waiting.try_send(message),
            None => Err(TrySendError::Disconnected(message)),
        };
        match sent {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(
                    channel = key.0,
                    tx_id = key.1,
                    "the chaincode has another call open; {} is dropped",
                    kind.as_str_name()
                );
            }
            // The transaction was given up: a call tells the chaincode so, and an answer is too late.
            Err(TrySendError::Disconnected(_)) => {
                if !matches!(kind, Type::Completed | Type::Error)
                    && let Some(outbound) = outbound.upgrade()
                {
                    let text = format!("{} failed: transaction ID: {}: no ledger context", kind.as_str_name(), key.1);
                    let _ = outbound.try_send(error(&key, &text));
                }
            }
        }
    };
    tracing::info!("the chaincode's stream has ended: {why}");
    let mut rows = table.lock();
    rows.ended = true;
    rows.live.clear();
}
