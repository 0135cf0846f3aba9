//! The service `gateway.Gateway`.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use prost::Message;
use protos::common::{Block, HeaderType};
use protos::gateway::gateway_server::Gateway;
use protos::gateway::{
    ChaincodeEventsRequest, ChaincodeEventsResponse, CommitStatusRequest, CommitStatusResponse, EndorseRequest, EndorseResponse,
    EvaluateRequest, EvaluateResponse, SignedChaincodeEventsRequest, SignedCommitStatusRequest, SubmitRequest, SubmitResponse,
};
use protos::orderer::{SeekPosition, seek_position};
use protos::peer::{ChaincodeEvent, SignedProposal, TxValidationCode};
use protos::{envelope, metadata};
use state::errors::chain;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::Ledger;
use crate::channel::{Channel, Core, NotQueued};
use crate::commit::Committed;
use crate::deadline::within;
use crate::endorse;
use crate::ledger::now;
use crate::status::{Call, Denied, Policy, Refusal, Signed, authorise, no_config, quoted};

/// How many answers of a stream wait for a slow client.
pub(crate) const STREAM_BUFFER: usize = 8;

/// The gateway of every member at once.
pub(crate) struct GatewayService {
    pub(crate) ledger: Ledger,
    pub(crate) closing: watch::Receiver<bool>,
}

impl GatewayService {
    /// Checks a proposal and hands it to `run` on a thread that may block.
    async fn with_proposal<T: Send + 'static>(
        &self,
        call: Call,
        proposal: Option<SignedProposal>,
        organisations: Vec<String>,
        run: impl FnOnce(&Asked<'_>, &endorse::Accepted) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Status> {
        let target = endorse::target(call, proposal.as_ref()).map_err(|refusal| refusal.worded(call, ""))?;
        let proposal = proposal.unwrap_or_default();
        let Some(channel) = self.ledger.channel(&target.channel) else {
            let (channel, chaincode) = (target.channel, target.chaincode);
            return Err(Refusal::NoChannel { channel, chaincode }.worded(call, ""));
        };
        // One node answers for every member: an error is the client's own organisation's word, or the first one's to a stranger.
        let members = channel.core.membership.members();
        let speaker = members.get(&target.msp_id).or_else(|| members.first()).cloned().unwrap_or_default();
        let permit = self.ledger.simulations().acquire_owned().await;
        let permit = permit.map_err(|_| Status::unavailable("the ledger is shutting down"))?;
        let ledger = self.ledger.clone();
        let ran = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let asked = Asked {
                ledger: &ledger,
                core: &channel.core,
                proposal: &proposal,
                organisations: &organisations,
            };
            endorse::find_nodes(asked.core, &target.chaincode, call, &organisations)?;
            let accepted = endorse::accept(asked.core, ledger.limits(), &proposal, now())?;
            run(&asked, &accepted)
        });
        let done = ran
            .await
            .map_err(|error| Status::internal(format!("the proposal was not finished: {error}")))?;
        done.map_err(|refusal| refusal.worded(call, &speaker))
    }

    fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        stream_permit(&self.ledger)
    }
}

/// A proposal with what is needed to answer it.
struct Asked<'a> {
    ledger: &'a Ledger,
    core: &'a Core,
    proposal: &'a SignedProposal,
    organisations: &'a [String],
}

/// Takes one of the places for calls that last.
pub(crate) fn stream_permit(ledger: &Ledger) -> Result<OwnedSemaphorePermit, Status> {
    ledger.streams().try_acquire_owned().map_err(|_| {
        let most = ledger.limits().streams;
        Status::resource_exhausted(format!("{most} streams and waiting calls are open already; try again later"))
    })
}

