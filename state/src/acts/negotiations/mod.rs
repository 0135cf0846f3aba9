//! Negotiations: how members come to terms, in the states of the Dataspace Protocol, folded to N parties.
//!
//! One data service provider is the *provider*: it closes every step. All other parties are *consumers*: a step that is theirs is done
//! when each of them has done it. A market keeps parties, states and digests; terms stand there only sealed to the parties. What a member
//! signs is its transaction, and the digest is in its argument: so each party signs the same digest.

mod moves;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::canonical::Digest;
use crate::ids::{MemberId, NegotiationId, OfferId};
use crate::records::Submitted;
use crate::sealed::Envelope;

pub(super) use moves::{accept, agree, finalize, offer, request, terminate, verify};
pub use refusal::NegotiationRefusal;

/// The most parties of a negotiation: as many as an agreement has.
pub const MAX_PARTIES: usize = crate::agreement::MAX_PARTIES;
/// The most rounds of terms.
pub const MAX_ROUNDS: u32 = 64;
/// The longest reason for ending one, in characters.
pub const MAX_REASON: usize = 400;

/// Where a negotiation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum NegotiationState {
    /// Somebody asked; there are no terms yet.
    Requested,
    /// Terms are on the table, and some consumer has not accepted them.
    Offered,
    /// Every consumer has accepted the terms.
    Accepted,
    /// The provider has agreed to them, and said which agreement they make.
    Agreed,
    /// Every consumer has found that they make this agreement.
    Verified,
    /// The provider has closed it: there is an agreement.
    Finalized,
    /// Somebody has ended it.
    Terminated,
}

impl fmt::Display for NegotiationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NegotiationState::Requested => "REQUESTED",
            NegotiationState::Offered => "OFFERED",
            NegotiationState::Accepted => "ACCEPTED",
            NegotiationState::Agreed => "AGREED",
            NegotiationState::Verified => "VERIFIED",
            NegotiationState::Finalized => "FINALIZED",
            NegotiationState::Terminated => "TERMINATED",
        })
    }
}

/// What a party does in a negotiation that was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Move {
    /// Puts terms on the table: the first, or others in their place.
    Offer,
    /// Accepts the terms on the table.
    Accept,
    /// Agrees to what all consumers accepted.
    Agree,
    /// Confirms that the terms make the agreement that the provider says.
    Verify,
    /// Closes it.
    Finalize,
    /// Ends it without an agreement.
    Terminate,
}

/// Who of the parties makes a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The provider.
    Provider,
    /// Each consumer.
    Consumers,
    /// Any party.
    Any,
}

impl Move {
    /// As it is written on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Move::Offer => "offer",
            Move::Accept => "accept",
            Move::Agree => "agree",
            Move::Verify => "verify",
            Move::Finalize => "finalize",
            Move::Terminate => "terminate",
        }
    }

    /// Whose it is.
    pub fn side(self) -> Side {
        match self {
            Move::Offer | Move::Terminate => Side::Any,
            Move::Accept | Move::Verify => Side::Consumers,
            Move::Agree | Move::Finalize => Side::Provider,
        }
    }
}

impl NegotiationState {
    /// Every state.
    pub const ALL: [NegotiationState; 7] = [
        Self::Requested,
        Self::Offered,
        Self::Accepted,
        Self::Agreed,
        Self::Verified,
        Self::Finalized,
        Self::Terminated,
    ];

    /// The moves that it allows: the whole table.
    pub fn allows(self) -> &'static [Move] {
        match self {
            Self::Requested => &[Move::Offer, Move::Terminate],
            Self::Offered => &[Move::Offer, Move::Accept, Move::Terminate],
            Self::Accepted => &[Move::Offer, Move::Agree, Move::Terminate],
            Self::Agreed => &[Move::Verify, Move::Terminate],
            Self::Verified => &[Move::Finalize, Move::Terminate],
            Self::Finalized | Self::Terminated => &[],
        }
    }
}

/// Asks for a negotiation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Its name.
    pub id: NegotiationId,
    /// The data service provider that closes its steps.
    pub provider: MemberId,
    /// All parties, provider and asker among them.
    pub parties: BTreeSet<MemberId>,
    /// The offer on this market that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<OfferId>,
}

/// Puts terms on the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tabled {
    /// The negotiation.
    pub id: NegotiationId,
    /// The new round's number: one more than the last.
    pub round: u32,
    /// The salted digest of the terms.
    pub digest: Digest,
    /// The terms, sealed to the parties.
    pub envelope: Envelope,
}

/// Accepts the terms of a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The negotiation.
    pub id: NegotiationId,
    /// The round.
    pub round: u32,
    /// The digest of its terms.
    pub digest: Digest,
}

/// Says which agreement the terms make: to agree, to verify and to finalize.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resulting {
    /// The negotiation.
    pub id: NegotiationId,
    /// The round.
    pub round: u32,
    /// The digest of its terms.
    pub digest: Digest,
    /// The salted digest of the agreement that they make.
    pub agreement: Digest,
}

/// Ends a negotiation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Termination {
    /// The negotiation.
    pub id: NegotiationId,
    /// Why, for the other parties and for everybody on the market.
    pub reason: String,
}

/// Terms that were on the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// The salted digest of the terms.
    pub digest: Digest,
    /// The digest of their envelope, which is a record of its own.
    pub envelope: Digest,
    /// The transaction that put them there.
    pub offered: Submitted,
}

/// How a negotiation was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminated {
    /// Why.
    pub reason: String,
    /// The transaction that ended it.
    pub submitted: Submitted,
}

/// A negotiation, as everybody on the market sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NegotiationRecord {
    /// Its name.
    pub id: NegotiationId,
    /// The data service provider that closes its steps.
    pub provider: MemberId,
    /// All parties.
    pub parties: BTreeSet<MemberId>,
    /// The offer that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<OfferId>,
    /// Where it stands.
    pub state: NegotiationState,
    /// The transaction that asked for it.
    pub requested: Submitted,
    /// The terms so far, the first round first.
    pub rounds: Vec<Round>,
    /// Which consumers have accepted those of the last round.
    pub accepted: BTreeMap<MemberId, Submitted>,
    /// The salted digest of the agreement that they make, as the provider says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Digest>,
    /// The transaction by which the provider agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Submitted>,
    /// Which consumers have verified it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub verified: BTreeMap<MemberId, Submitted>,
    /// The transaction that closed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalized: Option<Submitted>,
    /// How it was ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

impl NegotiationRecord {
    /// The number of the last round, from 1; 0 before the first.
    pub fn round(&self) -> u32 {
        u32::try_from(self.rounds.len()).unwrap_or(u32::MAX)
    }

    /// The parties but for the provider.
    pub fn consumers(&self) -> impl Iterator<Item = &MemberId> {
        self.parties.iter().filter(|member| **member != self.provider)
    }

    /// What a member can do next; nothing for one that is no party.
    pub fn next(&self, member: &MemberId) -> Vec<Move> {
        let possible = |step: &&Move| moves::may(self, member, **step).is_ok();
        self.state.allows().iter().filter(possible).copied().collect()
    }
}

/// The terms of one round, sealed to the parties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedRecord {
    /// The negotiation.
    pub id: NegotiationId,
    /// The round, from 1.
    pub round: u32,
    /// Who put them on the table.
    pub by: MemberId,
    /// The salted digest of the terms.
    pub digest: Digest,
    /// The terms, sealed.
    pub envelope: Envelope,
}

/// The name of a round's sealed terms among the records. A name ends in its round, so two are never the same.
pub fn sealed_id(id: &NegotiationId, round: u32) -> String {
    format!("{id}-{round}")
}
