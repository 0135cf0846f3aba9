//! The service `protos.Endorser`, as much of it as a client needs that doesn't know a channel yet: `cscc` `GetChannels`.

use prost::Message;
use protos::envelope;
use protos::peer::endorser_server::Endorser;
use protos::peer::{ChannelInfo, ChannelQueryResponse, ProposalResponse, Response as Answer, SignedProposal};
use state::errors::chain;
use tonic::{Request, Response, Status};

use crate::Ledger;
use crate::ledger::now;
use crate::status::{Policy, Signed, authorise, quoted};

/// The system chaincode that tells which channels a peer has joined.
pub(crate) const CHAINCODE: &str = "cscc";
const GET_CHANNELS: &[u8] = b"GetChannels";

/// The endorser of every member at once.
pub(crate) struct EndorserService {
    pub(crate) ledger: Ledger,
}

#[tonic::async_trait]
impl Endorser for EndorserService {
    async fn process_proposal(&self, request: Request<SignedProposal>) -> Result<Response<ProposalResponse>, Status> {
        let raw = request.into_inner();
        let (opened, invocation) = envelope::open_proposal(&raw.proposal_bytes).map_err(|error| Status::invalid_argument(chain(&error)))?;
        let answer = if invocation.chaincode.name == CHAINCODE && opened.channel.channel_id.is_empty() {
            let signed = Signed {
                creator: &opened.signature.creator,
                message: &raw.proposal_bytes,
                signature: &raw.signature,
            };
            answer(&self.ledger, &invocation.args, signed, now())
        } else {
            refused(format!(
                "the embedded ledger answers {CHAINCODE} GetChannels here; ask the gateway for {}",
                quoted(&invocation.chaincode.name)
            ))
        };
        Ok(Response::new(ProposalResponse {
            version: 1,
            response: Some(answer),
            ..ProposalResponse::default()
        }))
    }
}

/// Answers which channels there are for a member. One node stands for every member's peer, so each is told of its own channels only.
pub(crate) fn answer(ledger: &Ledger, args: &[Vec<u8>], signed: Signed<'_>, now: i64) -> Answer {
    match args {
        [function] if function == GET_CHANNELS => {}
        [function, ..] => {
            let function = String::from_utf8_lossy(function);
            return refused(format!("Requested function {} not found.", quoted(&function)));
        }
        [] => return refused("Incorrect number of arguments, 0".into()),
    }
    let readable = |name: &String| {
        let channel = ledger.channel(name)?;
        let core = &channel.core;
        authorise(name, &core.membership, Policy::Readers, signed, now).ok()
    };
    let names = ledger.channels().into_iter().map(|info| info.name);
    let channels = names.filter(|name| readable(name).is_some());
    let channels = channels.map(|channel_id| ChannelInfo { channel_id }).collect();
    Answer {
        status: 200,
        message: String::new(),
        payload: ChannelQueryResponse { channels }.encode_to_vec(),
    }
}

fn refused(message: String) -> Answer {
    Answer {
        status: 500,
        message,
        payload: Vec::new(),
    }
}
