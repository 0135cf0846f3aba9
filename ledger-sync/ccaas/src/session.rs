//! One peer's stream: registering, then many transactions at once.

use std::sync::Arc;

use prost::Message;
use protos::peer::chaincode_message::Type;
use protos::peer::{ChaincodeId, ChaincodeMessage, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use crate::calls::{self, Calls, Delivery, Key};
use crate::stub::{LONGEST, Outbound, Remote, bounded, error, fitting, message};
use crate::transaction::Transaction;
use crate::{Limits, Program};

/// The unit in which the bytes of transactions are counted.
const GRAIN: usize = 1024;

/// What every stream of a server shares.
#[derive(Debug)]
pub(crate) struct Shared {
    package_id: String,
    program: Program,
    pub(crate) limits: Limits,
    pub(crate) streams: Arc<Semaphore>,
    transactions: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(package_id: String, program: Program, limits: Limits) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            package_id,
            program,
            streams: places(limits.streams),
            transactions: places(limits.transactions),
            bytes: places(limits.transaction_bytes / GRAIN),
            running: places(limits.running),
            limits,
        }
    }

    /// The room for messages to one peer. A live transaction has at most one on its way; the rest is for those that are refused.
    pub(crate) fn outbound(&self) -> usize {
        self.limits.transactions + 16
    }

    /// Finds a place for a transaction of this size; none when there are too many.
    fn place(&self, bytes: usize) -> Option<Place> {
        let grains = u32::try_from(bytes.div_ceil(GRAIN).max(1)).ok()?;
        let transaction = Arc::clone(&self.transactions).try_acquire_owned().ok()?;
        let room = Arc::clone(&self.bytes).try_acquire_many_owned(grains).ok()?;
        Some(Place {
            _transaction: transaction,
            _room: room,
        })
    }
}

/// A transaction's place among those that a server has at a time.
struct Place {
    _transaction: OwnedSemaphorePermit,
    _room: OwnedSemaphorePermit,
}

/// How far the peer has registered the chaincode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// REGISTER was sent.
    Registering,
    /// REGISTERED was received.
    Registered,
    /// READY was received: transactions may come.
    Ready,
}

/// One peer's stream.
pub(crate) struct Session {
    shared: Arc<Shared>,
    outbound: Outbound,
    calls: Arc<Calls>,
    tasks: JoinSet<()>,
    phase: Phase,
    stage: watch::Receiver<Stage>,
}

