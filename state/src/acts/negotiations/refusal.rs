//! Why a move of a negotiation is refused.

use thiserror::Error;

use super::{MAX_PARTIES, MAX_REASON, MAX_ROUNDS, Move, NegotiationState};
use crate::acts::{ActRefusal, Fault};
use crate::ids::{MemberId, NegotiationId, OfferId};
use crate::rules::Refusal;

/// Why a move of a negotiation is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NegotiationRefusal {
    /// The name is taken.
    #[error("negotiation {0} exists already: choose another name")]
    Exists(NegotiationId),
    /// There is no such negotiation.
    #[error("negotiation {0} does not exist on this market")]
    Missing(NegotiationId),
    /// Too few or too many parties.
    #[error("negotiation {id}: parties: there have to be 2 to {MAX_PARTIES}, these are {found}")]
    Parties {
        /// The negotiation.
        id: NegotiationId,
        /// How many there are.
        found: usize,
    },
    /// A party is not on the market.
    #[error("negotiation {id}: {member} is not registered on this market")]
    Unregistered {
        /// The negotiation.
        id: NegotiationId,
        /// Who.
        member: MemberId,
    },
    /// The provider owns no data, or is no party.
    #[error("negotiation {id}: its provider has to be a data service provider among the parties, and {provider} is none")]
    Provider {
        /// The negotiation.
        id: NegotiationId,
        /// Who is named.
        provider: MemberId,
    },
    /// The offer that it is about.
    #[error("negotiation {id} is about offer {offer}, which no party of it offers on this market")]
    About {
        /// The negotiation.
        id: NegotiationId,
        /// The offer.
        offer: OfferId,
    },
    /// Somebody who is no party.
    #[error("{by} is no party of negotiation {id}")]
    Outsider {
        /// The negotiation.
        id: NegotiationId,
        /// Who.
        by: MemberId,
    },
    /// The table has no such transition.
    #[error("negotiation {id} is {state}: {asked} is not possible now; {}", possible(*.state))]
    State {
        /// The negotiation.
        id: NegotiationId,
        /// Where it stands.
        state: NegotiationState,
        /// What was asked.
        asked: &'static str,
    },
    /// A step of the provider's.
    #[error("negotiation {id}: to {asked} is its provider's, {provider}, not {by}'s")]
    NotProvider {
        /// The negotiation.
        id: NegotiationId,
        /// What was asked.
        asked: &'static str,
        /// The provider.
        provider: MemberId,
        /// Who asks.
        by: MemberId,
    },
    /// A step of the consumers'.
    #[error("negotiation {id}: to {asked} is its consumers', and {by} is its provider")]
    NotConsumer {
        /// The negotiation.
        id: NegotiationId,
        /// What was asked.
        asked: &'static str,
        /// Who asks.
        by: MemberId,
    },
    /// It was done already.
    #[error("negotiation {id}: {by} has done this already ({asked}) in round {round}")]
    Already {
        /// The negotiation.
        id: NegotiationId,
        /// What was asked.
        asked: &'static str,
        /// Who asks.
        by: MemberId,
        /// The round.
        round: u32,
    },
    /// Another round than the one on the table.
    #[error("negotiation {id}: round {found} is not the one that counts, which is {expected}: look at what is on the table now")]
    Round {
        /// The negotiation.
        id: NegotiationId,
        /// What it says.
        found: u32,
        /// What it had to say.
        expected: u32,
    },
    /// No further round.
    #[error("negotiation {0} had {MAX_ROUNDS} rounds, which is the limit: accept the terms on the table, or terminate it")]
    Rounds(NegotiationId),
    /// The digest of other terms.
    #[error("negotiation {0}: the digest is not that of the terms on the table")]
    OtherTerms(NegotiationId),
    /// The digest of another agreement.
    #[error(
        "negotiation {0}: the agreement is not the one that the provider agreed to: its terms make another one, or were read otherwise"
    )]
    OtherAgreement(NegotiationId),
    /// The envelope is not to exactly the parties.
    #[error("negotiation {0}: its terms have to be sealed to every party and to nobody else")]
    Addressees(NegotiationId),
    /// A party has no key.
    #[error("negotiation {id}: {member} has published no key that terms could be sealed to: it has to, first")]
    NoKey {
        /// The negotiation.
        id: NegotiationId,
        /// Who.
        member: MemberId,
    },
    /// A party has another key.
    #[error("negotiation {id}: the terms are sealed to a key that {member} has replaced: seal them again")]
    OldKey {
        /// The negotiation.
        id: NegotiationId,
        /// Who.
        member: MemberId,
    },
    /// An envelope of an impossible size.
    #[error("negotiation {0}: the envelope holds no terms, or no key for one of its addressees")]
    Envelope(NegotiationId),
    /// The reason is empty or too long.
    #[error("negotiation {id}: reason has to have 1 to {MAX_REASON} characters, this one has {found}")]
    Reason {
        /// The negotiation.
        id: NegotiationId,
        /// How many there are.
        found: usize,
    },
}

