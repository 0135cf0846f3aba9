//! What is kept of a member, of an agreement and of a resource, each with the transactions that made it what it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agreement::{Agreement, Role};
use crate::canonical::Digest;
use crate::event::Provenance;
use crate::ids::{MemberId, MspId};
use crate::resource::Resource;

/// A member as it registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    /// Its MSP.
    pub msp: MspId,
    /// What it brings.
    pub role: Role,
    /// The transaction that registered it.
    pub registered: Provenance,
}

/// The channel's agreement and who has accepted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreementRecord {
    /// The agreement.
    pub agreement: Agreement,
    /// Its digest.
    pub digest: Digest,
    /// The transaction that put it before the members.
    pub constituted: Provenance,
    /// Each party's acceptance.
    pub accepted: BTreeMap<MemberId, Provenance>,
    /// Whether every party has accepted.
    pub in_force: bool,
    /// The newcomers that took parties' places since, the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succeeded: Vec<Succeeded<Provenance>>,
}

/// A newcomer took a party's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Succeeded<S> {
    /// Who had the place.
    pub from: MemberId,
    /// Who has it.
    pub to: MemberId,
    /// The digest of the agreement as it was before.
    pub before: Digest,
    /// The transaction with which it was in force.
    pub by: S,
}

/// A resource with the transactions that made it what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ordered {
    /// The resource.
    pub resource: Resource,
    /// The transaction that ordered it.
    pub ordered: Provenance,
    /// The transaction that changed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amended: Option<Provenance>,
    /// The transaction that gave it to its present owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transferred: Option<Provenance>,
    /// Who has the orderer's rights, where a newcomer took a party's place since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orderer: Option<MemberId>,
    /// The transaction that retired it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Provenance>,
}

impl Ordered {
    /// The last transaction that changed it.
    pub fn last(&self) -> &Provenance {
        let changed = [&self.amended, &self.transferred].into_iter().flatten();
        let changed = changed.max_by_key(|source| source.position);
        self.retired.as_ref().or(changed).unwrap_or(&self.ordered)
    }

    /// Who has the orderer's rights: with a transfer they went to the owner.
    pub fn orderer(&self) -> &MemberId {
        match (&self.orderer, &self.transferred) {
            (Some(orderer), _) => orderer,
            (None, Some(_)) => &self.resource.owner,
            (None, None) => &self.ordered.by,
        }
    }
}