#[tonic::async_trait]
impl Gateway for GatewayService {
    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Result<Response<EvaluateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (proposal, organisations) = (request.proposed_transaction, request.target_organizations);
        let answer = self.with_proposal(Call::Evaluate, proposal, organisations, |asked, accepted| {
            endorse::evaluate(asked.ledger, asked.core, accepted, asked.proposal)
        });
        let result = within(&metadata, "evaluate timeout expired", answer).await?;
        Ok(Response::new(EvaluateResponse { result: Some(result) }))
    }

    async fn endorse(&self, request: Request<EndorseRequest>) -> Result<Response<EndorseResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (proposal, organisations) = (request.proposed_transaction, request.endorsing_organizations);
        let answer = self.with_proposal(Call::Endorse, proposal, organisations, |asked, accepted| {
            endorse::endorse(asked.ledger, asked.core, accepted, asked.proposal, asked.organisations)
        });
        let prepared = within(&metadata, "endorsement timeout expired while collecting first endorsement", answer).await?;
        Ok(Response::new(EndorseResponse {
            prepared_transaction: Some(prepared),
        }))
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let request = request.into_inner();
        let envelope = request
            .prepared_transaction
            .ok_or_else(|| Status::invalid_argument("a prepared transaction is required"))?;
        if envelope.signature.is_empty() {
            return Err(Status::invalid_argument("prepared transaction must be signed"));
        }
        let found = self.ledger.channel(&request.channel_id);
        let channel = found.ok_or_else(|| Status::failed_precondition(no_config(&request.channel_id)))?;
        let core = &channel.core;
        // In an orderer's order; a client's fault comes without details.
        let refused = |status: &str, info: String| {
            Status::aborted(format!("received unsuccessful response from orderer: status={status}, info={info}"))
        };
        let opened = envelope::open(&envelope).map_err(|error| refused("BAD_REQUEST", chain(&error)))?;
        if opened.channel.channel_id != core.name {
            return Err(refused(
                "BAD_REQUEST",
                "the envelope is for another channel than the request".into(),
            ));
        }
        if !opened.is(HeaderType::EndorserTransaction) {
            return Err(refused(
                "BAD_REQUEST",
                "the embedded ledger orders endorsed transactions only".into(),
            ));
        }
        let size = envelope.payload.len() + envelope.signature.len();
        let most = self.ledger.limits().envelope_bytes;
        if size > most {
            let info = format!("message payload is {size} bytes and exceeds maximum allowed {most} bytes");
            return Err(refused("BAD_REQUEST", info));
        }
        let signed = Signed {
            creator: &opened.signature.creator,
            message: &envelope.payload,
            signature: &envelope.signature,
        };
        authorise(&core.name, &core.membership, Policy::Ordered, signed, now()).map_err(|denied| match denied {
            Denied::Expired => refused("BAD_REQUEST", "broadcast client identity expired".into()),
            _ => refused("FORBIDDEN", format!("{}: permission denied", Policy::Ordered.unsatisfied())),
        })?;
        channel.submit(envelope.encode_to_vec()).map_err(|reason| match reason {
            NotQueued::Full => Status::unavailable("no orderers could successfully process transaction: too many transactions wait"),
            NotQueued::Stopped => stopped(&core.name),
        })?;
        Ok(Response::new(SubmitResponse {}))
    }

    async fn commit_status(&self, request: Request<SignedCommitStatusRequest>) -> Result<Response<CommitStatusResponse>, Status> {
        let (metadata, _, signed) = request.into_parts();
        if signed.request.is_empty() {
            return Err(Status::invalid_argument("a commit status request is required"));
        }
        let request = CommitStatusRequest::decode(signed.request.as_slice())
            .map_err(|error| Status::invalid_argument(format!("invalid status request: {error}")))?;
        if request.identity.is_empty() {
            return Err(Status::invalid_argument("no identity provided"));
        }
        if request.channel_id.is_empty() {
            return Err(Status::invalid_argument("no channel ID provided"));
        }
        if request.transaction_id.is_empty() {
            return Err(Status::invalid_argument("transaction ID should not be empty"));
        }
        let channel = self.readable(&request.channel_id, &request.identity, (&signed.request, &signed.signature))?;
        let _permit = self.stream_permit()?;
        let committed = self.commit_of(&channel.core, &request.transaction_id);
        let committed = within(&metadata, "context deadline exceeded", committed).await?;
        Ok(Response::new(CommitStatusResponse {
            result: committed.code as i32,
            block_number: committed.block,
        }))
    }

    type ChaincodeEventsStream = Pin<Box<dyn Stream<Item = Result<ChaincodeEventsResponse, Status>> + Send>>;

    async fn chaincode_events(
        &self,
        request: Request<SignedChaincodeEventsRequest>,
    ) -> Result<Response<Self::ChaincodeEventsStream>, Status> {
        let signed = request.into_inner();
        if signed.request.is_empty() {
            return Err(Status::invalid_argument("a chaincode events request is required"));
        }
        let request = ChaincodeEventsRequest::decode(signed.request.as_slice())
            .map_err(|error| Status::invalid_argument(format!("invalid chaincode events request: {error}")))?;
        let channel = self.readable(&request.channel_id, &request.identity, (&signed.request, &signed.signature))?;
        let permit = self.stream_permit()?;
        let after = Some(request.after_transaction_id.clone()).filter(|tx_id| !tx_id.is_empty());
        let committed = after.as_ref().and_then(|tx_id| channel.core.committed(tx_id));
        let start = match committed {
            Some(committed) => committed.block,
            None => start_block(&channel.core, request.start_position.as_ref())?,
        };
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let events = EventStream {
            channel,
            name: request.chaincode_id,
            after,
            next: start,
            out: sender,
        };
        let closing = self.closing.clone();
        tokio::spawn(async move {
            let _permit = permit;
            events.run(closing).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl GatewayService {
    /// Waits until a transaction is committed.
    async fn commit_of(&self, core: &Core, tx_id: &str) -> Result<Committed, Status> {
        let mut progress = core.progress();
        let mut closing = self.closing.clone();
        loop {
            let stopped_now = progress.borrow_and_update().stopped;
            if let Some(committed) = core.committed(tx_id) {
                return Ok(committed);
            }
            if stopped_now {
                return Err(stopped(&core.name));
            }
            tokio::select! {
                changed = progress.changed() => changed.map_err(|_| closed())?,
                _ = closing.wait_for(|closing| *closing) => return Err(closed()),
            }
        }
    }

    /// Finds a channel that a signer may read.
    fn readable(&self, channel: &str, identity: &[u8], signed: (&[u8], &[u8])) -> Result<Arc<Channel>, Status> {
        let found = self.ledger.channel(channel).ok_or_else(|| {
            let name = quoted(channel);
            Status::permission_denied(format!("Failed to get policy manager for channel [{name}]"))
        })?;
        let (message, signature) = signed;
        let signed = Signed {
            creator: identity,
            message,
            signature,
        };
        authorise(channel, &found.core.membership, Policy::Readers, signed, now())
            .map_err(|_| Status::permission_denied(Policy::Readers.denied(channel)))?;
        Ok(found)
    }
}

fn start_block(core: &Core, position: Option<&SeekPosition>) -> Result<u64, Status> {
    use seek_position::Type;
    match position.and_then(|position| position.r#type.as_ref()) {
        None | Some(Type::NextCommit(_)) => Ok(core.info().height),
        Some(Type::Specified(specified)) => Ok(specified.number),
        Some(_) => Err(Status::invalid_argument(
            "invalid start position type: use a block number or the next commit",
        )),
    }
}

/// One client's stream of chaincode events.
struct EventStream {
    channel: Arc<Channel>,
    name: String,
    after: Option<String>,
    next: u64,
    out: mpsc::Sender<Result<ChaincodeEventsResponse, Status>>,
}

impl EventStream {
    async fn run(mut self, mut closing: watch::Receiver<bool>) {
        let mut progress = self.channel.core.progress();
        loop {
            progress.borrow_and_update();
            let blocks = match self.channel.core.blocks(self.next).await {
                Ok(blocks) => blocks,
                Err(error) => {
                    let _ = self.out.send(Err(Status::aborted(chain(&error)))).await;
                    return;
                }
            };
            if blocks.is_empty() {
                tokio::select! {
                    changed = progress.changed() => if changed.is_err() { return },
                    () = self.out.closed() => return,
                    _ = closing.wait_for(|closing| *closing) => {
                        let _ = self.out.try_send(Err(closed()));
                        return;
                    }
                }
            }
            for block in blocks {
                let block_number = self.next;
                self.next += 1;
                let events = self.matching(&block);
                let response = ChaincodeEventsResponse { events, block_number };
                if !response.events.is_empty() && self.out.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        }
    }

    fn matching(&mut self, block: &Block) -> Vec<ChaincodeEvent> {
        let mut matching = Vec::new();
        for event in valid_events(block) {
            match &self.after {
                Some(after) if *after == event.tx_id => self.after = None,
                Some(_) => {}
                None if event.chaincode_id == self.name => matching.push(event),
                None => {}
            }
        }
        matching
    }
}

/// Returns the events of a block's valid transactions, in the block's order.
fn valid_events(block: &Block) -> Vec<ChaincodeEvent> {
    let flags = metadata::validation_flags(block).unwrap_or_default();
    let data = block.data.as_ref().map(|data| data.data.as_slice()).unwrap_or_default();
    let valid = data.iter().zip(flags).filter(|(_, flag)| **flag == TxValidationCode::Valid as u8);
    valid
        .filter_map(|(bytes, _)| {
            let opened = envelope::open(&envelope::decode_envelope(bytes).ok()?).ok()?;
            envelope::endorsed(&opened).ok()?.event
        })
        .collect()
}

fn stopped(channel: &str) -> Status {
    Status::unavailable(format!(
        "no orderers could successfully process transaction: channel {channel} stopped, see the log"
    ))
}

/// Says that the server ends; a client may connect again.
pub(crate) fn closed() -> Status {
    Status::unavailable("the ledger is shutting down")
}
