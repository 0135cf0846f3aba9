//! What the ledger says: one CloudEvents 1.0 document per transaction, and the typed event that it becomes.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::acts::accounts::{Representation, Vouching};
use crate::acts::agreed::{Agreed, AgreementNamed};
use crate::acts::approvals::{ProposalNamed, Wanted};
use crate::acts::distributions::Distribution;
use crate::acts::handovers::HandOver;
use crate::acts::imports::{Import, ImportNamed};
use crate::acts::keys::KeyPublished;
use crate::acts::life::{MemberNamed, Nothing};
use crate::acts::negotiations::{Acceptance, Request, Resulting, Tabled, Termination};
use crate::acts::offers::{Offer, OfferNamed};
use crate::acts::ratings::Rating;
use crate::acts::transfers::{Transfer, TransferNamed};
use crate::agreement::{Agreement, Role};
use crate::canonical::Digest;
use crate::ids::{Channel, MemberId, MspId, ResourceName, TxId};
use crate::resource::Resource;
use crate::time::Timestamp;

/// The newest schema version of events that this binary reads. It writes the oldest that an event needs, so that members who have
/// not upgraded yet follow a channel for as long as nobody uses what they don't know.
pub const SCHEMA_VERSION: u32 = 2;
/// The largest event, in bytes.
pub const MAX_EVENT_BYTES: usize = 2 * 1024 * 1024;

/// A place in a channel: a transaction in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The block's number.
    pub block: u64,
    /// The transaction's index in the block, from 0.
    pub tx: u32,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.block, self.tx)
    }
}

/// A transaction, as evidence for what it caused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Where it stands.
    pub position: Position,
    /// Its id.
    pub tx_id: TxId,
    /// Its timestamp: chosen by its client, clamped.
    pub at: Timestamp,
    /// The member that submitted it.
    pub by: MemberId,
}

/// One decoded event of a valid transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEvent {
    /// The channel that it comes from.
    pub channel: Channel,
    /// The transaction, and the member that the event says submitted it.
    pub source: Provenance,
    /// The MSP that signed the transaction, as the ledger authenticated it.
    pub msp: MspId,
    /// What happened.
    pub body: EventBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all_fields = "snake_case", deny_unknown_fields)]
