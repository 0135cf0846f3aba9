//! One organisation's connection to a network in memory.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use state::ids::Channel;
use tonic::Code;

use super::MemoryNetwork;
use crate::ledger::{BlockStream, Committed, EvaluateError, Fault, Ledger, Stage, StreamError, SubmitError};

/// How a network misbehaves. The default is not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misbehaviour {
    /// Every call fails, and open streams break.
    pub down: bool,
    /// Streams break after so many blocks.
    pub drop_after: Option<u64>,
    /// Streams leave this block out.
    pub leave_out: Option<u64>,
    /// Streams send every block twice.
    pub repeat: bool,
    /// Streams stay open and send nothing.
    pub hung: bool,
    /// Blocks and the height are refused with this deliver status.
    pub refuse: Option<i32>,
}

/// One organisation's connection to a network in memory.
#[derive(Clone)]
pub struct MemoryLedger {
    network: Arc<MemoryNetwork>,
    msp_id: String,
}

impl MemoryLedger {
    pub(super) fn new(network: Arc<MemoryNetwork>, msp_id: &str) -> Self {
        Self {
            network,
            msp_id: msp_id.to_owned(),
        }
    }

    fn misbehaviour(&self) -> Misbehaviour {
        self.network.misbehaviour.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails the call while the network is down, and for a stranger or a channel that isn't there.
    fn reach(&self, stage: Stage, channel: &Channel) -> Result<(), Fault> {
        let fault = |code, message: &str| Fault {
            stage,
            endpoint: "memory".into(),
            code,
            message: message.to_owned(),
            nodes: Vec::new(),
        };
        if self.misbehaviour().down {
            return Err(fault(Code::Unavailable, "connection refused"));
        }
        if self.network.signer(&self.msp_id).is_none() {
            return Err(fault(Code::PermissionDenied, "access denied: creator org unknown"));
        }
        if channel != self.network.channel() {
            return Err(fault(Code::NotFound, "channel not found"));
        }
        Ok(())
    }

    /// Fails a request for blocks as [`reach`](Self::reach) does, and while blocks are refused.
    fn deliver(&self, channel: &Channel) -> Result<(), StreamError> {
        self.reach(Stage::Blocks, channel).map_err(|source| StreamError::Call {
            channel: channel.clone(),
            source,
        })?;
        match self.misbehaviour().refuse {
            None => Ok(()),
            Some(status) => Err(StreamError::Refused {
                endpoint: "memory".into(),
                channel: channel.clone(),
                status,
            }),
        }
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn submit(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        self.reach(Stage::Endorse, channel).map_err(SubmitError::Endorse)?;
        self.network.submit(&self.msp_id, function, &args)
    }

    async fn evaluate(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        self.reach(Stage::Evaluate, channel).map_err(EvaluateError::Call)?;
        let response = self.network.ask(&self.msp_id, function, &args)?;
        if response.status >= 400 {
            return Err(EvaluateError::Refused {
                function: function.to_owned(),
                status: response.status,
                message: response.message,
            });
        }
        Ok(response.payload)
    }

    async fn blocks(&self, channel: &Channel, from: u64) -> Result<BlockStream, StreamError> {
        self.deliver(channel)?;
        let reader = Reader {
            ledger: self.clone(),
            height: self.network.height.subscribe(),
            next: from,
            sent: 0,
            repeated: false,
        };
        Ok(stream::unfold(Some(reader), |reader| async { reader?.next().await }).boxed())
    }

    async fn height(&self, channel: &Channel) -> Result<u64, StreamError> {
        self.deliver(channel)?;
        Ok(self.network.inner_height())
    }
}

struct Reader {
    ledger: MemoryLedger,
    height: tokio::sync::watch::Receiver<u64>,
    next: u64,
    sent: u64,
    repeated: bool,
}

type Sent = Option<(Result<protos::common::Block, StreamError>, Option<Reader>)>;

impl Reader {
    async fn next(mut self) -> Sent {
        loop {
            // Marked as seen before anything is looked up, so that no change is missed.
            self.height.borrow_and_update();
            let how = self.ledger.misbehaviour();
            let channel = self.ledger.network.channel().clone();
            if how.down || how.drop_after.is_some_and(|most| self.sent >= most) {
                let ended = StreamError::Ended {
                    endpoint: "memory".into(),
                    channel,
                    what: "connection dropped",
                };
                return Some((Err(ended), None));
            }
            if how.leave_out == Some(self.next) {
                self.next += 1;
            }
            if let Some(block) = self.ledger.network.block(self.next).filter(|_| !how.hung) {
                self.repeated = how.repeat && !self.repeated;
                if !self.repeated {
                    self.next += 1;
                }
                self.sent += 1;
                return Some((Ok(block), Some(self)));
            }
            self.height.changed().await.ok()?;
        }
    }
}
