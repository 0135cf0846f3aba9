//! Ratings: what a party of a finished agreement says of another party of it, once.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::agreed::{self, AgreedRecord};
use super::{ActRefusal, Fault, Source, Taken};
use crate::canonical::Digest;
use crate::ids::{DaoId, MemberId, Version};
use crate::records::{self, Books, Submitted};
use crate::rules::{CheckError, Refusal};

/// The most stars of a rating; the least is 1.
pub const MAX_STARS: u8 = 5;
/// The longest text of a rating, in characters.
pub const MAX_RATING_TEXT: usize = 1_000;

/// What a party says of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rating {
    /// The digest of the agreement that both were parties of.
    pub agreement: Digest,
    /// Who is rated.
    pub member: MemberId,
    /// 1 to [`MAX_STARS`].
    pub stars: u8,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// A rating. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatingRecord {
    /// The DAO whose version the agreement made.
    pub dao: DaoId,
    /// The version.
    pub version: Version,
    /// What was said.
    pub rating: Rating,
    /// The transaction that said it, and so who did.
    pub rated: Submitted,
}

impl RatingRecord {
    /// The name of the one rating that a party can give another one for an agreement.
    pub fn name(agreement: Digest, by: &MemberId, member: &MemberId) -> String {
        Digest::of(format!("{}/{by}/{member}", agreement.hex()).as_bytes()).hex()
    }
}

/// Why a rating is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RatingRefusal {
    /// Outside 1 to [`MAX_STARS`].
    #[error("a rating has 1 to {MAX_STARS} stars, this one {0}")]
    Stars(u8),
    /// Over [`MAX_RATING_TEXT`].
    #[error("the text of a rating has at most {MAX_RATING_TEXT} characters, this one {0}")]
    Text(usize),
    /// Nobody has confirmed such an agreement.
    #[error("no agreement {0} is known on this market: its parties confirm it first, with charter agreed confirm")]
    Missing(Digest),
    /// It goes on.
    #[error("{dao} v{version} is not finished: {concluded} of its parties have concluded it, {needed} are needed")]
    Unfinished {
        /// The DAO.
        dao: DaoId,
        /// Its version.
        version: Version,
        /// How many have concluded it.
        concluded: usize,
        /// How many have to.
        needed: usize,
    },
    /// Only a party rates, and is rated.
    #[error("member {member} was not a party of {dao} v{version}")]
    NotAParty {
        /// Who.
        member: MemberId,
        /// The DAO.
        dao: DaoId,
        /// Its version.
        version: Version,
    },
    /// Nobody rates itself.
    #[error("member {0} can't rate itself")]
    Itself(MemberId),
    /// A rating stands.
    #[error("member {by} has rated {member} for this agreement already, and a rating does not change")]
    Rated {
        /// Who.
        by: MemberId,
        /// Whom.
        member: MemberId,
    },
}

impl RatingRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            RatingRefusal::Stars(_) | RatingRefusal::Text(_) | RatingRefusal::Itself(_) => Fault::Bad,
            RatingRefusal::Missing(_) => Fault::Missing,
            RatingRefusal::NotAParty { .. } => Fault::Forbidden,
            RatingRefusal::Unfinished { .. } | RatingRefusal::Rated { .. } => Fault::Conflict,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            RatingRefusal::Stars(_) => "a rating has too few or too many stars",
            RatingRefusal::Text(_) => "the text of a rating is too long",
            RatingRefusal::Missing(_) => "the agreement of the rating is not known",
            RatingRefusal::Unfinished { .. } => "the agreement of the rating is not finished",
            RatingRefusal::NotAParty { .. } => "who rates or is rated was not a party of the agreement",
            RatingRefusal::Itself(_) => "a member rates itself",
            RatingRefusal::Rated { .. } => "the member was rated for this agreement already",
        }
    }
}

impl From<RatingRefusal> for Refusal {
    fn from(refusal: RatingRefusal) -> Self {
        ActRefusal::from(refusal).into()
    }
}

fn refused<E>(refusal: RatingRefusal) -> CheckError<E> {
    CheckError::Refused(refusal.into())
}

/// Rates a party of a finished agreement, as another party of it.
pub(super) fn rate<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, rating: &Rating) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    if !(1..=MAX_STARS).contains(&rating.stars) {
        return Err(refused(RatingRefusal::Stars(rating.stars)));
    }
    let letters = rating.text.chars().count();
    if letters > MAX_RATING_TEXT {
        return Err(refused(RatingRefusal::Text(letters)));
    }
    if rating.member == *by {
        return Err(refused(RatingRefusal::Itself(by.clone())));
    }
    let record = agreed::known(books, rating.agreement)?.ok_or_else(|| refused(RatingRefusal::Missing(rating.agreement)))?;
    allowed(&record, by, &rating.member).map_err(refused)?;
    let name = RatingRecord::name(rating.agreement, by, &rating.member);
    if records::get::<RatingRecord, B>(books, &name).map_err(CheckError::View)?.is_some() {
        return Err(refused(RatingRefusal::Rated {
            by: by.clone(),
            member: rating.member.clone(),
        }));
    }
    Ok(Taken::record(RatingRecord {
        dao: record.agreed.dao,
        version: record.agreed.version,
        rating: rating.clone(),
        rated: source.submitted.clone(),
    }))
}

/// Both were parties, and the agreement is finished.
fn allowed(record: &AgreedRecord, by: &MemberId, member: &MemberId) -> Result<(), RatingRefusal> {
    let agreed = &record.agreed;
    if let Some(stranger) = [by, member].into_iter().find(|member| !agreed.parties.contains(*member)) {
        return Err(RatingRefusal::NotAParty {
            member: stranger.clone(),
            dao: agreed.dao.clone(),
            version: agreed.version,
        });
    }
    if !record.is_finished() {
        return Err(RatingRefusal::Unfinished {
            dao: agreed.dao.clone(),
            version: agreed.version,
            concluded: record.concluded.len(),
            needed: record.needed(),
        });
    }
    Ok(())
}
