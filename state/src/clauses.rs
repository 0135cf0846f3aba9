//! The clauses of an agreement that regulate its channel: who may order what, who has to approve, how much, where, and what
//! happens when a member falls silent or the agreement ends.
//!
//! These are the words that members sign. The rules that hold a change to them are in [`crate::rules`] and [`crate::acts`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::agreement::Agreement;
use crate::ids::{Kind, MemberId, Region};
use crate::size::Dimension;

/// The most entries of one list of clauses.
pub const MAX_CLAUSES: usize = 64;
/// The most that a quota may allow of an amount, which JSON still writes exactly.
pub const MAX_LIMIT: u64 = 1_000_000_000_000_000;
/// The longest grace, in seconds: a year.
pub const MAX_GRACE: u32 = 366 * 86_400;

/// Which kinds a clause speaks of: one kind, all of a provider (`machine/*`), or all (`*`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Kinds {
    /// Every kind.
    All,
    /// Every kind of a provider.
    Provider(String),
    /// One kind.
    One(Kind),
}

/// A text names no kinds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} names no kinds: write provider/kind, provider/* or *")]
pub struct KindsError(String);

impl FromStr for Kinds {
    type Err = KindsError;
    fn from_str(text: &str) -> Result<Self, KindsError> {
        let refused = || KindsError(text.chars().take(80).collect());
        if text == "*" {
            return Ok(Kinds::All);
        }
        match text.strip_suffix("/*") {
            // A kind's provider is a label: one that makes a kind with a name after it.
            Some(provider) => Kind::new(format!("{provider}/any"))
                .map(|kind| Kinds::Provider(kind.provider().to_owned()))
                .map_err(|_| refused()),
            None => Kind::new(text).map(Kinds::One).map_err(|_| refused()),
        }
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kinds::All => f.pad("*"),
            Kinds::Provider(provider) => f.pad(&format!("{provider}/*")),
            Kinds::One(kind) => f.pad(kind.as_str()),
        }
    }
}

impl TryFrom<String> for Kinds {
    type Error = KindsError;
    fn try_from(text: String) -> Result<Self, KindsError> {
        text.parse()
    }
}

impl From<Kinds> for String {
    fn from(kinds: Kinds) -> String {
        kinds.to_string()
    }
}

