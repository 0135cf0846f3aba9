//! Which channels this member's peers have joined: asked of the peers themselves, for a member may not know any channel yet.

use std::collections::BTreeSet;

use prost::Message;
use protos::peer::endorser_client::EndorserClient;
use protos::peer::{ChannelQueryResponse, ProposalResponse};
use state::ids::Channel;
use tonic::{Code, Request};

use crate::gateway::GatewayClient;
use crate::ledger::{EvaluateError, Fault, Stage};
use crate::limits;
use crate::peers::Peer;
use crate::proposal;

/// The system chaincode of every peer that knows what it has joined.
const CHAINCODE: &str = "cscc";
const FUNCTION: &str = "GetChannels";

impl GatewayClient {
    /// Asks every peer. One that doesn't answer is passed over, as long as another one does: an organisation's peers may have joined
    /// different channels.
    pub(crate) async fn joined_anywhere(&self) -> Result<BTreeSet<Channel>, EvaluateError> {
        let mut joined = None::<BTreeSet<Channel>>;
        let mut failed = None;
        for peer in self.peers.all() {
            match self.joined_at(peer).await {
                Ok(channels) => joined.get_or_insert_default().extend(channels),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (joined, failed) {
            (Some(joined), _) => Ok(joined),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(BTreeSet::new()),
        }
    }

    async fn joined_at(&self, peer: &Peer) -> Result<BTreeSet<Channel>, EvaluateError> {
        let signer = self.signer.as_ref();
        let args = vec![FUNCTION.as_bytes().to_vec()];
        let proposed = proposal::propose_to_peer(signer, CHAINCODE, args, self.now()?)?;
        let within = self.timeouts.evaluate;
        let mut request = Request::new(proposed.signed(signer)?);
        request.set_timeout(within);
        let mut stub = EndorserClient::new(peer.connection.clone());
        let answer = Self::call(Stage::Evaluate, peer, within, stub.process_proposal(request)).await;
        let channels = channels(answer.map_err(EvaluateError::Call)?).map_err(|refused| match refused {
            Refused::Status(status, message) => EvaluateError::Refused {
                function: FUNCTION.into(),
                status,
                message: limits::quoted(&message),
            },
            Refused::Answer => EvaluateError::Call(Fault {
                stage: Stage::Evaluate,
                endpoint: peer.endpoint.clone(),
                code: Code::Internal,
                message: "the peer's answer is no list of channels".into(),
                nodes: Vec::new(),
            }),
        })?;
        Ok(channels)
    }
}

enum Refused {
    Status(i32, String),
    Answer,
}

/// Reads the channels of an answer. What can't be the name of a Charter channel is another application's.
fn channels(answer: ProposalResponse) -> Result<BTreeSet<Channel>, Refused> {
    let response = answer.response.ok_or(Refused::Answer)?;
    if response.status != 200 {
        return Err(Refused::Status(response.status, response.message));
    }
    let list = ChannelQueryResponse::decode(response.payload.as_slice()).map_err(|_| Refused::Answer)?;
    let names = list.channels.into_iter().take(limits::CHANNELS);
    Ok(names.filter_map(|channel| Channel::new(channel.channel_id).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protos::peer::{ChannelInfo, Response};

    fn answer(status: i32, names: &[&str]) -> ProposalResponse {
        let channels = names.iter().map(|name| ChannelInfo {
            channel_id: (*name).into(),
        });
        let list = ChannelQueryResponse {
            channels: channels.collect(),
        };
        ProposalResponse {
            response: Some(Response {
                status,
                message: "no".into(),
                payload: list.encode_to_vec(),
            }),
            ..ProposalResponse::default()
        }
    }

    #[test]
    fn only_names_that_can_be_ours_are_taken() {
        let found = channels(answer(200, &["smart-city-1", "Other.App", "../x", ""])).ok().unwrap();
        assert_eq!(found.iter().map(Channel::as_str).collect::<Vec<_>>(), ["smart-city-1"]);
        let many: Vec<String> = (0..limits::CHANNELS + 10).map(|number| format!("c{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(channels(answer(200, &many)).ok().unwrap().len(), limits::CHANNELS);
    }

    #[test]
    fn a_refusal_is_no_empty_list() {
        assert!(matches!(channels(answer(500, &[])), Err(Refused::Status(500, _))));
        assert!(matches!(channels(ProposalResponse::default()), Err(Refused::Answer)));
    }
}
