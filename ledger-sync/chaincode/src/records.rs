//! What the program keeps in the ledger's state: keys, and the documents under them (canonical JSON).
//!
//! A transaction can't know the block that it will stand in, so a record names it by its id; the desired state that followers
//! build adds the position.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use state::agreement::{Agreement, Role};
use state::canonical::Digest;
use state::desired::Succeeded;
use state::ids::{MemberId, MspId, ResourceName};
pub use state::records::Submitted;
use state::resource::Resource;
use state::size::Totals;
use state::time::Timestamp;

/// The key of the channel's agreement: an [`AgreementRecord`].
pub const AGREEMENT: &str = "agreement";
/// The key of the count of resources in force: a [`Usage`].
pub const USAGE: &str = "usage";
/// What stands before the names of resources in force.
pub const RESOURCES: &str = "resource/";
/// The end of the range that starts with [`RESOURCES`]: `0` is the character after `/`.
pub const RESOURCES_END: &str = "resource0";
/// The value of an index entry. An empty one would be a deletion in Fabric.
pub const INDEXED: &[u8] = b"true";

/// The key of a member: a [`MemberRecord`].
pub fn member(member: &MemberId) -> String {
    format!("member/{member}")
}

/// The key of the member that an MSP is bound to: its name.
pub fn msp(msp: &MspId) -> String {
    format!("msp/{msp}")
}

/// The key of a resource in force: an [`OrderedRecord`].
pub fn resource(name: &ResourceName) -> String {
    format!("{RESOURCES}{name}")
}

/// The key of what was retired and not ordered again: an [`OrderedRecord`].
pub fn retired(name: &ResourceName) -> String {
    format!("retired/{name}")
}

/// The key of the index entry that says that `name` depends on `on`: [`INDEXED`].
pub fn dependent(on: &ResourceName, name: &ResourceName) -> String {
    format!("dependent/{on}/{name}")
}

/// The start and the end of the index entries of what depends on a resource.
pub fn dependents(on: &ResourceName) -> (String, String) {
    (format!("dependent/{on}/"), format!("dependent/{on}0"))
}

/// The key of the head of a member's chain of reports: a [`ReportRecord`].
pub fn report(member: &MemberId) -> String {
    format!("report/{member}")
}

/// A member as it registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    /// Its MSP.
    pub msp: MspId,
    /// What it brings.
    pub role: Role,
    /// The transaction that registered it.
    pub registered: Submitted,
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
    pub constituted: Submitted,
    /// Each party's acceptance.
    pub accepted: BTreeMap<MemberId, Submitted>,
    /// Whether every party has accepted.
    pub in_force: bool,
    /// The newcomers that took parties' places since, the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succeeded: Vec<Succeeded<Submitted>>,
}

/// A resource with the transactions that made it what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderedRecord {
    /// The resource.
    pub resource: Resource,
    /// The transaction that ordered it.
    pub ordered: Submitted,
    /// The transaction that changed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amended: Option<Submitted>,
    /// The transaction that gave it to its present owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transferred: Option<Submitted>,
    /// Who has the orderer's rights, where a newcomer took a party's place since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orderer: Option<MemberId>,
    /// The transaction that retired it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Submitted>,
}

impl OrderedRecord {
    /// Who has the orderer's rights: with a transfer they went to the owner.
    pub fn orderer(&self) -> &MemberId {
        match (&self.orderer, &self.transferred) {
            (Some(orderer), _) => orderer,
            (None, Some(_)) => &self.resource.owner,
            (None, None) => &self.ordered.by,
        }
    }
}

/// The head of a member's chain of reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRecord {
    /// The last report's number.
    pub sequence: u64,
    /// Its digest: the next report's `previous`.
    pub digest: Digest,
    /// The time of the last report by `heartbeat`: the member's sign of life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// How much of the agreement's limits is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// How many resources are in force.
    pub resources: u64,
    /// What they come to; kept where the agreement has quotas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
}
