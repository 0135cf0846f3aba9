//! What members say on a channel beside ordering: each act is one event, and one rule that decides what it does.
//!
//! A rule runs over [`Books`], so it is the same code in the chaincode on the ledger, where a follower runs a transaction again,
//! and where a follower takes the event in. It decides everything and writes nothing: what it gives is [`Taken`].

pub mod accounts;
pub mod agreed;
pub mod approvals;
pub mod distributions;
pub mod handovers;
pub mod imports;
pub mod keys;
pub mod life;
pub mod negotiations;
pub mod offers;
pub mod ratings;
pub mod transfers;

use thiserror::Error;

use crate::event::EventBody;
use crate::ids::{Channel, MemberId, ResourceName};
use crate::records::{AnyRecord, Books, Record, Submitted};
use crate::resource::Resource;
use crate::rules::CheckError;

/// The transaction that an act stands in.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// Its channel.
    pub channel: &'a Channel,
    /// Its id, time and member.
    pub submitted: Submitted,
}

impl Source<'_> {
    /// The member that submitted it.
    pub fn by(&self) -> &MemberId {
        &self.submitted.by
    }
}

/// What an act does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Records that it makes or changes, whole.
    pub records: Vec<AnyRecord>,
    /// Changes of resources that it puts into force, in order.
    pub changes: Vec<Effect>,
}

impl Taken {
    /// An act that changes one record.
    pub fn record(record: impl Record) -> Self {
        Self {
            records: vec![record.any()],
            changes: Vec::new(),
        }
    }
}

/// A change of resources that an act puts into force. The rules of ordering were asked already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// New resources, for the member that ordered them.
    Order(MemberId, Vec<Resource>),
    /// Changed resources, whole.
    Amend(MemberId, Vec<Resource>),
    /// Resources that are no longer wanted.
    Retire(MemberId, Vec<ResourceName>),
    /// Resources that are no longer wanted, and that are kept where they are, whatever their orders say.
    Release(MemberId, Vec<ResourceName>),
    /// Resources that belong to this member from now on.
    Transfer(MemberId, Vec<ResourceName>),
    /// A newcomer in a party's place.
    Succeed(Box<transfers::Succession>),
}

/// What kind of mistake a refusal is, in the ledger's words: 400, 403, 404 and 409.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request makes no sense.
    Bad,
    /// The member may not.
    Forbidden,
    /// It speaks of something that is not there.
    Missing,
    /// It doesn't go with how things stand.
    Conflict,
}

