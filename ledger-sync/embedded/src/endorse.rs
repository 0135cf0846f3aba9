//! Proposals: checking them, running the chaincode, endorsing what it did.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLockReadGuard};

use chaincode::stub::{Creator, Invocation, Response};
use msp::{Identity, PemSigner, Signer};
use prost::Message;
use protos::common::{Envelope, HeaderType, Payload};
use protos::envelope::{self, InvocationParts, Opened};
use protos::msp::SerializedIdentity;
use protos::peer::{
    self, ChaincodeAction, ChaincodeActionPayload, ChaincodeEndorsedAction, ChaincodeEvent, ChaincodeId, ChaincodeProposalPayload,
    Endorsement, Proposal, ProposalResponsePayload, SignedProposal, Transaction, TransactionAction,
};
use protos::txid;
use state::errors::chain;

use crate::channel::Core;
use crate::simulation::Simulation;
use crate::status::{Call, Policy, Refusal, Signed, authenticate, in_time, no_endorsers, permit, quoted};
use crate::validation::{ENDORSEMENT_POLICY, claimed_msp_id};
use crate::view::View;
use crate::world_state::WorldState;
use crate::{Ledger, Limits, endorser, query};

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

/// What a proposal is for.
pub(crate) struct Target {
    pub(crate) channel: String,
    pub(crate) chaincode: String,
    /// The organisation that its creator claims to be of.
    pub(crate) msp_id: String,
}

/// Reads only what a proposal is for; nothing of it is verified.
pub(crate) fn target(call: Call, proposal: Option<&SignedProposal>) -> Result<Target, Refusal> {
    let malformed = |reason: String| Refusal::Malformed(format!("failed to unpack transaction proposal: {reason}"));
    let proposal = proposal
        .filter(|proposal| !proposal.proposal_bytes.is_empty())
        .ok_or_else(|| match call {
            Call::Evaluate => malformed("a signed proposal is required".into()),
            Call::Endorse => Refusal::Malformed("the proposed transaction must contain a signed proposal".into()),
        })?;
    let (opened, invocation) = envelope::open_proposal(&proposal.proposal_bytes).map_err(|error| malformed(chain(&error)))?;
    if opened.channel.channel_id.is_empty() {
        return Err(malformed("no channel id provided".into()));
    }
    Ok(Target {
        msp_id: claimed_msp_id(&opened.signature.creator),
        channel: opened.channel.channel_id,
        chaincode: invocation.chaincode.name,
    })
}

