//! The rules of each move: who may make it when, and what it does.

use std::collections::BTreeMap;

use super::{
    Acceptance, MAX_PARTIES, MAX_REASON, MAX_ROUNDS, Move, NegotiationRecord, NegotiationRefusal, NegotiationState, Request, Resulting,
    Round, SealedRecord, Side, Tabled, Terminated, Termination,
};
use crate::acts::keys::KeyRecord;
use crate::acts::offers::OfferRecord;
use crate::acts::{Source, Taken};
use crate::agreement::Role;
use crate::canonical::Digest;
use crate::ids::{MemberId, NegotiationId};
use crate::records::{self, Books, Record as _};
use crate::rules::CheckError;
use crate::sealed::{TAG, WRAPPED};

type Decided<T, B> = Result<T, CheckError<<B as crate::rules::View>::Error>>;

/// Asks for a negotiation.
pub(in crate::acts) fn request<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, asked: &Request) -> Decided<Taken, B> {
    let id = || asked.id.clone();
    let by = source.by();
    if !(2..=MAX_PARTIES).contains(&asked.parties.len()) {
        let found = asked.parties.len();
        return Err(refused(NegotiationRefusal::Parties { id: id(), found }));
    }
    if !asked.parties.contains(by) {
        return Err(refused(NegotiationRefusal::Outsider { id: id(), by: by.clone() }));
    }
    let provider = || NegotiationRefusal::Provider {
        id: id(),
        provider: asked.provider.clone(),
    };
    if !asked.parties.contains(&asked.provider) {
        return Err(refused(provider()));
    }
    if standing(books, &asked.id)?.is_some() {
        return Err(refused(NegotiationRefusal::Exists(id())));
    }
    for member in &asked.parties {
        let Some(found) = books.member(member).map_err(CheckError::View)? else {
            let member = member.clone();
            return Err(refused(NegotiationRefusal::Unregistered { id: id(), member }));
        };
        if *member == asked.provider && found.role != Role::DataServiceProvider {
            return Err(refused(provider()));
        }
    }
    if let Some(offer) = &asked.about {
        let found: Option<OfferRecord> = records::get(books, offer.as_str()).map_err(CheckError::View)?;
        if !found.is_some_and(|found| found.withdrawn.is_none() && asked.parties.contains(&found.provider)) {
            let offer = offer.clone();
            return Err(refused(NegotiationRefusal::About { id: id(), offer }));
        }
    }
    Ok(Taken::record(NegotiationRecord {
        id: id(),
        provider: asked.provider.clone(),
        parties: asked.parties.clone(),
        about: asked.about.clone(),
        state: NegotiationState::Requested,
        requested: source.submitted.clone(),
        rounds: Vec::new(),
        accepted: BTreeMap::new(),
        agreement: None,
        agreed: None,
        verified: BTreeMap::new(),
        finalized: None,
        terminated: None,
    }))
}

/// Puts terms on the table. A consumer accepts by that what it offers itself.
pub(in crate::acts) fn offer<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, said: &Tabled) -> Decided<Taken, B> {
    let mut record = begin(books, source, &said.id, Move::Offer)?;
    if record.round() >= MAX_ROUNDS {
        return Err(refused(NegotiationRefusal::Rounds(said.id.clone())));
    }
    let expected = record.round() + 1;
    if said.round != expected {
        return Err(refused(NegotiationRefusal::Round {
            id: said.id.clone(),
            found: said.round,
            expected,
        }));
    }
    addressed(books, &record, said)?;
    let by = source.by();
    record.rounds.push(Round {
        digest: said.digest,
        envelope: said
            .envelope
            .digest()
            .map_err(|_| refused(NegotiationRefusal::Envelope(said.id.clone())))?,
        offered: source.submitted.clone(),
    });
    record.accepted.clear();
    if *by != record.provider {
        record.accepted.insert(by.clone(), source.submitted.clone());
    }
    record.state = after_acceptance(&record);
    let sealed = SealedRecord {
        id: said.id.clone(),
        round: said.round,
        by: by.clone(),
        digest: said.digest,
        envelope: said.envelope.clone(),
    };
    Ok(Taken {
        records: vec![record.any(), sealed.any()],
        changes: Vec::new(),
    })
}

/// Accepts the terms on the table.
pub(in crate::acts) fn accept<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, said: &Acceptance) -> Decided<Taken, B> {
    let mut record = begin(books, source, &said.id, Move::Accept)?;
    on_the_table(&record, said.round, said.digest).map_err(refused)?;
    record.accepted.insert(source.by().clone(), source.submitted.clone());
    record.state = after_acceptance(&record);
    Ok(Taken::record(record))
}

/// Agrees to what every consumer accepted, and says which agreement it makes.
pub(in crate::acts) fn agree<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, said: &Resulting) -> Decided<Taken, B> {
    let mut record = begin(books, source, &said.id, Move::Agree)?;
    on_the_table(&record, said.round, said.digest).map_err(refused)?;
    record.agreement = Some(said.agreement);
    record.agreed = Some(source.submitted.clone());
    record.state = NegotiationState::Agreed;
    Ok(Taken::record(record))
}

/// Confirms that the terms make the agreement.
pub(in crate::acts) fn verify<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, said: &Resulting) -> Decided<Taken, B> {
    let mut record = begin(books, source, &said.id, Move::Verify)?;
    resulting(&record, said).map_err(refused)?;
    record.verified.insert(source.by().clone(), source.submitted.clone());
    if record.consumers().all(|member| record.verified.contains_key(member)) {
        record.state = NegotiationState::Verified;
    }
    Ok(Taken::record(record))
}

