//! Checks a channel's evidence from its first block on: hash chain, orderers' and creators' signatures, and the signature of
//! each report with the certificate that its transaction was signed with.

use std::collections::BTreeMap;

use futures::StreamExt;
use msp::Certificate;
use prost::Message;
use protos::common::Block;
use protos::msp::SerializedIdentity;
use state::event::{EventBody, Position};
use state::ids::{Channel, MemberId};
use thiserror::Error;

use crate::decode::Decoded;
use crate::ledger::{Ledger, StreamError};
use crate::reports::{self, SignedReportError};
use crate::verify::{BlockVerifier, VerifyError};

/// What stood up to the check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Blocks whose place in the chain and whose signatures are good.
    pub blocks: u64,
    /// Our events in them.
    pub events: u64,
    /// Events that every member puts into quarantine.
    pub quarantined: u64,
    /// Good reports, by member.
    pub reports: BTreeMap<MemberId, u64>,
}

/// Something does not stand up to the check.
#[derive(Debug, Error)]
pub enum EvidenceError {
    /// The blocks can't be had.
    #[error("the blocks can't be had")]
    Stream(#[from] StreamError),
    /// A block is not to be believed.
    #[error("a block is not to be believed")]
    Verify(#[from] VerifyError),
    /// A report is not to be believed.
    #[error("the report of {member} in transaction {position} is not to be believed")]
    Report {
        /// Who is said to have sent it.
        member: MemberId,
        /// Its transaction.
        position: Position,
        /// Why not.
        #[source]
        source: SignedReportError,
    },
    /// A transaction's creator can't be read.
    #[error("the creator of transaction {position} can't be read")]
    Creator {
        /// The transaction.
        position: Position,
    },
}

/// Checks everything that the ledger has of a channel now.
pub async fn check(ledger: &dyn Ledger, channel: &Channel) -> Result<Evidence, EvidenceError> {
    let height = ledger.height(channel).await?;
    let mut evidence = Evidence::default();
    let mut verifier: Option<BlockVerifier> = None;
    let mut blocks = ledger.blocks(channel, 0).await?;
    while evidence.blocks < height {
        let Some(block) = blocks.next().await else { break };
        let block = block?;
        match &mut verifier {
            None => verifier = Some(BlockVerifier::start(channel.clone(), &block, None)?),
            Some(verifier) => {
                if let Some(verified) = verifier.verify(&block)? {
                    for decoded in &verified.decoded {
                        take(&block, decoded, &mut evidence)?;
                    }
                }
            }
        }
        evidence.blocks += 1;
    }
    Ok(evidence)
}

fn take(block: &Block, decoded: &Decoded, evidence: &mut Evidence) -> Result<(), EvidenceError> {
    let event = match decoded {
        Decoded::Event { event, .. } => event,
        Decoded::Quarantine { .. } => {
            evidence.quarantined += 1;
            return Ok(());
        }
        _ => return Ok(()),
    };
    evidence.events += 1;
    if let EventBody::ReportSubmitted { envelope, .. } = &event.body {
        let position = event.source.position;
        let certificate = creator(block, position).ok_or(EvidenceError::Creator { position })?;
        let member = &event.source.by;
        reports::verify(envelope, &certificate).map_err(|source| EvidenceError::Report {
            member: member.clone(),
            position,
            source,
        })?;
        *evidence.reports.entry(member.clone()).or_default() += 1;
    }
    Ok(())
}

fn creator(block: &Block, position: Position) -> Option<Certificate> {
    let data = block.data.as_ref()?.data.get(usize::try_from(position.tx).ok()?)?;
    let envelope = protos::envelope::decode_envelope(data).ok()?;
    let opened = protos::envelope::open(&envelope).ok()?;
    let identity = SerializedIdentity::decode(opened.signature.creator.as_slice()).ok()?;
    Certificate::from_pem(&identity.id_bytes).ok()
}