/// How far the server is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Transactions are taken.
    Open,
    /// No new ones are taken; what runs is finished.
    Draining,
    /// What still runs is given up.
    Ended,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, outbound: Outbound, stage: watch::Receiver<Stage>) -> Self {
        Self {
            shared,
            outbound,
            calls: Arc::default(),
            tasks: JoinSet::new(),
            phase: Phase::Registering,
            stage,
        }
    }

    /// Serves the stream to its end. An error is the peer's to hear.
    pub(crate) async fn run(mut self, inbound: Streaming<ChaincodeMessage>) {
        let ended = self.serve(inbound).await;
        self.calls.end();
        match ended {
            Ok(why) => tracing::info!("a peer's stream has ended: {why}"),
            Err(status) => {
                tracing::warn!("a peer's stream is ended: {}", status.message());
                // A peer that has gone already hears nothing.
                let _ = self.outbound.try_send(Err(status));
            }
        }
    }

    async fn serve(&mut self, mut inbound: Streaming<ChaincodeMessage>) -> Result<&'static str, Status> {
        let id = ChaincodeId {
            name: self.shared.package_id.clone(),
            ..ChaincodeId::default()
        };
        self.send(message(&Key::default(), Type::Register, id.encode_to_vec()))?;
        let unregistered = tokio::time::sleep(self.shared.limits.answer);
        tokio::pin!(unregistered);
        let mut stage = self.stage.clone();
        loop {
            let now = *stage.borrow_and_update();
            if now == Stage::Ended || now == Stage::Draining && self.tasks.is_empty() {
                return Ok("the server stops");
            }
            tokio::select! {
                received = inbound.message() => match received {
                    Ok(Some(message)) => self.receive(message)?,
                    Ok(None) => return Ok("the peer has ended it"),
                    Err(status) => return self.broken(status),
                },
                () = self.outbound.closed() => return Ok("the peer has gone"),
                Some(done) = self.tasks.join_next() => {
                    if let Err(error) = done {
                        tracing::error!("a transaction's task failed: {error}");
                    }
                }
                changed = stage.changed() => if changed.is_err() {
                    return Ok("the server has gone");
                },
                () = &mut unregistered, if self.phase != Phase::Ready => {
                    return Err(Status::deadline_exceeded("the peer did not register the chaincode in time"));
                }
            }
        }
    }

    fn broken(&self, status: Status) -> Result<&'static str, Status> {
        match status.code() {
            // What tonic says of a message above the limit, or of one that is none.
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted | tonic::Code::Internal => Err(Status::new(
                status.code(),
                format!("the peer's message can't be taken: {}", status.message()),
            )),
            _ => Ok("its connection broke"),
        }
    }

    fn send(&self, message: ChaincodeMessage) -> Result<(), Status> {
        self.outbound
            .try_send(Ok(message))
            .map_err(|_| Status::resource_exhausted("the peer doesn't read what it is sent"))
    }

    fn receive(&mut self, message: ChaincodeMessage) -> Result<(), Status> {
        if !calls::is_sensible(&message) {
            return Err(Status::invalid_argument(
                "the peer's message names a channel or transaction of no sensible length",
            ));
        }
        let kind = message.r#type();
        match (self.phase, kind) {
            (_, Type::Keepalive) => Ok(()),
            (Phase::Registering, Type::Registered) => {
                self.phase = Phase::Registered;
                Ok(())
            }
            (Phase::Registered, Type::Ready) => {
                self.phase = Phase::Ready;
                tracing::info!("a peer has registered {}", self.shared.package_id);
                Ok(())
            }
            (Phase::Registering, Type::Error) => {
                let why = bounded(&String::from_utf8_lossy(&message.payload), LONGEST);
                Err(Status::failed_precondition(format!(
                    "the peer did not register the chaincode: {why}"
                )))
            }
            (Phase::Ready, Type::Transaction) => self.transaction(message),
            (Phase::Ready, Type::Response | Type::Error) => {
                let (channel, tx_id) = (message.channel_id.clone(), message.txid.clone());
                if self.calls.answer(message) == Delivery::Unasked {
                    tracing::debug!(channel, tx_id, "an answer that nothing waits for is ignored");
                }
                Ok(())
            }
            (Phase::Ready, Type::Init) => {
                let text = "this chaincode has no initialisation: approve and commit its definition without --init-required";
                self.refuse(&calls::key(&message), text)
            }
            (Phase::Ready, _) => self.unknown(&message),
            (Phase::Registering | Phase::Registered, _) => Err(Status::failed_precondition(format!(
                "the peer sent {} before the chaincode was registered and ready",
                named(&message)
            ))),
        }
    }

    /// A message of a type that no peer of today sends a chaincode that is ready. The transaction that it names, if any, is told; the
    /// others go on.
    fn unknown(&self, message: &ChaincodeMessage) -> Result<(), Status> {
        let name = named(message);
        tracing::warn!(
            channel = message.channel_id,
            tx_id = message.txid,
            "{name} is not understood and ignored"
        );
        if message.txid.is_empty() {
            return Ok(());
        }
        self.refuse(
            &calls::key(message),
            &format!("this chaincode does not understand the message {name}"),
        )
    }

    fn refuse(&self, key: &Key, why: &str) -> Result<(), Status> {
        self.send(error(key, why))
    }

    fn transaction(&mut self, message: ChaincodeMessage) -> Result<(), Status> {
        let key = calls::key(&message);
        if *self.stage.borrow() != Stage::Open {
            return self.refuse(&key, "the chaincode's server is stopping: try again");
        }
        let Some(place) = self.shared.place(message.encoded_len()) else {
            let why = format!(
                "the chaincode's server has {} transactions of {} bytes together at most: try again later",
                self.shared.limits.transactions, self.shared.limits.transaction_bytes
            );
            return self.refuse(&key, &why);
        };
        if !self.calls.enter(&key) {
            // An ERROR would end the first one, and no peer has one twice.
            tracing::warn!(
                channel = key.0,
                tx_id = key.1,
                "a transaction that runs already was sent again; ignored"
            );
            return Ok(());
        }
        let run = Run {
            shared: Arc::clone(&self.shared),
            calls: Arc::clone(&self.calls),
            outbound: self.outbound.clone(),
            key,
            place,
        };
        let running = Arc::clone(&self.shared.running);
        self.tasks.spawn(async move {
            let Ok(running) = running.acquire_owned().await else { return };
            let ran = tokio::task::spawn_blocking(move || {
                let last = run.last(message);
                // All streams share the threads: none is kept for a peer that doesn't read.
                drop(running);
                (run, last)
            });
            match ran.await {
                Ok((run, last)) => run.finish(last).await,
                Err(error) => tracing::error!("a transaction's thread failed: {error}"),
            }
        });
        Ok(())
    }
}

fn named(message: &ChaincodeMessage) -> String {
    match Type::try_from(message.r#type) {
        Ok(kind) => kind.as_str_name().to_owned(),
        Err(_) => format!("of type {}", message.r#type),
    }
}

/// One transaction on its thread.
struct Run {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
    outbound: Outbound,
    key: Key,
    place: Place,
}

impl Run {
    /// Runs the transaction, and gives what ends it.
    fn last(&self, message: ChaincodeMessage) -> ChaincodeMessage {
        self.execute(message).unwrap_or_else(|why| {
            tracing::info!(
                channel = self.key.0,
                tx_id = self.key.1,
                "a transaction was not run to its end: {why}"
            );
            error(&self.key, &why)
        })
    }

    /// Answers, when the peer reads; one that doesn't for too long hears nothing. Until then the transaction keeps its place, so what
    /// waits is bounded.
    async fn finish(self, last: ChaincodeMessage) {
        let room = tokio::time::timeout(self.shared.limits.answer, self.outbound.reserve()).await;
        // Before the answer: from then on the peer may send the transaction again, and the next one in its place.
        self.calls.leave(&self.key);
        drop(self.place);
        if let Ok(Ok(room)) = room {
            room.send(Ok(last));
        }
    }

    fn execute(&self, received: ChaincodeMessage) -> Result<ChaincodeMessage, String> {
        let transaction = Transaction::read(received).map_err(|unfit| unfit.sentence())?;
        let mut stub = Remote::new(&self.key, &self.calls, &self.outbound, &self.shared.limits);
        let Some(response) = self.shared.program.run(&mut stub, &transaction.invocation()) else {
            return Err("the chaincode panicked; its server's log says where".into());
        };
        let event = stub.finish()?;
        tracing::debug!(
            channel = self.key.0,
            tx_id = self.key.1,
            status = response.status,
            "a transaction was run to its end"
        );
        let response = Response {
            status: response.status,
            message: response.message,
            payload: response.payload,
        };
        let completed = ChaincodeMessage {
            chaincode_event: event,
            ..message(&self.key, Type::Completed, response.encode_to_vec())
        };
        fitting(completed, self.shared.limits.message_bytes)
    }
}
