//! The terms of a negotiation: a policy of ODRL 2.2 with Charter's own profile for what ODRL has no words for.
//!
//! The profile holds the agreement that the terms make, word for word as members accept it in their channel, and what each party orders
//! then. So there is one way from terms to an agreement, and nothing in it to interpret.

pub mod odrl;
mod salted;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::agreement::{Agreement, AgreementError, Role};
use crate::ids::{MemberId, ResourceName};
use crate::resource::Resource;
use crate::rules::MAX_ITEMS;

use odrl::{Context, Duty, Permission, PolicyType, Profile, Prohibition, Rule};
pub use salted::{PAGE, PackError, Salt, SaltError, Salted, UnpackError};
use words::Iri;

/// The most rules of one kind, constraints of one rule and duties of one rule.
pub const MAX_RULES: usize = 64;

/// What one party orders once the agreement is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Infrastructure {
    /// Who orders it.
    pub by: MemberId,
    /// What.
    #[schemars(length(min = 1, max = 1000))]
    pub resources: Vec<Resource>,
}

/// The terms of a negotiation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// ODRL's words and those of Charter's profile.
    #[serde(rename = "@context")]
    pub context: Context,
    /// `Offer` while it is negotiated.
    #[serde(rename = "@type")]
    pub policy: PolicyType,
    /// What identifies these terms.
    pub uid: Iri,
    /// Charter's profile.
    pub profile: Profile,
    /// Who gives the rights: a data service provider.
    pub assigner: MemberId,
    /// Who gets them.
    #[schemars(length(min = 1, max = 64))]
    pub assignee: BTreeSet<MemberId>,
    /// What the assignees may do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub permission: Vec<Permission>,
    /// What they must not do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub prohibition: Vec<Prohibition>,
    /// What they have to do, whatever they use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub obligation: Vec<Duty>,
    /// The agreement that these terms make: shares, duration, heartbeat, limits, and the rules of the channel.
    #[serde(rename = "charter:agreement")]
    pub agreement: Agreement,
    /// What each party orders then.
    #[serde(default, rename = "charter:infrastructure", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub infrastructure: Vec<Infrastructure>,
}

/// Terms that make no sense by themselves, or not in this negotiation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TermsError {
    /// Terms on the table are an offer.
    #[error("@type has to be Offer: an agreement is what the parties make of it")]
    Type,
    /// A policy without a rule says nothing.
    #[error("the policy has no rule: name a permission, a prohibition or an obligation")]
    NoRule,
    /// A list is empty or too long.
    #[error("{0} has to have {1} to {MAX_RULES} entries, not {2}")]
    Entries(&'static str, usize, usize),
    /// Somebody who takes no part.
    #[error("{place} names {member}, who is no party of the agreement")]
    Stranger {
        /// Where.
        place: &'static str,
        /// Who.
        member: MemberId,
    },
    /// Rights are a data owner's to give.
    #[error("assigner: {0} is no data service provider of the agreement")]
    Assigner(MemberId),
    /// An operand that is too long, or a number that is not exact.
    #[error("{0}: a rightOperand is a whole number below 2^53, or 1 to 64 texts of 1 to 400 characters each")]
    Operand(&'static str),
    /// The agreement breaks its own rules.
    #[error("charter:agreement")]
    Agreement(#[from] AgreementError),
    /// A member's orders stand twice, are none, or too many for one transaction.
    #[error("charter:infrastructure of {0} has to be one list of 1 to {MAX_ITEMS} resources")]
    Orders(MemberId),
    /// A resource stands twice.
    #[error("charter:infrastructure names {0} twice")]
    Twice(ResourceName),
    /// More is ordered than the agreement allows.
    #[error("charter:infrastructure has {found} resources; the agreement allows {limit}")]
    Limit {
        /// How many there are.
        found: usize,
        /// How many it allows.
        limit: u32,
    },
    /// The agreement is one of others.
    #[error("charter:agreement is between {found}, and negotiated by {expected}")]
    Parties {
        /// Its parties.
        found: String,
        /// Those of the negotiation.
        expected: String,
    },
    /// The negotiation's provider owns none of the data.
    #[error("charter:agreement has {0}, who provides in this negotiation, as no data service provider")]
    Provider(MemberId),
}

/// What terms come to once they are agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The agreement, exactly as members accept it in their channel.
    pub agreement: &'a Agreement,
    /// What each party orders then.
    pub orders: &'a [Infrastructure],
}

impl Outcome<'_> {
    /// What one party orders.
    pub fn orders_of(&self, member: &MemberId) -> &[Resource] {
        let own = self.orders.iter().find(|orders| orders.by == *member);
        own.map_or(&[], |orders| &orders.resources)
    }
}