/// Why an act is refused. Nothing of it is taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ActRefusal {
    /// An offer.
    #[error(transparent)]
    Offer(#[from] offers::OfferRefusal),
    /// A change that has to be approved.
    #[error(transparent)]
    Approval(#[from] approvals::ApprovalRefusal),
    /// A key that is sealed to.
    #[error(transparent)]
    Key(#[from] keys::KeyRefusal),
    /// A negotiation.
    #[error(transparent)]
    Negotiation(#[from] negotiations::NegotiationRefusal),
    /// An account.
    #[error(transparent)]
    Account(#[from] accounts::AccountRefusal),
    /// What is said of an agreement.
    #[error(transparent)]
    Agreed(#[from] agreed::AgreedRefusal),
    /// A rating.
    #[error(transparent)]
    Rating(#[from] ratings::RatingRefusal),
    /// The end of a part, or of the agreement.
    #[error(transparent)]
    Life(#[from] life::LifeRefusal),
    /// A transfer of rights.
    #[error(transparent)]
    Transfer(#[from] transfers::TransferRefusal),
    /// A distribution of profit.
    #[error(transparent)]
    Distribution(#[from] distributions::DistributionRefusal),
    /// An import.
    #[error(transparent)]
    Import(#[from] imports::ImportRefusal),
    /// A hand-over.
    #[error(transparent)]
    HandOver(#[from] handovers::HandOverRefusal),
    /// The event is none of these.
    #[error("the event is not an act that this Charter knows")]
    Unknown,
}

impl ActRefusal {
    /// What kind of mistake it is.
    pub fn fault(&self) -> Fault {
        match self {
            ActRefusal::Offer(refusal) => refusal.fault(),
            ActRefusal::Approval(refusal) => refusal.fault(),
            ActRefusal::Key(refusal) => refusal.fault(),
            ActRefusal::Negotiation(refusal) => refusal.fault(),
            ActRefusal::Account(refusal) => refusal.fault(),
            ActRefusal::Agreed(refusal) => refusal.fault(),
            ActRefusal::Rating(refusal) => refusal.fault(),
            ActRefusal::Life(refusal) => refusal.fault(),
            ActRefusal::Transfer(refusal) => refusal.fault(),
            ActRefusal::Distribution(refusal) => refusal.fault(),
            ActRefusal::Import(refusal) => refusal.fault(),
            ActRefusal::HandOver(refusal) => refusal.fault(),
            ActRefusal::Unknown => Fault::Bad,
        }
    }

    /// The refusal in fixed words, which are part of commit ids and never change.
    pub fn reason(&self) -> &'static str {
        match self {
            ActRefusal::Offer(refusal) => refusal.reason(),
            ActRefusal::Approval(refusal) => refusal.reason(),
            ActRefusal::Key(refusal) => refusal.reason(),
            ActRefusal::Negotiation(refusal) => refusal.reason(),
            ActRefusal::Account(refusal) => refusal.reason(),
            ActRefusal::Agreed(refusal) => refusal.reason(),
            ActRefusal::Rating(refusal) => refusal.reason(),
            ActRefusal::Life(refusal) => refusal.reason(),
            ActRefusal::Transfer(refusal) => refusal.reason(),
            ActRefusal::Distribution(refusal) => refusal.reason(),
            ActRefusal::Import(refusal) => refusal.reason(),
            ActRefusal::HandOver(refusal) => refusal.reason(),
            ActRefusal::Unknown => "the event is not an act",
        }
    }
}

/// Decides what an act does.
pub fn take<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, body: &EventBody) -> Result<Taken, CheckError<B::Error>> {
    match body {
        EventBody::OfferPublished(offer) => offers::publish(books, source, offer),
        EventBody::OfferAmended(offer) => offers::amend(books, source, offer),
        EventBody::OfferWithdrawn(named) => offers::withdraw(books, source, named),
        EventBody::ChangeProposed(wanted) => approvals::propose(books, source, wanted),
        EventBody::ChangeApproved(named) => approvals::approve(books, source, named),
        EventBody::ChangeRejected(named) => approvals::reject(books, source, named),
        EventBody::ChangeWithdrawn(named) => approvals::withdraw(books, source, named),
        EventBody::KeyPublished(said) => keys::publish(books, source, said),
        EventBody::NegotiationRequested(said) => negotiations::request(books, source, said),
        EventBody::NegotiationOffered(said) => negotiations::offer(books, source, said),
        EventBody::NegotiationAccepted(said) => negotiations::accept(books, source, said),
        EventBody::NegotiationAgreed(said) => negotiations::agree(books, source, said),
        EventBody::NegotiationVerified(said) => negotiations::verify(books, source, said),
        EventBody::NegotiationFinalized(said) => negotiations::finalize(books, source, said),
        EventBody::NegotiationTerminated(said) => negotiations::terminate(books, source, said),
        EventBody::DaoRepresented(representation) => accounts::represent(books, source, representation),
        EventBody::RepresentationVouched(vouching) => accounts::vouch(books, source, vouching),
        EventBody::AgreementConfirmed(agreed) => agreed::confirm(books, source, agreed),
        EventBody::AgreementConcluded(named) => agreed::conclude(books, source, named),
        EventBody::MemberRated(rating) => ratings::rate(books, source, rating),
        EventBody::PartClosed(named) => life::close(books, source, named),
        EventBody::AgreementExpired(_) => life::expire(books, source),
        EventBody::EndAsked(_) => life::end(books, source),
        EventBody::TransferProposed(transfer) => transfers::propose(books, source, transfer),
        EventBody::TransferApproved(named) => transfers::approve(books, source, named),
        EventBody::TransferAccepted(named) => transfers::accept(books, source, named),
        EventBody::TransferCancelled(named) => transfers::cancel(books, source, named),
        EventBody::ProfitDistributed(distribution) => distributions::distribute(books, source, distribution),
        EventBody::Imported(import) => imports::import(books, source, import),
        EventBody::ImportDropped(named) => imports::drop(books, source, named),
        EventBody::HandedOver(said) => handovers::hand_over(books, source, said),
        EventBody::MemberRegistered { .. }
        | EventBody::AgreementConstituted { .. }
        | EventBody::AgreementAccepted { .. }
        | EventBody::ResourcesOrdered { .. }
        | EventBody::ResourcesAmended { .. }
        | EventBody::ResourcesRetired { .. }
        | EventBody::ReportSubmitted { .. } => Err(ActRefusal::Unknown.into()),
    }
}