pub enum EventBody {
    /// A member bound its name to its MSP.
    #[serde(rename = "charter.member.registered")]
    MemberRegistered {
        /// The member.
        member: MemberId,
        /// Its MSP.
        msp: MspId,
        /// What it brings.
        role: Role,
    },
    /// A member put a DAO version's agreement before the others; it has accepted it itself.
    #[serde(rename = "charter.agreement.constituted")]
    AgreementConstituted {
        /// The agreement.
        agreement: Agreement,
        /// Its digest.
        digest: Digest,
    },
    /// A member accepted it. With the last acceptance it is in force.
    #[serde(rename = "charter.agreement.accepted")]
    AgreementAccepted {
        /// The accepted digest.
        digest: Digest,
        /// Whether every party has accepted now.
        in_force: bool,
    },
    /// New resources.
    #[serde(rename = "charter.resources.ordered")]
    ResourcesOrdered {
        /// The resources, whole.
        resources: Vec<Resource>,
    },
    /// Changed resources.
    #[serde(rename = "charter.resources.amended")]
    ResourcesAmended {
        /// The resources, whole, as they are from now on.
        resources: Vec<Resource>,
    },
    /// Resources that are no longer wanted.
    #[serde(rename = "charter.resources.retired")]
    ResourcesRetired {
        /// Their names.
        resources: Vec<ResourceName>,
    },
    /// A member's signed report.
    #[serde(rename = "charter.report.submitted")]
    ReportSubmitted {
        /// Its number in the member's chain of reports, from 1.
        sequence: u64,
        /// The digest of the DSSE payload: the report's id, and the next report's `previous`.
        digest: Digest,
        /// The DSSE envelope.
        envelope: crate::report::Envelope,
        /// The transaction's own time, where the ledger keeps it as a sign of life.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heartbeat: Option<Timestamp>,
    },
    /// A member offers something on a market.
    #[serde(rename = "charter.offer.published")]
    OfferPublished(Offer),
    /// A member changed what it offers.
    #[serde(rename = "charter.offer.amended")]
    OfferAmended(Offer),
    /// A member offers something no more.
    #[serde(rename = "charter.offer.withdrawn")]
    OfferWithdrawn(OfferNamed),
    /// A member asks for a change that others have to approve first.
    #[serde(rename = "charter.change.proposed")]
    ChangeProposed(Wanted),
    /// A member approves a proposal. With the last approval that it needs it is in force.
    #[serde(rename = "charter.change.approved")]
    ChangeApproved(ProposalNamed),
    /// A member rejects a proposal.
    #[serde(rename = "charter.change.rejected")]
    ChangeRejected(ProposalNamed),
    /// A member takes its own proposal back.
    #[serde(rename = "charter.change.withdrawn")]
    ChangeWithdrawn(ProposalNamed),
    /// A member published the key that is sealed to for it.
    #[serde(rename = "charter.key.published")]
    KeyPublished(KeyPublished),
    /// A member asked others to negotiate.
    #[serde(rename = "charter.negotiation.requested")]
    NegotiationRequested(Request),
    /// A party put terms on the table.
    #[serde(rename = "charter.negotiation.offered")]
    NegotiationOffered(Box<Tabled>),
    /// A consumer accepted them.
    #[serde(rename = "charter.negotiation.accepted")]
    NegotiationAccepted(Acceptance),
    /// The provider agreed to them.
    #[serde(rename = "charter.negotiation.agreed")]
    NegotiationAgreed(Resulting),
    /// A consumer found that they make the agreement.
    #[serde(rename = "charter.negotiation.verified")]
    NegotiationVerified(Resulting),
    /// The provider closed the negotiation.
    #[serde(rename = "charter.negotiation.finalized")]
    NegotiationFinalized(Resulting),
    /// A party ended it.
    #[serde(rename = "charter.negotiation.terminated")]
    NegotiationTerminated(Termination),
    /// A member of a market says which DAO it is.
    #[serde(rename = "charter.dao.represented")]
    DaoRepresented(Representation),
    /// A member of that DAO stands for it.
    #[serde(rename = "charter.dao.vouched")]
    RepresentationVouched(Vouching),
    /// A party says on a market that an agreement is in force.
    #[serde(rename = "charter.agreed.confirmed")]
    AgreementConfirmed(Agreed),
    /// A party says on a market that an agreement is finished.
    #[serde(rename = "charter.agreed.concluded")]
    AgreementConcluded(AgreementNamed),
    /// A party of a finished agreement rates another one.
    #[serde(rename = "charter.member.rated")]
    MemberRated(Rating),
    /// The part of a member that is silent for too long is closed.
    #[serde(rename = "charter.part.closed")]
    PartClosed(MemberNamed),
    /// The agreement's date has come.
    #[serde(rename = "charter.agreement.expired")]
    AgreementExpired(Nothing),
    /// A party asks for the end of the agreement. With enough of them it has ended.
    #[serde(rename = "charter.agreement.end-asked")]
    EndAsked(Nothing),
    /// A member would give what it owns to another.
    #[serde(rename = "charter.transfer.proposed")]
    TransferProposed(Transfer),
    /// A party approves a transfer.
    #[serde(rename = "charter.transfer.approved")]
    TransferApproved(TransferNamed),
    /// The taker takes it.
    #[serde(rename = "charter.transfer.accepted")]
    TransferAccepted(TransferNamed),
    /// The giver or the taker calls it off.
    #[serde(rename = "charter.transfer.cancelled")]
    TransferCancelled(TransferNamed),
    /// A profit is divided among the parties.
    #[serde(rename = "charter.profit.distributed")]
    ProfitDistributed(Distribution),
    /// A member passes on what another channel's resource gives, or renews it.
    #[serde(rename = "charter.import.brought")]
    Imported(Import),
    /// A member takes its import out.
    #[serde(rename = "charter.import.dropped")]
    ImportDropped(ImportNamed),
    /// A member says what another version of the DAO carries on, replaces, or does without.
    #[serde(rename = "charter.resources.handed-over")]
    HandedOver(HandOver),
}

