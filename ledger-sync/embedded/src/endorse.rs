//! Proposals: checking them, running the chaincode, endorsing what it did.

use std::sync::Arc;

use chaincode::stub::{Creator, Invocation, Response};
use msp::{Identity, PemSigner, Signer};
use prost::Message;
use protos::common::{BlockchainInfo, Envelope, HeaderType, Payload};
use protos::envelope::{self, InvocationParts, Opened};
use protos::msp::SerializedIdentity;
use protos::peer::{
    self, ChaincodeAction, ChaincodeActionPayload, ChaincodeEndorsedAction, ChaincodeEvent, ChaincodeId, ChaincodeProposalPayload,
    Endorsement, Proposal, ProposalResponsePayload, SignedProposal, Transaction, TransactionAction,
};
use protos::txid;

use crate::channel::Core;
use crate::simulation::Simulation;
use crate::status::{Refusal, authorise};
use crate::validation::ENDORSEMENT_POLICY;
use crate::{Ledger, Limits};

/// The system chaincode that tells a channel's height.
const QUERY_CHAINCODE: &str = "qscc";
/// A chaincode's answers from this status on are refusals.
const ERROR_THRESHOLD: i32 = 400;

/// A proposal whose signer may make it.
pub(crate) struct Accepted {
    opened: Opened,
    invocation: InvocationParts,
    payload: Vec<u8>,
    creator: Arc<Identity>,
    now: i64,
}

/// Reads only which channel a proposal is for.
pub(crate) fn channel_of(proposal: Option<&SignedProposal>) -> Result<String, Refusal> {
    let malformed = |reason: String| Refusal::Malformed(format!("failed to unpack transaction proposal: {reason}"));
    let proposal = proposal
        .filter(|proposal| !proposal.proposal_bytes.is_empty())
        .ok_or_else(|| malformed("a signed proposal is required".into()))?;
    let (opened, _) = envelope::open_proposal(&proposal.proposal_bytes).map_err(|error| malformed(chain(&error)))?;
    if opened.channel.channel_id.is_empty() {
        return Err(malformed("no channel id provided".into()));
    }
    Ok(opened.channel.channel_id)
}