/// Closes it.
pub(in crate::acts) fn finalize<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, said: &Resulting) -> Decided<Taken, B> {
    let mut record = begin(books, source, &said.id, Move::Finalize)?;
    resulting(&record, said).map_err(refused)?;
    record.finalized = Some(source.submitted.clone());
    record.state = NegotiationState::Finalized;
    Ok(Taken::record(record))
}

/// Ends it without an agreement.
pub(in crate::acts) fn terminate<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, said: &Termination) -> Decided<Taken, B> {
    let mut record = begin(books, source, &said.id, Move::Terminate)?;
    let found = said.reason.chars().count();
    if !(1..=MAX_REASON).contains(&found) {
        let id = said.id.clone();
        return Err(refused(NegotiationRefusal::Reason { id, found }));
    }
    record.terminated = Some(Terminated {
        reason: said.reason.clone(),
        submitted: source.submitted.clone(),
    });
    record.state = NegotiationState::Terminated;
    Ok(Taken::record(record))
}

/// Whether a member may make a move now, whatever it says with it.
pub(super) fn may(record: &NegotiationRecord, by: &MemberId, step: Move) -> Result<(), NegotiationRefusal> {
    let (id, asked) = (|| record.id.clone(), step.word());
    if !record.parties.contains(by) {
        return Err(NegotiationRefusal::Outsider { id: id(), by: by.clone() });
    }
    if !record.state.allows().contains(&step) {
        let state = record.state;
        return Err(NegotiationRefusal::State { id: id(), state, asked });
    }
    let provides = *by == record.provider;
    match step.side() {
        Side::Provider if !provides => {
            return Err(NegotiationRefusal::NotProvider {
                id: id(),
                asked,
                provider: record.provider.clone(),
                by: by.clone(),
            });
        }
        Side::Consumers if provides => {
            let by = by.clone();
            return Err(NegotiationRefusal::NotConsumer { id: id(), asked, by });
        }
        Side::Provider | Side::Consumers | Side::Any => {}
    }
    let done = match step {
        Move::Accept => record.accepted.contains_key(by),
        Move::Verify => record.verified.contains_key(by),
        Move::Offer | Move::Agree | Move::Finalize | Move::Terminate => false,
    };
    if done {
        return Err(NegotiationRefusal::Already {
            id: id(),
            asked,
            by: by.clone(),
            round: record.round(),
        });
    }
    Ok(())
}

fn refused<E>(refusal: NegotiationRefusal) -> CheckError<E> {
    CheckError::Refused(refusal.into())
}

fn standing<B: Books + ?Sized>(books: &mut B, id: &NegotiationId) -> Decided<Option<NegotiationRecord>, B> {
    records::get(books, id.as_str()).map_err(CheckError::View)
}

fn begin<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, id: &NegotiationId, step: Move) -> Decided<NegotiationRecord, B> {
    let record = standing(books, id)?.ok_or_else(|| refused(NegotiationRefusal::Missing(id.clone())))?;
    may(&record, source.by(), step).map_err(refused)?;
    Ok(record)
}

fn after_acceptance(record: &NegotiationRecord) -> NegotiationState {
    if record.consumers().all(|member| record.accepted.contains_key(member)) {
        NegotiationState::Accepted
    } else {
        NegotiationState::Offered
    }
}

/// Holds a signature to the terms on the table: by their number, so that nobody signs terms that came in between, and their digest.
fn on_the_table(record: &NegotiationRecord, round: u32, digest: Digest) -> Result<(), NegotiationRefusal> {
    if round != record.round() {
        return Err(NegotiationRefusal::Round {
            id: record.id.clone(),
            found: round,
            expected: record.round(),
        });
    }
    if record.rounds.last().is_none_or(|last| last.digest != digest) {
        return Err(NegotiationRefusal::OtherTerms(record.id.clone()));
    }
    Ok(())
}

fn resulting(record: &NegotiationRecord, said: &Resulting) -> Result<(), NegotiationRefusal> {
    on_the_table(record, said.round, said.digest)?;
    if record.agreement != Some(said.agreement) {
        return Err(NegotiationRefusal::OtherAgreement(record.id.clone()));
    }
    Ok(())
}

/// Holds an envelope to its addressees: every party, nobody else, each with the key that it publishes now.
fn addressed<B: Books + ?Sized>(books: &mut B, record: &NegotiationRecord, said: &Tabled) -> Decided<(), B> {
    let (id, envelope) = (|| said.id.clone(), &said.envelope);
    if !envelope.to.keys().eq(record.parties.iter()) {
        return Err(refused(NegotiationRefusal::Addressees(id())));
    }
    let keys_fit = envelope.to.values().all(|wrapped| wrapped.sealed.as_bytes().len() == WRAPPED);
    if !keys_fit || envelope.sealed.as_bytes().len() <= TAG {
        return Err(refused(NegotiationRefusal::Envelope(id())));
    }
    for (member, wrapped) in &envelope.to {
        let found: Option<KeyRecord> = records::get(books, member.as_str()).map_err(CheckError::View)?;
        let member = || member.clone();
        match found {
            None => {
                return Err(refused(NegotiationRefusal::NoKey {
                    id: id(),
                    member: member(),
                }));
            }
            Some(found) if found.key != wrapped.key => {
                return Err(refused(NegotiationRefusal::OldKey {
                    id: id(),
                    member: member(),
                }));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
