//! The service `protos.Deliver`: full blocks, from any start, following.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use prost::Message;
use protos::common::{Block, Envelope, Status as BlockStatus};
use protos::envelope;
use protos::orderer::seek_info::SeekBehavior;
use protos::orderer::{SeekInfo, seek_position};
use protos::peer::DeliverResponse;
use protos::peer::deliver_response::Type;
use protos::peer::deliver_server::Deliver;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Ledger;
use crate::channel::Channel;
use crate::endorse::chain;
use crate::gateway::{STREAM_BUFFER, closed, stream_permit};
use crate::ledger::now;
use crate::status::authorise;

/// Delivers blocks to members.
pub(crate) struct DeliverService {
    pub(crate) ledger: Ledger,
    pub(crate) closing: watch::Receiver<bool>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<DeliverResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Deliver for DeliverService {
    type DeliverStream = Answers;
    type DeliverFilteredStream = Answers;
    type DeliverWithPrivateDataStream = Answers;

    async fn deliver(&self, request: Request<Streaming<Envelope>>) -> Result<Response<Answers>, Status> {
        let permit = stream_permit(&self.ledger)?;
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let session = Session {
            ledger: self.ledger.clone(),
            out: sender,
            closing: self.closing.clone(),
        };
        tokio::spawn(async move {
            let _permit = permit;
            session.run(request.into_inner()).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn deliver_filtered(&self, _: Request<Streaming<Envelope>>) -> Result<Response<Answers>, Status> {
        Err(Status::unimplemented(
            "the embedded ledger delivers full blocks only: use protos.Deliver/Deliver",
        ))
    }

    async fn deliver_with_private_data(&self, _: Request<Streaming<Envelope>>) -> Result<Response<Answers>, Status> {
        Err(Status::unimplemented(
            "the embedded ledger keeps no private data: use protos.Deliver/Deliver",
        ))
    }
}

/// One client's stream.
struct Session {
    ledger: Ledger,
    out: mpsc::Sender<Result<DeliverResponse, Status>>,
    closing: watch::Receiver<bool>,
}

/// Why a session ends without a block status.
enum Ended {
    /// The client is gone.
    Gone,
    /// The client is told this.
    With(Status),
}

/// The blocks that a seek asks for.
struct Wanted {
    start: u64,
    stop: u64,
    behavior: SeekBehavior,
}

impl Session {
    async fn run(mut self, mut requests: Streaming<Envelope>) {
        let mut closing = self.closing.clone();
        loop {
            let request = tokio::select! {
                message = requests.message() => match message {
                    Ok(Some(envelope)) => envelope,
                    Ok(None) | Err(_) => return,
                },
                _ = closing.wait_for(|closing| *closing) => {
                    let _ = self.out.try_send(Err(closed()));
                    return;
                }
            };
            let status = match self.serve(&request).await {
                Ok(status) => status,
                Err(Ended::Gone) => return,
                Err(Ended::With(status)) => {
                    let _ = self.out.send(Err(status)).await;
                    return;
                }
            };
            let answer = DeliverResponse {
                r#type: Some(Type::Status(status as i32)),
            };
            if self.out.send(Ok(answer)).await.is_err() || status != BlockStatus::Success {
                return;
            }
        }
    }

    /// Serves one seek request to its end and gives the status that ends it.
    async fn serve(&mut self, request: &Envelope) -> Result<BlockStatus, Ended> {
        let (channel, wanted) = match self.seek(request) {
            Ok(found) => found,
            Err(status) => return Ok(status),
        };
        let mut progress = channel.core.progress();
        let mut next = wanted.start;
        while next <= wanted.stop {
            progress.borrow_and_update();
            let blocks = channel
                .core
                .blocks(next)
                .await
                .map_err(|error| Ended::With(Status::aborted(chain(&error))))?;
            if blocks.is_empty() {
                if wanted.behavior == SeekBehavior::FailIfNotReady {
                    return Ok(BlockStatus::NotFound);
                }
                tokio::select! {
                    changed = progress.changed() => changed.map_err(|_| Ended::Gone)?,
                    () = self.out.closed() => return Err(Ended::Gone),
                    _ = self.closing.wait_for(|closing| *closing) => return Err(Ended::With(closed())),
                }
            }
            for block in blocks {
                if next > wanted.stop {
                    break;
                }
                self.send(block).await?;
                let Some(following) = next.checked_add(1) else { break };
                next = following;
            }
        }
        Ok(BlockStatus::Success)
    }

    async fn send(&self, block: Block) -> Result<(), Ended> {
        let answer = DeliverResponse {
            r#type: Some(Type::Block(block)),
        };
        self.out.send(Ok(answer)).await.map_err(|_| Ended::Gone)
    }

    /// Checks a seek request; the error is the status that refuses it.
    fn seek(&self, request: &Envelope) -> Result<(Arc<Channel>, Wanted), BlockStatus> {
        let opened = envelope::open(request).map_err(|_| BlockStatus::BadRequest)?;
        let seconds = opened.seconds().ok_or(BlockStatus::BadRequest)?;
        if now().abs_diff(seconds) > self.ledger.limits().seek_window.as_secs() {
            tracing::debug!(
                channel = opened.channel.channel_id,
                "a seek request's timestamp is too far from the clock"
            );
            return Err(BlockStatus::BadRequest);
        }
        let channel = self.ledger.channel(&opened.channel.channel_id).ok_or(BlockStatus::NotFound)?;
        let info = SeekInfo::decode(opened.data.as_slice()).map_err(|_| BlockStatus::BadRequest)?;
        let core = &channel.core;
        let signed = (request.payload.as_slice(), request.signature.as_slice());
        let creator = &opened.signature.creator;
        authorise(&core.name, &core.membership, "Application/Readers", creator, signed, now()).map_err(|_| BlockStatus::Forbidden)?;
        let wanted = wanted(&info, core.info().height)?;
        Ok((channel, wanted))
    }
}

fn wanted(info: &SeekInfo, height: u64) -> Result<Wanted, BlockStatus> {
    use seek_position::Type as Position;
    let position = |position: &Option<protos::orderer::SeekPosition>| {
        position
            .as_ref()
            .and_then(|position| position.r#type)
            .ok_or(BlockStatus::BadRequest)
    };
    let (start, stop) = (position(&info.start)?, position(&info.stop)?);
    let newest = height.saturating_sub(1);
    let first = match &start {
        Position::Oldest(_) => 0,
        Position::Newest(_) => newest,
        Position::NextCommit(_) => height,
        Position::Specified(specified) if specified.number > height => return Err(BlockStatus::NotFound),
        Position::Specified(specified) => specified.number,
    };
    let last = match &stop {
        // As in a peer, «oldest» ends a stream at its own first block.
        Position::Oldest(_) => first,
        Position::Newest(_) => newest,
        Position::Specified(specified) if specified.number < first => return Err(BlockStatus::BadRequest),
        Position::Specified(specified) => specified.number,
        Position::NextCommit(_) => return Err(BlockStatus::BadRequest),
    };
    Ok(Wanted {
        start: first,
        stop: last,
        behavior: info.behavior(),
    })
}
