//! Signature policies: who must have signed.

use std::sync::Arc;

use prost::Message;
use protos::common::{MspPrincipal, MspRole, SignaturePolicy, SignaturePolicyEnvelope, msp_principal, msp_role, signature_policy};

use crate::Identity;

/// The deepest nesting of a policy that is evaluated.
const MAX_DEPTH: usize = 16;

/// Tells whether identities, each of which signed, satisfy a policy. An identity counts once, however often it signed.
pub fn satisfied(policy: &SignaturePolicyEnvelope, signers: &[Arc<Identity>]) -> bool {
    let mut distinct: Vec<&Identity> = Vec::with_capacity(signers.len());
    for signer in signers {
        let known = |other: &&Identity| other.msp_id == signer.msp_id && other.certificate == signer.certificate;
        if !distinct.iter().any(known) {
            distinct.push(signer);
        }
    }
    let mut used = vec![false; distinct.len()];
    policy
        .rule
        .as_ref()
        .is_some_and(|rule| grants(rule, &policy.identities, &distinct, &mut used, 0))
}

fn grants(rule: &SignaturePolicy, principals: &[MspPrincipal], signers: &[&Identity], used: &mut Vec<bool>, depth: usize) -> bool {
    use signature_policy::Type;
    if depth > MAX_DEPTH {
        return false;
    }
    match &rule.r#type {
        None => false,
        Some(Type::SignedBy(index)) => {
            let Some(principal) = usize::try_from(*index).ok().and_then(|index| principals.get(index)) else {
                return false;
            };
            let found = (0..signers.len()).find(|&signer| !used[signer] && signers[signer].satisfies(principal));
            if let Some(signer) = found {
                used[signer] = true;
            }
            found.is_some()
        }
        Some(Type::NOutOf(some)) => {
            let mut granted = 0;
            for rule in &some.rules {
                let mut tried = used.clone();
                if grants(rule, principals, signers, &mut tried, depth + 1) {
                    granted += 1;
                    *used = tried;
                }
            }
            granted >= some.n
        }
    }
}

/// Makes the policy «`n` of these organisations, each by an identity with this role».
pub fn out_of(n: usize, msp_ids: &[&str], role: msp_role::MspRoleType) -> SignaturePolicyEnvelope {
    let identities = msp_ids
        .iter()
        .map(|msp_id| MspPrincipal {
            principal_classification: msp_principal::Classification::Role as i32,
            principal: MspRole {
                msp_identifier: (*msp_id).to_owned(),
                role: role as i32,
            }
            .encode_to_vec(),
        })
        .collect();
    let rules = (0..msp_ids.len())
        .map(|index| SignaturePolicy {
            r#type: Some(signature_policy::Type::SignedBy(index as i32)),
        })
        .collect();
    let rule = SignaturePolicy {
        r#type: Some(signature_policy::Type::NOutOf(signature_policy::NOutOf { n: n as i32, rules })),
    };
    SignaturePolicyEnvelope {
        version: 0,
        rule: Some(rule),
        identities,
    }
}
