//! Checks a channel's evidence from its first block on: hash chain, orderers' and creators' signatures, and the signature of
//! each report with the certificate that its transaction was signed with; and every transaction is run again. The chain has to be
//! the one that a member's references were made from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use msp::Certificate;
use prost::Message;
use protos::common::Block;
use protos::msp::SerializedIdentity;
use state::canonical::Digest;
use state::cursor::Cursor;
use state::event::{EventBody, Position};
use state::ids::{Channel, MemberId, TxId};
use thiserror::Error;
use tokio::time::Instant;

use crate::decode::Decoded;
use crate::ledger::{Ledger, StreamError};
use crate::limits;
use crate::reexecute::{Mirror, Recorded, Reexecution, ReexecutionError, Standing};
use crate::reports::{self, SignedReportError};
use crate::verify::{BlockVerifier, Verified, VerifyError};

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
    /// What running the transactions again has found; none where none were.
    pub rerun: Option<Standing>,
    /// The keys that signed the transactions, by MSP id: the public points, uncompressed. Their certificates were the
    /// organisation's when they signed; a member that renews its certificate has more than one.
    pub keys: BTreeMap<String, BTreeSet<Vec<u8>>>,
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
    /// A block is not what the chaincode makes of it.
    #[error("a block is not what the chaincode makes of it")]
    Reexecution(#[from] ReexecutionError),
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
    /// The ledger gave fewer blocks than it says to have.
    #[error("the ledger says that channel {channel} has {height} blocks and gave {verified}")]
    Short {
        /// The channel.
        channel: Channel,
        /// How many it says to have.
        height: u64,
        /// How many came and were verified.
        verified: u64,
    },
    /// A reference was made from a block that the ledger does not have.
    #[error("the ledger has {height} blocks of channel {channel}, block {needed} was taken in before: it is behind, or was reset")]
    Behind {
        /// The channel.
        channel: Channel,
        /// How many blocks the ledger has.
        height: u64,
        /// The block that was taken in.
        needed: u64,
    },
    /// A reference was made from a transaction that says nothing to Charter now: the peer calls it something else than before.
    #[error("transaction {position} ({tx_id}) of channel {channel} was taken in before and is not valid at that place now")]
    Gone {
        /// The channel.
        channel: Channel,
        /// The transaction's place.
        position: Position,
        /// The transaction.
        tx_id: TxId,
    },
    /// A transaction's creator can't be read.
    #[error("the creator of transaction {position} can't be read")]
    Creator {
        /// The transaction.
        position: Position,
    },
}

/// Checks everything that the ledger has of a channel now, against what a member has of it: the hash of the first block as it
/// was pinned, and where its references stand.
pub async fn check(
    ledger: &dyn Ledger,
    channel: &Channel,
    pinned: Option<Digest>,
    cursors: &[Cursor],
    reexecution: Reexecution,
) -> Result<Evidence, EvidenceError> {
    within(limits::FETCH, ledger, channel, pinned, cursors, reexecution).await
}

/// The same, with the longest time from one block to the next.
async fn within(
    patience: Duration,
    ledger: &dyn Ledger,
    channel: &Channel,
    pinned: Option<Digest>,
    cursors: &[Cursor],
    reexecution: Reexecution,
) -> Result<Evidence, EvidenceError> {
    let height = ledger.height(channel).await?;
    if let Some(needed) = cursors
        .iter()
        .map(|cursor| cursor.position.block)
        .max()
        .filter(|last| *last >= height)
    {
        return Err(EvidenceError::Behind {
            channel: channel.clone(),
            height,
            needed,
        });
    }
    let mut evidence = Evidence::default();
    let mut creators = Creators::default();
    let mut verifier: Option<BlockVerifier> = None;
    let mut mirror: Option<Mirror> = None;
    let mut blocks = ledger.blocks(channel, 0).await?;
    let mut deadline = Instant::now() + patience;
    while evidence.blocks < height {
        let late = || StreamError::Ended {
            endpoint: "the ledger".into(),
            channel: channel.clone(),
            what: "it sent no new block in time",
        };
        // Looked at by itself: a stream that repeats its blocks for ever is never waited for.
        if Instant::now() >= deadline {
            return Err(late().into());
        }
        let next = tokio::time::timeout_at(deadline, blocks.next()).await.map_err(|_| late())?;
        let block = next.ok_or_else(|| EvidenceError::Short {
            channel: channel.clone(),
            height,
            verified: evidence.blocks,
        })??;
        let verified = match &mut verifier {
            None => {
                let started = BlockVerifier::start(channel.clone(), &block, pinned)?;
                let genesis = Verified {
                    number: 0,
                    hash: started.genesis(),
                    decoded: Vec::new(),
                    recorded: Recorded::default(),
                };
                mirror = (reexecution == Reexecution::Enforced).then(|| Mirror::new(channel, started.genesis()));
                verifier = Some(started);
                Some(genesis)
            }
            Some(verifier) => verifier.verify(&block)?,
        };
        // A block that came before counts once.
        let Some(verified) = verified else { continue };
        if let Some(mirror) = mirror.as_mut().filter(|_| verified.number > 0) {
            mirror.take(verified.number, verified.hash, &verified.recorded)?;
            evidence.rerun = Some(mirror.standing());
        }
        compare(channel, &verified, cursors)?;
        for decoded in &verified.decoded {
            take(&block, decoded, &mut creators, &mut evidence)?;
        }
        evidence.blocks += 1;
        deadline = Instant::now() + patience;
    }
    Ok(evidence)
}