impl EventBody {
    /// The event's type: also the chaincode event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            EventBody::MemberRegistered { .. } => "charter.member.registered",
            EventBody::AgreementConstituted { .. } => "charter.agreement.constituted",
            EventBody::AgreementAccepted { .. } => "charter.agreement.accepted",
            EventBody::ResourcesOrdered { .. } => "charter.resources.ordered",
            EventBody::ResourcesAmended { .. } => "charter.resources.amended",
            EventBody::ResourcesRetired { .. } => "charter.resources.retired",
            EventBody::ReportSubmitted { .. } => "charter.report.submitted",
            EventBody::OfferPublished(_) => "charter.offer.published",
            EventBody::OfferAmended(_) => "charter.offer.amended",
            EventBody::OfferWithdrawn(_) => "charter.offer.withdrawn",
            EventBody::ChangeProposed(_) => "charter.change.proposed",
            EventBody::ChangeApproved(_) => "charter.change.approved",
            EventBody::ChangeRejected(_) => "charter.change.rejected",
            EventBody::ChangeWithdrawn(_) => "charter.change.withdrawn",
            EventBody::KeyPublished(_) => "charter.key.published",
            EventBody::NegotiationRequested(_) => "charter.negotiation.requested",
            EventBody::NegotiationOffered(_) => "charter.negotiation.offered",
            EventBody::NegotiationAccepted(_) => "charter.negotiation.accepted",
            EventBody::NegotiationAgreed(_) => "charter.negotiation.agreed",
            EventBody::NegotiationVerified(_) => "charter.negotiation.verified",
            EventBody::NegotiationFinalized(_) => "charter.negotiation.finalized",
            EventBody::NegotiationTerminated(_) => "charter.negotiation.terminated",
            EventBody::DaoRepresented(_) => "charter.dao.represented",
            EventBody::RepresentationVouched(_) => "charter.dao.vouched",
            EventBody::AgreementConfirmed(_) => "charter.agreed.confirmed",
            EventBody::AgreementConcluded(_) => "charter.agreed.concluded",
            EventBody::MemberRated(_) => "charter.member.rated",
            EventBody::PartClosed(_) => "charter.part.closed",
            EventBody::AgreementExpired(_) => "charter.agreement.expired",
            EventBody::EndAsked(_) => "charter.agreement.end-asked",
            EventBody::TransferProposed(_) => "charter.transfer.proposed",
            EventBody::TransferApproved(_) => "charter.transfer.approved",
            EventBody::TransferAccepted(_) => "charter.transfer.accepted",
            EventBody::TransferCancelled(_) => "charter.transfer.cancelled",
            EventBody::ProfitDistributed(_) => "charter.profit.distributed",
            EventBody::Imported(_) => "charter.import.brought",
            EventBody::ImportDropped(_) => "charter.import.dropped",
            EventBody::HandedOver(_) => "charter.resources.handed-over",
        }
    }

    /// The oldest schema version that has such an event.
    pub fn schema(&self) -> u32 {
        match self {
            EventBody::AgreementConstituted { agreement, .. } if agreement.clauses.is_some() => 2,
            EventBody::ResourcesOrdered { resources } | EventBody::ResourcesAmended { resources }
                if resources
                    .iter()
                    .any(|resource| resource.size.is_some() || resource.origin.is_some()) =>
            {
                2
            }
            EventBody::ReportSubmitted { heartbeat: Some(_), .. } => 2,
            EventBody::MemberRegistered { .. }
            | EventBody::AgreementConstituted { .. }
            | EventBody::AgreementAccepted { .. }
            | EventBody::ResourcesOrdered { .. }
            | EventBody::ResourcesAmended { .. }
            | EventBody::ResourcesRetired { .. }
            | EventBody::ReportSubmitted { .. } => 1,
            // Every other event came with this one.
            _ => 2,
        }
    }
}

/// The CloudEvents 1.0 document that a transaction carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent {
    /// Always `1.0`.
    pub specversion: String,
    /// The transaction id.
    pub id: TxId,
    /// `urn:charter:<channel>`.
    pub source: String,
    /// The channel's event schema version (an extension attribute).
    pub schemaversion: u32,
    /// The member that submitted the transaction (an extension attribute).
    pub member: MemberId,
    /// The transaction's timestamp.
    pub time: Timestamp,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// `type` and `data`.
    #[serde(flatten)]
    pub body: EventBody,
}

/// Why a document is not an event of this channel.
#[derive(Debug, Error)]
pub enum EventError {
    /// Written by a newer Charter: the channel has to wait for an upgrade.
    #[error("the event has schema version {found}, this Charter knows up to {SCHEMA_VERSION}: upgrade Charter")]
    Newer {
        /// The version that it names.
        found: u64,
    },
    /// Over [`MAX_EVENT_BYTES`].
    #[error("the event has {bytes} bytes; the limit is {MAX_EVENT_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not what its own schema version says.
    #[error("the event is malformed")]
    Malformed(#[source] serde_json::Error),
    /// An attribute contradicts the transaction that carries it.
    #[error("the event's {attribute} is not that of its transaction")]
    Contradicts {
        /// Which attribute.
        attribute: &'static str,
    },
}

impl CloudEvent {
    /// Makes the document of a transaction.
    pub fn new(channel: &Channel, tx_id: TxId, member: MemberId, time: Timestamp, body: EventBody) -> Self {
        Self {
            specversion: "1.0".into(),
            id: tx_id,
            source: source(channel),
            schemaversion: body.schema(),
            member,
            time,
            datacontenttype: "application/json".into(),
            body,
        }
    }

    /// Reads and checks a document against the transaction that carries it.
    pub fn parse(bytes: &[u8], channel: &Channel, tx_id: &TxId, at: Timestamp) -> Result<Self, EventError> {
        #[derive(Deserialize)]
        struct Probe {
            schemaversion: u64,
        }
        if bytes.len() > MAX_EVENT_BYTES {
            return Err(EventError::TooLarge { bytes: bytes.len() });
        }
        let probe: Probe = serde_json::from_slice(bytes).map_err(EventError::Malformed)?;
        if probe.schemaversion > u64::from(SCHEMA_VERSION) {
            return Err(EventError::Newer {
                found: probe.schemaversion,
            });
        }
        let event: CloudEvent = serde_json::from_slice(bytes).map_err(EventError::Malformed)?;
        for (fits, attribute) in [
            (event.specversion == "1.0", "specversion"),
            (event.id == *tx_id, "id"),
            (event.source == source(channel), "source"),
            (event.time == at, "time"),
            (event.schemaversion == event.body.schema(), "schemaversion"),
        ] {
            if !fits {
                return Err(EventError::Contradicts { attribute });
            }
        }
        Ok(event)
    }
}

fn source(channel: &Channel) -> String {
    format!("urn:charter:{channel}")
}
