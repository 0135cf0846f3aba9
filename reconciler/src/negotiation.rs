//! A member's part in a negotiation: what its Charter reads, checks and seals before the member signs anything.
//!
//! The market's chaincode sees digests only. That the terms behind them are those that a party reads, make sense, and make the agreement
//! that the provider names, is found out here, on each party's own machine, before its transaction is sent.

use std::collections::{BTreeMap, BTreeSet};

use chaincode::arguments::RecordPage;
use chaincode::records::MemberRecord;
use state::acts::keys::{KeyPublished, KeyRecord};
use state::acts::negotiations::{
    Acceptance, NegotiationRecord, NegotiationState, Request, Resulting, SealedRecord, Tabled, Termination, sealed_id,
};
use state::agreement::Agreement;
use state::canonical::{CanonicalError, Digest};
use state::ids::{MemberId, NegotiationId};
use state::sealed::Binding;
use state::terms::{Outcome, Salted, Terms, TermsError};
use thiserror::Error;

use crate::sealing::{self, KeyRing, SealError};
use crate::submission::{Page, Said, SubmissionError, Voice};

/// Something could not be done in a negotiation. Nothing was signed but what was said before it.
#[derive(Debug, Error)]
pub enum NegotiationError {
    /// The market could not be asked, or refused.
    #[error(transparent)]
    Submission(#[from] SubmissionError),
    /// Terms could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// There is no such negotiation.
    #[error("negotiation {0} does not exist on this market; charter negotiate list shows those that do")]
    Missing(NegotiationId),
    /// No terms are on the table.
    #[error("negotiation {0} has no terms yet; charter negotiate offer puts some on the table")]
    NoTerms(NegotiationId),
    /// There was no such round.
    #[error("negotiation {id} had {rounds} rounds, and none with the number {round}")]
    NoRound {
        /// The negotiation.
        id: NegotiationId,
        /// What was asked for.
        round: u32,
        /// How many there were.
        rounds: u32,
    },
    /// Somebody put other terms on the table meanwhile.
    #[error("negotiation {id} is in round {found}, not {round}: read its terms with charter negotiate terms {id} before you sign them")]
    Moved {
        /// The negotiation.
        id: NegotiationId,
        /// The round that was to be signed.
        round: u32,
        /// The one on the table.
        found: u32,
    },
    /// The market keeps no envelope of a round, or another one.
    #[error("the sealed terms of round {round} of negotiation {id} are not those that were put on the table")]
    Envelope {
        /// The negotiation.
        id: NegotiationId,
        /// The round.
        round: u32,
    },
    /// A party has published no key.
    #[error("{0} has published no key that terms could be sealed to: it runs charter negotiate key")]
    NoKey(MemberId),
    /// The terms make no sense.
    #[error("the terms are not valid")]
    Terms(#[from] TermsError),
    /// The terms name a party otherwise than the market knows it.
    #[error("the terms name {member} with {found}, and on this market it is registered {expected}")]
    Party {
        /// The party.
        member: MemberId,
        /// As the terms say.
        found: String,
        /// As the market says.
        expected: String,
    },
    /// The provider agreed to something else.
    #[error("these terms make the agreement {ours}, and the one that the provider agreed to is another: don't sign it")]
    OtherAgreement {
        /// The agreement's digest as this Charter computed it.
        ours: Digest,
    },
    /// There is no agreement yet.
    #[error("negotiation {id} is {state}: it makes an agreement when it is FINALIZED")]
    NotFinalized {
        /// The negotiation.
        id: NegotiationId,
        /// Where it stands.
        state: NegotiationState,
    },
    /// Something has no canonical form.
    #[error("the agreement can't be encoded")]
    Encode(#[from] CanonicalError),
}

/// Whether a member that has a key makes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// The one that it has published goes on.
    Keep,
    /// A new one takes its place.
    Renew,
}

/// Terms of a round, opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The negotiation.
    pub record: NegotiationRecord,
    /// The round.
    pub round: u32,
    /// Their digest on the market.
    pub digest: Digest,
    /// The terms with their salt.
    pub salted: Salted,
}

impl Opened {
    fn outcome(&self) -> Result<Outcome<'_>, TermsError> {
        self.salted.terms.outcome_between(&self.record.parties, &self.record.provider)
    }
}

/// A member at the market's table.
pub struct Table<'a> {
    /// Its voice on the market's channel.
    pub voice: Voice<'a>,
    /// Its private keys.
    pub keys: KeyRing,
}

