//! Whether enough members have endorsed a transaction, by the policy that the ledger itself states.
//!
//! That is the policy of the chaincode's definition where one is on the ledger, else `Application/Endorsement` of the channel's
//! configuration, else all members but one.

use std::collections::BTreeSet;
use std::sync::Arc;

use msp::channel::Membership;
use msp::{Identity, policy};
use protos::common::SignaturePolicyEnvelope;
use protos::envelope::EndorsedTransaction;

use super::difference::Difference;

/// The most endorsements that are looked at in one transaction.
const MAX_ENDORSEMENTS: usize = 256;
const SECTION: &str = "Application";
const POLICY: &str = "Endorsement";

/// Whether a policy is met, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endorsed {
    enough: bool,
    /// Whose endorsements were found to be good, as far as they were looked at.
    signers: BTreeSet<String>,
    policy: &'static str,
}

/// The policy of a chaincode's definition.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Policy {
    /// The channel's own.
    #[default]
    Channel,
    /// Another one of the channel's configuration, by its path.
    Reference(String),
    /// One that stands in the definition.
    Signature(SignaturePolicyEnvelope),
    /// One that is decided by a plugin, or can't be read: endorsements are not judged.
    Unknown,
}

impl Endorsed {
    /// Fails when the policy is not met.
    pub(super) fn check(&self) -> Result<(), Difference> {
        if self.enough {
            return Ok(());
        }
        let signers: Vec<&str> = self.signers.iter().take(16).map(String::as_str).collect();
        Err(Difference::Endorsements {
            signers: if signers.is_empty() { "nobody".into() } else { signers.join(", ") },
            policy: self.policy,
        })
    }
}

/// Judges endorsements by the channel's own policy. No more of them are verified than it needs.
pub(super) fn by_channel(membership: &Membership, transaction: &EndorsedTransaction) -> Endorsed {
    if has_policy(membership) {
        judged(membership, transaction, "the channel's endorsement policy", |signers| {
            membership.satisfied(&format!("{SECTION}/{POLICY}"), signers)
        })
    } else {
        // The same as what `charter` gives a channel: a vanished member can't veto its own closure.
        let needed = membership.members().len().saturating_sub(1).max(1);
        judged(membership, transaction, "the rule of all members but one", |signers| {
            let members: BTreeSet<&str> = signers.iter().map(|identity| identity.msp_id.as_str()).collect();
            members.iter().filter(|msp_id| membership.members().contains(**msp_id)).count() >= needed
        })
    }
}

/// Judges endorsements by the policy of the chaincode's definition; none where that can't be done.
pub(super) fn by_definition(membership: &Membership, policy: &Policy, transaction: &EndorsedTransaction) -> Option<Endorsed> {
    let name = "the endorsement policy of the chaincode's definition";
    match policy {
        Policy::Channel => Some(by_channel(membership, transaction)),
        Policy::Reference(path) => Some(judged(membership, transaction, name, |signers| membership.satisfied(path, signers))),
        Policy::Signature(envelope) => Some(judged(membership, transaction, name, |signers| {
            policy::satisfied(envelope, signers)
        })),
        Policy::Unknown => None,
    }
}

/// The path of the channel's own policy, as a definition refers to it.
pub(super) fn is_channels(path: &str) -> bool {
    path.strip_prefix(SECTION).and_then(|rest| rest.strip_prefix('/')) == Some(POLICY)
}

fn has_policy(membership: &Membership) -> bool {
    let root = membership.config().channel_group.as_ref();
    root.and_then(|root| root.groups.get(SECTION))
        .is_some_and(|section| section.policies.contains_key(POLICY))
}

fn judged(
    membership: &Membership,
    transaction: &EndorsedTransaction,
    policy: &'static str,
    enough: impl Fn(&[Arc<Identity>]) -> bool,
) -> Endorsed {
    let mut identities = Vec::new();
    let mut endorsed = Endorsed {
        enough: false,
        signers: BTreeSet::new(),
        policy,
    };
    for endorsement in transaction.endorsements.iter().take(MAX_ENDORSEMENTS) {
        let Ok(identity) = membership.authenticate(&endorsement.endorser) else {
            continue;
        };
        let signed = [transaction.response_payload.as_slice(), &endorsement.endorser].concat();
        // One bad endorsement among enough good ones changes nothing, as in Fabric.
        if identity.verify(&signed, &endorsement.signature).is_err() {
            continue;
        }
        endorsed.signers.insert(identity.msp_id.clone());
        identities.push(identity);
        if enough(&identities) {
            endorsed.enough = true;
            break;
        }
    }
    endorsed
}
