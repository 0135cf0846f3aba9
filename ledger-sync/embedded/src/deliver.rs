//! The service `protos.Deliver`: full blocks, filtered blocks, and blocks with private data, from any start, following.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use msp::Identity;
use prost::Message;
use protos::common::{Block, Envelope, HeaderType, Status as BlockStatus};
use protos::envelope;
use protos::orderer::SeekInfo;
use protos::orderer::seek_info::{SeekBehavior, SeekContentType};
use protos::peer::deliver_response::Type;
use protos::peer::deliver_server::Deliver;
use protos::peer::{BlockAndPrivateData, DeliverResponse};
use state::errors::chain;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Ledger;
use crate::channel::Channel;
use crate::filtered::filtered;
use crate::gateway::{STREAM_BUFFER, closed, stream_permit};
use crate::ledger::now;
use crate::seek::{self, Wanted};
use crate::status::{Policy, Signed, authorise};

/// Delivers blocks to members.
pub(crate) struct DeliverService {
    pub(crate) ledger: Ledger,
    pub(crate) closing: watch::Receiver<bool>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<DeliverResponse, Status>> + Send>>;

/// What a stream tells of each block.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// All of it.
    Full,
    /// Ids, codes, and the names of events.
    Filtered,
    /// All of it, beside the private data that its reader may see: there is none.
    WithPrivateData,
}

#[tonic::async_trait]
impl Deliver for DeliverService {
    type DeliverStream = Answers;
    type DeliverFilteredStream = Answers;
    type DeliverWithPrivateDataStream = Answers;

    async fn deliver(&self, request: Request<Streaming<Envelope>>) -> Result<Response<Answers>, Status> {
        self.open(request, Form::Full)
    }

    async fn deliver_filtered(&self, request: Request<Streaming<Envelope>>) -> Result<Response<Answers>, Status> {
        self.open(request, Form::Filtered)
    }

    async fn deliver_with_private_data(&self, request: Request<Streaming<Envelope>>) -> Result<Response<Answers>, Status> {
        self.open(request, Form::WithPrivateData)
    }
}

impl DeliverService {
    #[allow(clippy::result_large_err, reason = "the error is the framework's")]
    fn open(&self, request: Request<Streaming<Envelope>>, form: Form) -> Result<Response<Answers>, Status> {
        let permit = stream_permit(&self.ledger)?;
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let session = Session {
            ledger: self.ledger.clone(),
            form,
            out: sender,
            closing: self.closing.clone(),
        };
        tokio::spawn(async move {
            let _permit = permit;
            session.run(request.into_inner()).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One client's stream.
struct Session {
    ledger: Ledger,
    form: Form,
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

/// A seek request that was let in.
struct Admitted {
    channel: Arc<Channel>,
    wanted: Wanted,
    reader: Arc<Identity>,
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
        let Admitted { channel, wanted, reader } = match self.admit(request) {
            Ok(admitted) => admitted,
            Err(status) => return Ok(status),
        };
        let mut progress = channel.core.progress();
        let mut next = wanted.first;
        loop {
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
                // A stream may outlive its reader's certificate.
                if reader.certificate.check_expiry(now()).is_err() {
                    return Ok(BlockStatus::Forbidden);
                }
                self.send(&channel.core.name, wanted.content, block).await?;
                if next == wanted.last {
                    return Ok(BlockStatus::Success);
                }
                let Some(following) = next.checked_add(1) else {
                    return Ok(BlockStatus::Success);
                };
                next = following;
            }
        }
    }

    async fn send(&self, channel: &str, content: SeekContentType, block: Block) -> Result<(), Ended> {
        let r#type = match self.form {
            Form::Full => Type::Block(of_content(content, block)),
            Form::Filtered => Type::FilteredBlock(filtered(channel, &block)),
            Form::WithPrivateData => Type::BlockAndPrivateData(BlockAndPrivateData {
                block: Some(of_content(content, block)),
                ..BlockAndPrivateData::default()
            }),
        };
        let answer = DeliverResponse { r#type: Some(r#type) };
        self.out.send(Ok(answer)).await.map_err(|_| Ended::Gone)
    }

    /// Checks a seek request, in a peer's order; the error is the status that refuses it.
    fn admit(&self, request: &Envelope) -> Result<Admitted, BlockStatus> {
        let opened = envelope::open(request).map_err(|_| BlockStatus::BadRequest)?;
        let seconds = opened.seconds().ok_or(BlockStatus::BadRequest)?;
        if now().abs_diff(seconds) > self.ledger.limits().clock_window.as_secs() {
            tracing::debug!(
                channel = opened.channel.channel_id,
                "a seek request's timestamp is too far from the clock"
            );
            return Err(BlockStatus::BadRequest);
        }
        let channel = self.ledger.channel(&opened.channel.channel_id).ok_or(BlockStatus::NotFound)?;
        let info = SeekInfo::decode(opened.data.as_slice()).map_err(|_| BlockStatus::BadRequest)?;
        let core = &channel.core;
        let signed = Signed {
            creator: &opened.signature.creator,
            message: &request.payload,
            signature: &request.signature,
        };
        let reader = authorise(&core.name, &core.membership, Policy::Readers, signed, now()).map_err(|_| BlockStatus::Forbidden)?;
        let wanted = seek::wanted(&info, core.info().height)?;
        Ok(Admitted { channel, wanted, reader })
    }
}

/// Leaves away what a reader of headers and signatures doesn't need; a configuration is always sent whole.
fn of_content(content: SeekContentType, block: Block) -> Block {
    match content {
        SeekContentType::HeaderWithSig if !is_configuration(&block) => Block { data: None, ..block },
        _ => block,
    }
}

fn is_configuration(block: &Block) -> bool {
    let first = block.data.as_ref().and_then(|data| data.data.first());
    first
        .and_then(|bytes| envelope::open(&envelope::decode_envelope(bytes).ok()?).ok())
        .is_some_and(|opened| opened.is(HeaderType::Config))
}