/// Finds out whether anybody here can answer a proposal: before a node is asked, as a gateway does.
pub(crate) fn find_nodes(core: &Core, chaincode: &str, call: Call, organisations: &[String]) -> Result<(), Refusal> {
    let members = core.membership.members();
    let system = [query::CHAINCODE, endorser::CHAINCODE];
    let known = chaincode == core.program.name() || system.contains(&chaincode);
    let strangers = || organisations.iter().filter(|asked| !known || !members.contains(*asked));
    let nobody = !known || !organisations.is_empty() && strangers().count() == organisations.len();
    match call {
        Call::Evaluate if nobody => Err(Refusal::Precondition(format!(
            "no peers available to evaluate chaincode {} in channel {}",
            quoted(chaincode),
            core.name
        ))),
        Call::Evaluate => Ok(()),
        Call::Endorse if strangers().next().is_some() => {
            let strangers: Vec<String> = strangers().take(8).map(|stranger| quoted(stranger)).collect();
            let text = format!("failed to find any endorsing peers for org(s): {}", strangers.join(", "));
            Err(Refusal::Unavailable(text))
        }
        Call::Endorse if !known => Err(Refusal::Precondition(format!(
            "{}: the embedded ledger runs {} only",
            no_endorsers(chaincode, &core.name),
            core.program.name()
        ))),
        Call::Endorse => Ok(()),
    }
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
    in_time(opened.seconds(), now, limits.clock_window)?;
    let denied = |reason: String| Refusal::Denied(format!("error validating proposal: {reason}"));
    if !opened.is(HeaderType::EndorserTransaction) {
        let number = opened.channel.r#type;
        let name = HeaderType::try_from(number).map_or_else(|_| number.to_string(), |found| found.as_str_name().to_owned());
        return Err(denied(format!("invalid header type {name}")));
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
    let signed = signed(&opened, proposal);
    let refused = |denied: crate::status::Denied| denied.proposing(&core.name, signed.creator);
    let creator = authenticate(&core.name, &core.membership, signed, now).map_err(refused)?;
    if core.committed(&opened.channel.tx_id).is_some() {
        let tx_id = &opened.channel.tx_id;
        let creator: String = signed.creator.iter().map(|byte| format!("{byte:02x}")).collect();
        return Err(Refusal::Denied(format!(
            "duplicate transaction found [{tx_id}]. Creator [{creator}]"
        )));
    }
    if ![query::CHAINCODE, endorser::CHAINCODE].contains(&invocation.chaincode.name.as_str()) {
        permit(&core.membership, Policy::Writers, &creator).map_err(refused)?;
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

/// Takes out who signed a proposal.
fn signed<'a>(opened: &'a Opened, proposal: &'a SignedProposal) -> Signed<'a> {
    Signed {
        creator: &opened.signature.creator,
        message: &proposal.proposal_bytes,
        signature: &proposal.signature,
    }
}

/// Runs a proposal and gives the chaincode's answer; nothing is kept.
pub(crate) fn evaluate(ledger: &Ledger, core: &Core, proposal: &Accepted, raw: &SignedProposal) -> Result<peer::Response, Refusal> {
    if proposal.invocation.chaincode.name == query::CHAINCODE {
        return query::answer(ledger, &proposal.invocation.args, signed(&proposal.opened, raw), proposal.now);
    }
    if proposal.invocation.chaincode.name == endorser::CHAINCODE {
        let answer = endorser::answer(ledger, &proposal.invocation.args, signed(&proposal.opened, raw), proposal.now);
        return match answer {
            answer if answer.status == 200 => Ok(answer),
            peer::Response { status, message, .. } => Err(Refusal::Chaincode { status, message }),
        };
    }
    let (response, _) = simulate(core, proposal, raw)?;
    Ok(answer(response))
}

/// Runs a proposal and has what it did endorsed by as many members as the channel's policy needs, or by those asked for.
pub(crate) fn endorse(
    ledger: &Ledger,
    core: &Core,
    proposal: &Accepted,
    raw: &SignedProposal,
    organisations: &[String],
) -> Result<Envelope, Refusal> {
    let (response, effects) = simulate(core, proposal, raw)?;
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
    let own = members.iter().filter(|msp_id| **msp_id == proposal.creator.msp_id);
    let others = members.iter().filter(|msp_id| **msp_id != proposal.creator.msp_id);
    let candidates: Vec<&String> = if organisations.is_empty() {
        own.chain(others).collect()
    } else {
        // Each once, however often it was named.
        organisations.iter().collect::<BTreeSet<_>>().into_iter().collect()
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
        let text = "no combination of peers can be derived which satisfy the endorsement policy: endorsement policy cannot be satisfied";
        return Err(Refusal::Precondition(text.into()));
    }
    Ok(chosen)
}

/// What a simulated transaction would do.
struct Effects {
    rwset: Vec<u8>,
    event: Option<(String, Vec<u8>)>,
}

/// The state that one transaction runs on. Fields are dropped in their order: once commits may go on, nobody shares the state.
struct Snapshot<'a> {
    state: Arc<WorldState>,
    // For a program in this process, commits wait for the moment that it takes. For one elsewhere they don't: a commit that comes in
    // between copies the state.
    _commits_wait: Option<RwLockReadGuard<'a, View>>,
}

impl<'a> Snapshot<'a> {
    fn of(core: &'a Core) -> Self {
        let view = core.view();
        Self {
            state: Arc::clone(&view.state),
            _commits_wait: core.program.is_here().then_some(view),
        }
    }
}

fn simulate(core: &Core, proposal: &Accepted, raw: &SignedProposal) -> Result<(Response, Effects), Refusal> {
    if proposal.invocation.chaincode.name != core.program.name() {
        let name = quoted(&proposal.invocation.chaincode.name);
        return Err(Refusal::Precondition(no_endorsers(&name, &core.name)));
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
    let snapshot = Snapshot::of(core);
    let mut simulation = Simulation::new(&snapshot.state, core.limits.range_results);
    let response = core.program.run(&mut simulation, &invocation, raw);
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

fn answer(response: Response) -> peer::Response {
    peer::Response {
        status: response.status,
        message: response.message,
        payload: response.payload,
    }
}
