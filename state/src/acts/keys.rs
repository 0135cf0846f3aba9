//! Keys that members seal to: each publishes one public key on a market, and another in its place when it wants to.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ActRefusal, Fault, Source, Taken};
use crate::ids::MemberId;
use crate::records::{self, Books, Submitted};
use crate::rules::{CheckError, Refusal};
use crate::sealed::PublicKey;

/// Publishes the submitter's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPublished {
    /// The key.
    pub key: PublicKey,
}

/// The key that terms are sealed to for a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Whose.
    pub member: MemberId,
    /// The key.
    pub key: PublicKey,
    /// How many keys the member has published, this one among them.
    pub revision: u32,
    /// The transaction that published it.
    pub published: Submitted,
}

/// Why a key is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyRefusal {
    /// It is the one that stands.
    #[error("this is the key that {0} has published already: make a new one to replace it")]
    Same(MemberId),
}

impl KeyRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            KeyRefusal::Same(_) => Fault::Conflict,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            KeyRefusal::Same(_) => "the key is published already",
        }
    }
}

impl From<KeyRefusal> for Refusal {
    fn from(refusal: KeyRefusal) -> Self {
        ActRefusal::from(refusal).into()
    }
}

/// Publishes a key in the place of the one before.
pub(super) fn publish<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, said: &KeyPublished) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let before: Option<KeyRecord> = records::get(books, by.as_str()).map_err(CheckError::View)?;
    if before.as_ref().is_some_and(|record| record.key == said.key) {
        return Err(CheckError::Refused(KeyRefusal::Same(by.clone()).into()));
    }
    Ok(Taken::record(KeyRecord {
        member: by.clone(),
        key: said.key,
        revision: before.map_or(0, |record| record.revision).saturating_add(1),
        published: source.submitted.clone(),
    }))
}