/// Checks a signed proposal as an endorsing peer does.
pub(crate) fn accept(core: &Core, limits: &Limits, proposal: &SignedProposal, now: i64) -> Result<Accepted, Refusal> {
    let malformed = |reason: String| Refusal::Malformed(format!("failed to unpack transaction proposal: {reason}"));
    let (opened, invocation) = envelope::open_proposal(&proposal.proposal_bytes).map_err(|error| malformed(chain(&error)))?;
    let total: usize = invocation.args.iter().map(Vec::len).sum();
    if invocation.args.is_empty() || invocation.args.len() > limits.args {
        let count = invocation.args.len();
        return Err(malformed(format!("it has {count} arguments, 1 to {} are taken", limits.args)));
    }
    if total > limits.args_bytes {
        let most = limits.args_bytes;
        return Err(malformed(format!(
            "its arguments have {total} bytes together, at most {most} are taken"
        )));
    }
    let denied = |reason: String| Refusal::Denied(format!("error validating proposal: {reason}"));
    if !opened.is(HeaderType::EndorserTransaction) {
        return Err(denied(format!("invalid header type {}", opened.channel.r#type)));
    }
    if opened.channel.epoch != 0 {
        return Err(denied("epoch is non-zero".into()));
    }
    if opened.signature.nonce.is_empty() {
        return Err(denied("nonce is empty".into()));
    }
    let expected = txid::tx_id(&opened.signature.nonce, &opened.signature.creator);
    if opened.channel.tx_id != expected {
        let claimed: String = opened.channel.tx_id.chars().take(80).collect();
        return Err(denied(format!("incorrectly computed txid '{claimed}' -- expected '{expected}'")));
    }
    let policy = if invocation.chaincode.name == QUERY_CHAINCODE {
        "Application/Readers"
    } else {
        "Application/Writers"
    };
    let signed = (proposal.proposal_bytes.as_slice(), proposal.signature.as_slice());
    let creator = authorise(&core.name, &core.membership, policy, &opened.signature.creator, signed, now).map_err(denied)?;
    if core.committed(&opened.channel.tx_id).is_some() {
        return Err(Refusal::Denied(format!("duplicate transaction found [{}]", opened.channel.tx_id)));
    }
    let payload = Proposal::decode(proposal.proposal_bytes.as_slice())
        .and_then(|proposal| ChaincodeProposalPayload::decode(proposal.payload.as_slice()))
        .map_err(|error| malformed(error.to_string()))?;
    let payload = ChaincodeProposalPayload {
        input: payload.input,
        ..ChaincodeProposalPayload::default()
    };
    Ok(Accepted {
        opened,
        invocation,
        payload: payload.encode_to_vec(),
        creator,
        now,
    })
}

/// Runs a proposal and gives the chaincode's answer; nothing is kept.
pub(crate) fn evaluate(core: &Core, proposal: &Accepted) -> Result<peer::Response, Refusal> {
    if proposal.invocation.chaincode.name == QUERY_CHAINCODE {
        return query(core, &proposal.invocation.args);
    }
    let (response, _) = simulate(core, proposal)?;
    Ok(answer(response))
}

/// Runs a proposal and has what it did endorsed by as many members as the channel's policy needs, or by those asked for.
pub(crate) fn endorse(ledger: &Ledger, core: &Core, proposal: &Accepted, organisations: &[String]) -> Result<Envelope, Refusal> {
    let (response, effects) = simulate(core, proposal)?;
    let chaincode = ChaincodeId {
        name: core.program.name().to_owned(),
        version: "1".into(),
        path: String::new(),
    };
    let event = effects.event.map(|(name, payload)| ChaincodeEvent {
        chaincode_id: chaincode.name.clone(),
        tx_id: proposal.opened.channel.tx_id.clone(),
        event_name: name,
        payload,
    });
    let action = ChaincodeAction {
        results: effects.rwset,
        events: event.map(|event| event.encode_to_vec()).unwrap_or_default(),
        response: Some(answer(response)),
        chaincode_id: Some(chaincode),
    };
    let response_payload = ProposalResponsePayload {
        proposal_hash: proposal.invocation.proposal_hash.to_vec(),
        extension: action.encode_to_vec(),
    }
    .encode_to_vec();
    let mut endorsements = Vec::new();
    for signer in endorsers(ledger, core, proposal, organisations)? {
        let endorser = signer.identity();
        let signature = signer
            .sign(&[response_payload.as_slice(), &endorser].concat())
            .map_err(|error| Refusal::Internal(error.to_string()))?;
        endorsements.push(Endorsement { endorser, signature });
    }
    let payload = ChaincodeActionPayload {
        chaincode_proposal_payload: proposal.payload.clone(),
        action: Some(ChaincodeEndorsedAction {
            proposal_response_payload: response_payload,
            endorsements,
        }),
    };
    let action = TransactionAction {
        header: proposal.opened.header.signature_header.clone(),
        payload: payload.encode_to_vec(),
    };
    let payload = Payload {
        header: Some(proposal.opened.header.clone()),
        data: Transaction { actions: vec![action] }.encode_to_vec(),
    };
    Ok(Envelope {
        payload: payload.encode_to_vec(),
        signature: Vec::new(),
    })
}

/// Chooses whose keys endorse: the creator's organisation first, then others until the policy is satisfied.
fn endorsers(ledger: &Ledger, core: &Core, proposal: &Accepted, organisations: &[String]) -> Result<Vec<Arc<PemSigner>>, Refusal> {
    let members = core.membership.members();
    if let Some(stranger) = organisations.iter().find(|asked| !members.contains(*asked)) {
        let stranger: String = stranger.chars().take(128).collect();
        let text = format!("failed to find any endorsing peers for org(s): {stranger}");
        return Err(Refusal::Precondition(text));
    }
    let own = members.iter().filter(|msp_id| **msp_id == proposal.creator.msp_id);
    let others = members.iter().filter(|msp_id| **msp_id != proposal.creator.msp_id);
    let candidates: Vec<&String> = if organisations.is_empty() {
        own.chain(others).collect()
    } else {
        organisations.iter().collect()
    };
    let mut chosen = Vec::new();
    let mut identities = Vec::new();
    for msp_id in candidates {
        let Some(signer) = ledger.endorser(msp_id) else { continue };
        let Ok(identity) = core.membership.authenticate(&signer.identity()) else {
            continue;
        };
        if identity.certificate.check_expiry(proposal.now).is_err() {
            continue;
        }
        identities.push(identity);
        chosen.push(signer);
        if organisations.is_empty() && core.membership.satisfied(ENDORSEMENT_POLICY, &identities) {
            return Ok(chosen);
        }
    }
    if organisations.is_empty() {
        let text = "no combination of peers can be derived which satisfy the endorsement policy";
        return Err(Refusal::Precondition(text.into()));
    }
    Ok(chosen)
}

/// What a simulated transaction would do.
struct Effects {
    rwset: Vec<u8>,
    event: Option<(String, Vec<u8>)>,
}

fn simulate(core: &Core, proposal: &Accepted) -> Result<(Response, Effects), Refusal> {
    let name = &proposal.invocation.chaincode.name;
    if name != core.program.name() {
        let name: String = name.chars().take(80).collect();
        return Err(Refusal::Precondition(format!(
            "make sure the chaincode {name} has been successfully defined on channel {} and try again: the embedded ledger \
             runs {} only",
            core.name,
            core.program.name()
        )));
    }
    let identity =
        SerializedIdentity::decode(proposal.creator.serialized.as_slice()).map_err(|error| Refusal::Internal(error.to_string()))?;
    let creator = Creator {
        msp_id: identity.mspid,
        certificate: identity.id_bytes,
    };
    let invocation = Invocation {
        channel: &core.name,
        tx_id: &proposal.opened.channel.tx_id,
        seconds: proposal.opened.seconds().unwrap_or_default(),
        creator: &creator,
        args: &proposal.invocation.args,
    };
    let view = core.view();
    let mut simulation = Simulation::new(&view.state, core.limits.range_results);
    let response = core.program.run(&mut simulation, &invocation);
    if response.status < 200 || response.status >= ERROR_THRESHOLD {
        return Err(Refusal::Chaincode {
            status: response.status,
            message: response.message,
        });
    }
    if let Some(fault) = simulation.fault() {
        return Err(Refusal::Chaincode {
            status: 500,
            message: fault.to_owned(),
        });
    }
    let (rwset, event) = simulation.finish(core.program.name());
    Ok((response, Effects { rwset, event }))
}

fn query(core: &Core, args: &[Vec<u8>]) -> Result<peer::Response, Refusal> {
    let refused = |message: String| Refusal::Chaincode { status: 500, message };
    match args {
        [function, channel] if function == b"GetChainInfo" && channel == core.name.as_bytes() => {
            let view = core.view();
            let info = BlockchainInfo {
                height: view.tip.height,
                current_block_hash: view.tip.header_hash.map(|hash| hash.to_vec()).unwrap_or_default(),
                previous_block_hash: view.tip.previous_hash.clone(),
            };
            Ok(peer::Response {
                status: 200,
                message: String::new(),
                payload: info.encode_to_vec(),
            })
        }
        [function, _] if function == b"GetChainInfo" => {
            Err(refused("Invalid chain ID: ask for the channel that the proposal is for".into()))
        }
        [function, ..] => {
            let name: String = String::from_utf8_lossy(function).chars().take(80).collect();
            Err(refused(format!(
                "Requested function {name} not found: the embedded ledger answers GetChainInfo only."
            )))
        }
        [] => Err(refused("Incorrect number of arguments, 0".into())),
    }
}

fn answer(response: Response) -> peer::Response {
    peer::Response {
        status: response.status,
        message: response.message,
        payload: response.payload,
    }
}

/// Writes an error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