impl Table<'_> {
    /// Publishes the member's key. One that is on the ledger and on this machine stays, unless it is to be renewed.
    pub async fn key(&self, wanted: KeyUse) -> Result<Said, NegotiationError> {
        let member = self.voice.member;
        let standing: Option<KeyRecord> = self.voice.find("key", member.as_str()).await?;
        if let Some(standing) = standing
            && wanted == KeyUse::Keep
            && self.keys.has(standing.key)
        {
            return Ok(Said::Already {
                what: format!("{member} has published the key {}", standing.key),
            });
        }
        let key = self.keys.make()?;
        let what = format!("published the key {key}");
        Ok(self.voice.act("publish_key", &KeyPublished { key }, what).await?)
    }

    /// Asks for a negotiation.
    pub async fn request(&self, asked: &Request) -> Result<Vec<Said>, NegotiationError> {
        let mut all = self.keyed().await?;
        let what = format!("requested negotiation {}", asked.id);
        all.push(self.voice.act("negotiate_request", asked, what).await?);
        Ok(all)
    }

    /// Seals terms to the parties and puts them on the table.
    pub async fn offer(&self, id: &NegotiationId, terms: Terms) -> Result<Vec<Said>, NegotiationError> {
        let record = self.record(id).await?;
        self.hold(terms.outcome_between(&record.parties, &record.provider)?.agreement)
            .await?;
        let mut all = self.keyed().await?;
        let keys = self.keys_of(&record.parties).await?;
        let round = record.round() + 1;
        let (salted, digest) = sealing::salted(terms)?;
        let place = Binding {
            channel: self.voice.channel,
            negotiation: id,
            round,
            by: self.voice.member,
            digest,
        };
        let envelope = sealing::seal(&salted, &place, &keys)?;
        let id = id.clone();
        let what = format!("offered round {round} of negotiation {id}, terms {digest}");
        let said = Tabled {
            id,
            round,
            digest,
            envelope,
        };
        all.push(self.voice.act("negotiate_offer", &said, what).await?);
        Ok(all)
    }

    /// Accepts the terms of a round that the member has read.
    pub async fn accept(&self, id: &NegotiationId, round: u32) -> Result<Said, NegotiationError> {
        let opened = self.on_the_table(id, round).await?;
        self.checked(&opened).await?;
        let digest = opened.digest;
        let what = format!("accepted round {round} of negotiation {id}, terms {digest}");
        let id = id.clone();
        Ok(self.voice.act("negotiate_accept", &Acceptance { id, round, digest }, what).await?)
    }

    /// Agrees, as the provider, to the terms of a round.
    pub async fn agree(&self, id: &NegotiationId, round: u32) -> Result<Said, NegotiationError> {
        let opened = self.on_the_table(id, round).await?;
        let said = self.checked(&opened).await?;
        let agreement = opened.salted.terms.agreement.digest()?;
        let what = format!("agreed to round {round} of negotiation {id}: it makes the agreement {agreement}");
        Ok(self.voice.act("negotiate_agree", &said, what).await?)
    }

    /// Finds that the terms make the agreement that the provider says, and confirms it.
    pub async fn verify(&self, id: &NegotiationId) -> Result<Said, NegotiationError> {
        let (said, agreement) = self.same(id).await?;
        let what = format!("verified that negotiation {id} makes the agreement {agreement}");
        Ok(self.voice.act("negotiate_verify", &said, what).await?)
    }

    /// Closes a negotiation, as the provider.
    pub async fn finalize(&self, id: &NegotiationId) -> Result<Said, NegotiationError> {
        let (said, agreement) = self.same(id).await?;
        let what = format!("finalized negotiation {id}: its parties accept the agreement {agreement} in their channel");
        Ok(self.voice.act("negotiate_finalize", &said, what).await?)
    }

    /// Ends a negotiation without an agreement.
    pub async fn terminate(&self, id: &NegotiationId, reason: &str) -> Result<Said, NegotiationError> {
        let said = Termination {
            id: id.clone(),
            reason: reason.to_owned(),
        };
        Ok(self
            .voice
            .act("negotiate_terminate", &said, format!("terminated negotiation {id}"))
            .await?)
    }

    /// One page of the market's negotiations.
    pub async fn page(&self, page: &RecordPage) -> Result<Page<NegotiationRecord>, NegotiationError> {
        Ok(self.voice.page("negotiations", page).await?)
    }

    /// A negotiation as it stands on the market.
    pub async fn record(&self, id: &NegotiationId) -> Result<NegotiationRecord, NegotiationError> {
        let found = self.voice.find("negotiation", id.as_str()).await?;
        found.ok_or_else(|| NegotiationError::Missing(id.clone()))
    }

    /// Opens the terms of a round; none named: the last.
    pub async fn open(&self, id: &NegotiationId, round: Option<u32>) -> Result<Opened, NegotiationError> {
        let record = self.record(id).await?;
        let rounds = record.round();
        if rounds == 0 {
            return Err(NegotiationError::NoTerms(id.clone()));
        }
        let round = round.unwrap_or(rounds);
        let index = (round as usize).wrapping_sub(1);
        let Some(kept) = record.rounds.get(index) else {
            let id = id.clone();
            return Err(NegotiationError::NoRound { id, round, rounds });
        };
        let member = self.voice.member;
        if !record.parties.contains(member) {
            return Err(SealError::NotAddressed(member.clone()).into());
        }
        let sealed: Option<SealedRecord> = self.voice.find("sealed", &sealed_id(id, round)).await?;
        let envelope = match sealed {
            Some(sealed) if sealed.envelope.digest()? == kept.envelope => sealed.envelope,
            _ => return Err(NegotiationError::Envelope { id: id.clone(), round }),
        };
        let place = Binding {
            channel: self.voice.channel,
            negotiation: id,
            round,
            by: &kept.offered.by,
            digest: kept.digest,
        };
        let salted = sealing::open(&envelope, &place, member, &self.keys)?;
        let digest = kept.digest;
        Ok(Opened {
            record,
            round,
            digest,
            salted,
        })
    }

    /// The terms of a finalized negotiation, whose agreement is the one that every party signed.
    pub async fn finalized(&self, id: &NegotiationId) -> Result<Terms, NegotiationError> {
        let record = self.record(id).await?;
        if record.state != NegotiationState::Finalized {
            let state = record.state;
            return Err(NegotiationError::NotFinalized { id: id.clone(), state });
        }
        self.same(id).await?;
        Ok(self.open(id, None).await?.salted.terms)
    }

    /// The member's key is published before it says anything, so that others can seal to it.
    async fn keyed(&self) -> Result<Vec<Said>, NegotiationError> {
        Ok(match self.key(KeyUse::Keep).await? {
            Said::Already { .. } => Vec::new(),
            said => vec![said],
        })
    }

    async fn keys_of(&self, parties: &BTreeSet<MemberId>) -> Result<BTreeMap<MemberId, state::sealed::PublicKey>, NegotiationError> {
        let mut keys = BTreeMap::new();
        for member in parties {
            let found: Option<KeyRecord> = self.voice.find("key", member.as_str()).await?;
            let found = found.ok_or_else(|| NegotiationError::NoKey(member.clone()))?;
            keys.insert(member.clone(), found.key);
        }
        Ok(keys)
    }

    async fn on_the_table(&self, id: &NegotiationId, round: u32) -> Result<Opened, NegotiationError> {
        let opened = self.open(id, None).await?;
        if opened.round != round {
            let (id, found) = (id.clone(), opened.round);
            return Err(NegotiationError::Moved { id, round, found });
        }
        Ok(opened)
    }

    /// Checks terms before they are signed, and gives what is signed.
    async fn checked(&self, opened: &Opened) -> Result<Resulting, NegotiationError> {
        self.hold(opened.outcome()?.agreement).await?;
        Ok(Resulting {
            id: opened.record.id.clone(),
            round: opened.round,
            digest: opened.digest,
            agreement: opened.salted.agreement_digest()?,
        })
    }

    /// Checks that the terms make the agreement that the provider agreed to; gives what is signed, and that agreement's digest.
    async fn same(&self, id: &NegotiationId) -> Result<(Resulting, Digest), NegotiationError> {
        let opened = self.open(id, None).await?;
        let said = self.checked(&opened).await?;
        let ours = opened.salted.terms.agreement.digest()?;
        match opened.record.agreement {
            Some(agreed) if agreed != said.agreement => Err(NegotiationError::OtherAgreement { ours }),
            // Before anybody agreed, the market says so itself.
            _ => Ok((said, ours)),
        }
    }

    /// Holds an agreement's parties to what the market knows of them.
    async fn hold(&self, agreement: &Agreement) -> Result<(), NegotiationError> {
        for party in &agreement.parties {
            let found: Option<MemberRecord> = self.voice.find("member", party.member.as_str()).await?;
            let expected = match &found {
                Some(found) if found.msp == party.msp && found.role == party.role => continue,
                Some(found) => format!("with {} as {}", found.msp, found.role),
                None => "not at all".into(),
            };
            return Err(NegotiationError::Party {
                member: party.member.clone(),
                found: format!("{} as {}", party.msp, party.role),
                expected,
            });
        }
        Ok(())
    }
}