fn possible(state: NegotiationState) -> String {
    match state.allows() {
        [] => "it has ended".into(),
        moves => format!(
            "possible: {}",
            moves.iter().map(|step| Move::word(*step)).collect::<Vec<_>>().join(", ")
        ),
    }
}

impl NegotiationRefusal {
    pub(in crate::acts) fn fault(&self) -> Fault {
        match self {
            NegotiationRefusal::Missing(_) => Fault::Missing,
            NegotiationRefusal::Outsider { .. } | NegotiationRefusal::NotProvider { .. } | NegotiationRefusal::NotConsumer { .. } => {
                Fault::Forbidden
            }
            NegotiationRefusal::Parties { .. }
            | NegotiationRefusal::Provider { .. }
            | NegotiationRefusal::Addressees(_)
            | NegotiationRefusal::Envelope(_)
            | NegotiationRefusal::Reason { .. } => Fault::Bad,
            NegotiationRefusal::Exists(_)
            | NegotiationRefusal::Unregistered { .. }
            | NegotiationRefusal::About { .. }
            | NegotiationRefusal::State { .. }
            | NegotiationRefusal::Already { .. }
            | NegotiationRefusal::Round { .. }
            | NegotiationRefusal::Rounds(_)
            | NegotiationRefusal::OtherTerms(_)
            | NegotiationRefusal::OtherAgreement(_)
            | NegotiationRefusal::NoKey { .. }
            | NegotiationRefusal::OldKey { .. } => Fault::Conflict,
        }
    }

    pub(in crate::acts) fn reason(&self) -> &'static str {
        match self {
            NegotiationRefusal::Exists(_) => "a negotiation of this name exists already",
            NegotiationRefusal::Missing(_) => "the negotiation does not exist",
            NegotiationRefusal::Parties { .. } => "the negotiation has too few or too many parties",
            NegotiationRefusal::Unregistered { .. } => "a party of the negotiation is not registered",
            NegotiationRefusal::Provider { .. } => "the negotiation's provider is no data service provider among its parties",
            NegotiationRefusal::About { .. } => "the offer that the negotiation is about is none of its parties'",
            NegotiationRefusal::Outsider { .. } => "the member is no party of the negotiation",
            NegotiationRefusal::State { .. } => "the negotiation's state does not allow this",
            NegotiationRefusal::NotProvider { .. } => "this step is the provider's",
            NegotiationRefusal::NotConsumer { .. } => "this step is the consumers'",
            NegotiationRefusal::Already { .. } => "the member has done this already",
            NegotiationRefusal::Round { .. } => "the round is not the one that counts",
            NegotiationRefusal::Rounds(_) => "the negotiation had too many rounds",
            NegotiationRefusal::OtherTerms(_) => "the digest is not that of the terms on the table",
            NegotiationRefusal::OtherAgreement(_) => "the agreement is not the one that the provider agreed to",
            NegotiationRefusal::Addressees(_) => "the terms are not sealed to exactly the parties",
            NegotiationRefusal::NoKey { .. } => "a party has published no key",
            NegotiationRefusal::OldKey { .. } => "the terms are sealed to a key that was replaced",
            NegotiationRefusal::Envelope(_) => "the envelope holds no terms or no key",
            NegotiationRefusal::Reason { .. } => "the reason is empty or too long",
        }
    }
}

impl From<NegotiationRefusal> for Refusal {
    fn from(refusal: NegotiationRefusal) -> Self {
        ActRefusal::from(refusal).into()
    }
}