/// Checks a block against the cursors that stand at it.
fn compare(channel: &Channel, verified: &Verified, cursors: &[Cursor]) -> Result<(), EvidenceError> {
    for cursor in cursors.iter().filter(|cursor| cursor.position.block == verified.number) {
        if cursor.block_hash != verified.hash {
            return Err(EvidenceError::Verify(VerifyError::Fork {
                channel: channel.clone(),
                block: verified.number,
                expected: cursor.block_hash,
                found: verified.hash,
            }));
        }
        let same = |decoded: &Decoded| decoded.position() == cursor.position && *decoded.tx_id() == cursor.tx_id;
        if !verified.decoded.iter().any(same) {
            return Err(EvidenceError::Gone {
                channel: channel.clone(),
                position: cursor.position,
                tx_id: cursor.tx_id.clone(),
            });
        }
    }
    Ok(())
}

fn take(block: &Block, decoded: &Decoded, creators: &mut Creators, evidence: &mut Evidence) -> Result<(), EvidenceError> {
    let position = decoded.position();
    let creator = creators.of(block, position).ok_or(EvidenceError::Creator { position })?;
    let keys = evidence.keys.entry(creator.msp_id.clone()).or_default();
    if keys.len() < limits::KEYS && !keys.contains(creator.certificate.public_key()) {
        keys.insert(creator.certificate.public_key().to_vec());
    }
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
        let member = &event.source.by;
        reports::verify(envelope, &creator.certificate).map_err(|source| EvidenceError::Report {
            member: member.clone(),
            position,
            source,
        })?;
        *evidence.reports.entry(member.clone()).or_default() += 1;
    }
    Ok(())
}

/// Who signed a transaction.
struct Creator {
    msp_id: String,
    certificate: Certificate,
}

/// The creators that were met lately, by their bytes: they are few, and a certificate is slow to read.
#[derive(Default)]
struct Creators(BTreeMap<Vec<u8>, Creator>);

impl Creators {
    fn of(&mut self, block: &Block, position: Position) -> Option<&Creator> {
        let data = block.data.as_ref()?.data.get(usize::try_from(position.tx).ok()?)?;
        let envelope = protos::envelope::decode_envelope(data).ok()?;
        let opened = protos::envelope::open(&envelope).ok()?;
        let bytes = opened.signature.creator;
        if !self.0.contains_key(&bytes) {
            let identity = SerializedIdentity::decode(bytes.as_slice()).ok()?;
            let certificate = Certificate::from_pem(&identity.id_bytes).ok()?;
            if self.0.len() >= limits::CREATORS {
                self.0.clear();
            }
            let msp_id = identity.mspid;
            self.0.insert(bytes.clone(), Creator { msp_id, certificate });
        }
        self.0.get(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MemoryNetwork, Misbehaviour};

    #[tokio::test]
    async fn a_stream_that_says_nothing_is_not_waited_for() {
        let channel = Channel::new("smart-city-1").unwrap();
        let network = MemoryNetwork::new(&channel, &["CityMSP"]).unwrap();
        network.misbehave(Misbehaviour {
            hung: true,
            ..Misbehaviour::default()
        });
        let ledger = network.ledger("CityMSP");
        let error = within(Duration::from_millis(20), &ledger, &channel, None, &[], Reexecution::Enforced)
            .await
            .unwrap_err();
        assert!(matches!(error, EvidenceError::Stream(StreamError::Ended { .. })), "{error}");
    }
}