impl JsonSchema for Kinds {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Kinds".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "provider/kind, provider/* or *" })
    }
}

impl Kinds {
    /// Whether a kind is among them.
    pub fn has(&self, kind: &Kind) -> bool {
        match self {
            Kinds::All => true,
            Kinds::Provider(provider) => kind.provider() == provider,
            Kinds::One(one) => one == kind,
        }
    }
}

/// What a change of resources does, as far as approvals go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// Orders something new.
    Order,
    /// Changes something.
    Amend,
    /// Retires something.
    Retire,
    /// Retires something that is protected, or takes its protection off.
    DestroyProtected,
}

/// Who may order what. Where an agreement has such clauses, a change has to fit one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderClause {
    /// Who.
    #[schemars(length(min = 1, max = 64))]
    pub members: BTreeSet<MemberId>,
    /// What.
    #[schemars(length(min = 1, max = 64))]
    pub kinds: BTreeSet<Kinds>,
    /// On whose side; nobody named: on everybody's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub owners: BTreeSet<MemberId>,
}

/// A change that has to be approved before it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalClause {
    /// Changes of these sorts.
    #[schemars(length(min = 1, max = 4))]
    pub on: BTreeSet<ChangeKind>,
    /// Of resources of these kinds.
    #[schemars(length(min = 1, max = 64))]
    pub kinds: BTreeSet<Kinds>,
    /// How many parties have to approve, the one that asks among them.
    #[schemars(range(min = 1, max = 64))]
    pub need: u32,
    /// Whose approvals count; nobody named: every party's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub from: BTreeSet<MemberId>,
}

impl ApprovalClause {
    /// Whether a member's approval counts.
    pub fn counts(&self, agreement: &Agreement, member: &MemberId) -> bool {
        if self.from.is_empty() {
            agreement.party(member).is_some()
        } else {
            self.from.contains(member)
        }
    }

    /// The members whose approvals count.
    pub fn electorate<'a>(&'a self, agreement: &'a Agreement) -> Vec<&'a MemberId> {
        let parties = agreement.parties.iter().map(|party| &party.member);
        parties.filter(|member| self.counts(agreement, member)).collect()
    }
}

/// How much may be in force at once, as the orders state it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaClause {
    /// Of this owner's resources; none: of all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<MemberId>,
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Thousandths of a CPU core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Storage, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_mib: Option<u64>,
    /// Cost a month, in the agreement's units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost: Option<u64>,
}

impl QuotaClause {
    /// The limit in a dimension, if there is one.
    pub fn limit(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::Count => self.count,
            Dimension::CpuMillis => self.cpu_millis,
            Dimension::MemoryMib => self.memory_mib,
            Dimension::StorageMib => self.storage_mib,
            Dimension::MonthlyCost => self.monthly_cost,
        }
    }
}

/// Who closes a part that is abandoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Closing {
    /// A person, whom a Charter tells.
    #[default]
    Offered,
    /// The other members' Charters by themselves.
    Submitted,
}

/// What happens to resources with which an agreement or a member's part of it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// To each what its order says: `on_retire`. What is protected is kept.
    #[default]
    AsOrdered,
    /// All are kept where they are, and are nobody's of this agreement any more.
    Retained,
}

/// When a member's silence is abandonment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbandonmentClause {
    /// Seconds of ledger time after a member's last report; at least three heartbeats.
    #[schemars(range(min = 180, max = 31_622_400))]
    pub grace_seconds: u32,
    /// Who closes its part then.
    #[serde(default)]
    pub closing: Closing,
    /// What happens to its resources, and to those of others that depend on them.
    #[serde(default)]
    pub resources: Ending,
}

/// How rights go from one party to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferClause {
    /// How many parties have to approve, the giver among them. The taker has to accept it in any case.
    #[schemars(range(min = 1, max = 64))]
    pub need: u32,
    /// Whether a party may give its whole place to a member that is none yet: its share, its voice and all that it owns.
    #[serde(default, skip_serializing_if = "is_false")]
    pub newcomers: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How the agreement ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndClause {
    /// How many parties have to ask for its end before its date; none: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub need: Option<u32>,
    /// What happens to its resources.
    #[serde(default)]
    pub resources: Ending,
}

/// Which reputation every party needs on the market before the others accept the agreement.
///
/// A channel can't see the market, so each member's own Charter holds to it before it accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReputationClause {
    /// How many ratings.
    #[schemars(range(min = 1, max = 1_000))]
    pub min_ratings: u32,
    /// Their mean, in tenths of a star.
    #[schemars(range(min = 10, max = 50))]
    pub min_tenths: u32,
}

/// The rules of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clauses {
    /// Who may order what; none: every party orders everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub orders: Vec<OrderClause>,
    /// Changes that have to be approved. Where several fit, each has to be met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub approvals: Vec<ApprovalClause>,
    /// How much may be in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub quotas: Vec<QuotaClause>,
    /// Where resources may live; none: anywhere. Where there are some, each resource names its region.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 64))]
    pub regions: BTreeSet<Region>,
    /// Which kinds may be ordered; none: all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 64))]
    pub kinds: BTreeSet<Kinds>,
    /// When silence is abandonment; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandonment: Option<AbandonmentClause>,
    /// How rights are transferred; none: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferClause>,
    /// How it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EndClause>,
    /// Which reputation each party needs on the market for the others to accept it; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reputation: Option<ReputationClause>,
}

impl Clauses {
    /// The same clauses with one member in the place of another.
    pub(crate) fn succeeded(&self, from: &MemberId, to: &MemberId) -> Self {
        let rename = |members: &mut BTreeSet<MemberId>| {
            if members.remove(from) {
                members.insert(to.clone());
            }
        };
        let mut clauses = self.clone();
        for order in &mut clauses.orders {
            rename(&mut order.members);
            rename(&mut order.owners);
        }
        for approval in &mut clauses.approvals {
            rename(&mut approval.from);
        }
        for quota in &mut clauses.quotas {
            if quota.owner.as_ref() == Some(from) {
                quota.owner = Some(to.clone());
            }
        }
        clauses
    }
}

/// A clause makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClauseError {
    /// A list is too long.
    #[error("clauses.{clause} has {found} entries; the limit is {MAX_CLAUSES}")]
    Entries {
        /// Which list.
        clause: &'static str,
        /// How many.
        found: usize,
    },
    /// A list that may not be empty is.
    #[error("clauses.{clause}[{index}].{field} is empty")]
    Empty {
        /// Which list.
        clause: &'static str,
        /// Which entry, from 0.
        index: usize,
        /// Which field of it.
        field: &'static str,
    },
    /// It names somebody who takes no part.
    #[error("clauses.{clause}[{index}] names {member}, who is no party")]
    Stranger {
        /// Which list.
        clause: &'static str,
        /// Which entry, from 0.
        index: usize,
        /// Who.
        member: MemberId,
    },
    /// A quota that limits nothing.
    #[error("clauses.quotas[{0}] limits nothing: name count, cpu_millis, memory_mib, storage_mib or monthly_cost")]
    NoLimit(usize),
    /// A limit that can't be meant.
    #[error("clauses.quotas[{index}].{dimension}: {found} is over {MAX_LIMIT}")]
    Limit {
        /// Which entry, from 0.
        index: usize,
        /// What it limits.
        dimension: &'static str,
        /// What it says.
        found: u64,
    },
    /// More approvals than there can be, or none.
    #[error("clauses.{clause} needs {need} parties of {of}")]
    Need {
        /// Which clause.
        clause: String,
        /// How many it needs.
        need: u32,
        /// Of how many.
        of: usize,
    },
    /// Outside three heartbeats to [`MAX_GRACE`].
    #[error("clauses.abandonment.grace_seconds: {found} is outside {least}, three heartbeats, to {MAX_GRACE}")]
    Grace {
        /// What it says.
        found: u32,
        /// The least.
        least: u32,
    },
    /// A demand that nobody can meet, or that demands nothing.
    #[error("clauses.reputation.{field}: {found} is outside {least} to {most}")]
    Reputation {
        /// Which demand.
        field: &'static str,
        /// What it says.
        found: u32,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
}

impl Clauses {
    /// Checks the clauses by themselves, for an agreement of these parties.
    pub fn check(&self, parties: &BTreeSet<&MemberId>, heartbeat_seconds: u32) -> Result<(), ClauseError> {
        for (clause, found) in [
            ("orders", self.orders.len()),
            ("approvals", self.approvals.len()),
            ("quotas", self.quotas.len()),
            ("regions", self.regions.len()),
            ("kinds", self.kinds.len()),
        ] {
            if found > MAX_CLAUSES {
                return Err(ClauseError::Entries { clause, found });
            }
        }
        let known = |clause, index, member: &MemberId| {
            if parties.contains(member) {
                return Ok(());
            }
            Err(ClauseError::Stranger {
                clause,
                index,
                member: member.clone(),
            })
        };
        let filled = |clause, index, field, empty: bool| {
            if empty {
                return Err(ClauseError::Empty { clause, index, field });
            }
            Ok(())
        };
        let needs = |clause: String, need: u32, of: usize| {
            if (1..=of).contains(&(need as usize)) {
                return Ok(());
            }
            Err(ClauseError::Need { clause, need, of })
        };
        for (index, order) in self.orders.iter().enumerate() {
            filled("orders", index, "members", order.members.is_empty())?;
            filled("orders", index, "kinds", order.kinds.is_empty())?;
            for member in order.members.iter().chain(&order.owners) {
                known("orders", index, member)?;
            }
        }
        for (index, approval) in self.approvals.iter().enumerate() {
            filled("approvals", index, "on", approval.on.is_empty())?;
            filled("approvals", index, "kinds", approval.kinds.is_empty())?;
            for member in &approval.from {
                known("approvals", index, member)?;
            }
            let of = if approval.from.is_empty() {
                parties.len()
            } else {
                approval.from.len()
            };
            needs(format!("approvals[{index}]"), approval.need, of)?;
        }
        for (index, quota) in self.quotas.iter().enumerate() {
            if let Some(owner) = &quota.owner {
                known("quotas", index, owner)?;
            }
            let mut limits = Dimension::ALL
                .into_iter()
                .filter_map(|dimension| quota.limit(dimension).map(|limit| (dimension, limit)))
                .peekable();
            if limits.peek().is_none() {
                return Err(ClauseError::NoLimit(index));
            }
            if let Some((dimension, found)) = limits.find(|(_, limit)| *limit > MAX_LIMIT) {
                return Err(ClauseError::Limit {
                    index,
                    dimension: dimension.word(),
                    found,
                });
            }
        }
        if let Some(abandonment) = &self.abandonment {
            let (found, least) = (abandonment.grace_seconds, heartbeat_seconds.saturating_mul(3));
            if !(least..=MAX_GRACE).contains(&found) {
                return Err(ClauseError::Grace { found, least });
            }
        }
        if let Some(transfer) = &self.transfer {
            needs("transfer".into(), transfer.need, parties.len())?;
        }
        if let Some(need) = self.end.as_ref().and_then(|end| end.need) {
            needs("end".into(), need, parties.len())?;
        }
        self.reputation.as_ref().map_or(Ok(()), ReputationClause::check)
    }
}

impl ReputationClause {
    fn check(&self) -> Result<(), ClauseError> {
        let demands = [("min_ratings", self.min_ratings, 1, 1_000), ("min_tenths", self.min_tenths, 10, 50)];
        match demands.into_iter().find(|(_, found, least, most)| !(least..=most).contains(&found)) {
            Some((field, found, least, most)) => Err(ClauseError::Reputation { field, found, least, most }),
            None => Ok(()),
        }
    }
}