impl Terms {
    /// Checks the terms by themselves, and gives what they come to.
    pub fn outcome(&self) -> Result<Outcome<'_>, TermsError> {
        if self.policy != PolicyType::Offer {
            return Err(TermsError::Type);
        }
        self.agreement.check()?;
        let parties: BTreeSet<&MemberId> = self.agreement.parties.iter().map(|party| &party.member).collect();
        self.policy(&parties)?;
        self.orders(&parties)?;
        Ok(Outcome {
            agreement: &self.agreement,
            orders: &self.infrastructure,
        })
    }

    /// Checks them as terms of a negotiation, and gives what they come to.
    pub fn outcome_between(&self, parties: &BTreeSet<MemberId>, provider: &MemberId) -> Result<Outcome<'_>, TermsError> {
        let outcome = self.outcome()?;
        let found: BTreeSet<&MemberId> = self.agreement.parties.iter().map(|party| &party.member).collect();
        if !found.iter().copied().eq(parties.iter()) {
            let listed = |names: Vec<String>| names.join(", ");
            return Err(TermsError::Parties {
                found: listed(found.iter().map(ToString::to_string).collect()),
                expected: listed(parties.iter().map(ToString::to_string).collect()),
            });
        }
        if self
            .agreement
            .party(provider)
            .is_none_or(|party| party.role != Role::DataServiceProvider)
        {
            return Err(TermsError::Provider(provider.clone()));
        }
        Ok(outcome)
    }

    /// The same policy as an agreement, for whoever reads it once everybody has agreed. Its digest is that of other bytes.
    #[must_use]
    pub fn agreed(mut self) -> Self {
        self.policy = PolicyType::Agreement;
        self
    }

    fn policy(&self, parties: &BTreeSet<&MemberId>) -> Result<(), TermsError> {
        for (place, least, found) in [
            ("assignee", 1, self.assignee.len()),
            ("permission", 0, self.permission.len()),
            ("prohibition", 0, self.prohibition.len()),
            ("obligation", 0, self.obligation.len()),
            ("charter:infrastructure", 0, self.infrastructure.len()),
        ] {
            if !(least..=MAX_RULES).contains(&found) {
                return Err(TermsError::Entries(place, least, found));
            }
        }
        if self.permission.is_empty() && self.prohibition.is_empty() && self.obligation.is_empty() {
            return Err(TermsError::NoRule);
        }
        if self
            .agreement
            .party(&self.assigner)
            .is_none_or(|party| party.role != Role::DataServiceProvider)
        {
            return Err(TermsError::Assigner(self.assigner.clone()));
        }
        known("assignee", &self.assignee, parties)?;
        for permission in &self.permission {
            rule("permission", &permission.rule(), parties)?;
        }
        for prohibition in &self.prohibition {
            rule("prohibition", &prohibition.rule(), parties)?;
        }
        for duty in &self.obligation {
            rule("obligation", &duty.rule(), parties)?;
        }
        Ok(())
    }

    fn orders(&self, parties: &BTreeSet<&MemberId>) -> Result<(), TermsError> {
        let mut names = BTreeSet::new();
        let mut orderers: BTreeMap<&MemberId, usize> = BTreeMap::new();
        for orders in &self.infrastructure {
            known("charter:infrastructure", [&orders.by], parties)?;
            let own = orderers.entry(&orders.by).or_default();
            *own += 1;
            if *own > 1 || !(1..=MAX_ITEMS).contains(&orders.resources.len()) {
                return Err(TermsError::Orders(orders.by.clone()));
            }
            for resource in &orders.resources {
                known("charter:infrastructure", [&resource.owner], parties)?;
                if !names.insert(&resource.name) {
                    return Err(TermsError::Twice(resource.name.clone()));
                }
            }
        }
        let (found, limit) = (names.len(), self.agreement.limits.resources);
        if found > limit as usize {
            return Err(TermsError::Limit { found, limit });
        }
        Ok(())
    }
}

fn rule(place: &'static str, rule: &Rule<'_>, parties: &BTreeSet<&MemberId>) -> Result<(), TermsError> {
    known(place, rule.assigner.into_iter().chain(rule.assignee), parties)?;
    for found in [rule.constraint.len(), rule.duties.len()] {
        if found > MAX_RULES {
            return Err(TermsError::Entries(place, 0, found));
        }
    }
    if !rule.constraint.iter().all(|constraint| constraint.right_operand.fits()) {
        return Err(TermsError::Operand(place));
    }
    for duty in rule.duties {
        self::rule(place, &duty.rule(), parties)?;
    }
    Ok(())
}

fn known<'a>(
    place: &'static str,
    members: impl IntoIterator<Item = &'a MemberId>,
    parties: &BTreeSet<&MemberId>,
) -> Result<(), TermsError> {
    match members.into_iter().find(|member| !parties.contains(member)) {
        Some(member) => Err(TermsError::Stranger {
            place,
            member: member.clone(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
