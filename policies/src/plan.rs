//! Rules over a whole plan. One denial stops the pass before anything is written.

use serde::Serialize;
use state::ids::ResourceName;
use state::inventory::Inventory;
use state::plan::{Action, Plan, Step};

use crate::local::LocalPolicy;

/// Why a plan may not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Denial {
    /// The clause, for example `policy.max_deletions_per_pass`.
    pub rule: &'static str,
    /// The resource; none when it is about the plan as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceName>,
    /// One sentence: what is denied, and what to do.
    pub message: String,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.rule)?;
        if let Some(resource) = &self.resource {
            write!(f, ": resource {resource}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Holds a plan to the rules, and gives every denial, sorted. A plan without denials may be carried out.
///
/// It trusts neither the planner nor a plan from a file: whatever made the steps, these are checked again right before they
/// are carried out.
pub fn check(plan: &Plan, inventory: &Inventory, policy: &LocalPolicy) -> Vec<Denial> {
    let mut denials = Vec::new();
    for (name, step) in &plan.steps {
        foreign(plan, name, step, &mut denials);
        if destroys(step.action) {
            protected(name, step, inventory, &mut denials);
        }
        if makes(step.action)
            && let Some((rule, sentence)) = policy.forbids(&step.resource)
        {
            let message = sentence
                .strip_prefix(rule)
                .and_then(|rest| rest.strip_prefix(": "))
                .unwrap_or(&sentence);
            denials.push(Denial {
                rule,
                resource: Some(name.clone()),
                message: message.to_owned(),
            });
        }
    }
    deletions(plan, policy, &mut denials);
    denials.sort();
    denials
}

fn destroys(action: Action) -> bool {
    matches!(action, Action::Delete | Action::Replace)
}

fn makes(action: Action) -> bool {
    match action {
        Action::Create | Action::Update | Action::Replace | Action::Adopt => true,
        Action::Delete | Action::Forget => false,
    }
}

fn foreign(plan: &Plan, name: &ResourceName, step: &Step, denials: &mut Vec<Denial>) {
    if step.resource.name != *name {
        denials.push(Denial {
            rule: "plan.steps",
            resource: Some(name.clone()),
            message: format!("the step is about {}; make the plan anew with 'charter plan'", step.resource.name),
        });
    }
    if step.resource.owner != plan.base.member {
        denials.push(Denial {
            rule: "plan.owner",
            resource: Some(name.clone()),
            message: format!(
                "{} may not {} what belongs to {}; only the owner's Charter touches it",
                plan.base.member, step.action, step.resource.owner
            ),
        });
    }
}

/// What is protected goes only when the channel released it.
///
/// The step carries the channel's last word on the resource. Where the inventory still knows it as protected, a transaction has to
/// stand behind the step: neither drift nor an order that vanished is a release.
fn protected(name: &ResourceName, step: &Step, inventory: &Inventory, denials: &mut Vec<Denial>) {
    let recorded = inventory.get(name).is_some_and(|entry| entry.resource.protect);
    if step.resource.protect || (recorded && step.tx.is_none()) {
        denials.push(Denial {
            rule: "resource.protect",
            resource: Some(name.clone()),
            message: format!(
                "it is protected, so the plan may not {} it; amend it to protect: false first",
                step.action
            ),
        });
    }
}

fn deletions(plan: &Plan, policy: &LocalPolicy, denials: &mut Vec<Denial>) {
    let count = plan.steps.values().filter(|step| destroys(step.action)).count();
    let limit = policy.max_deletions_per_pass;
    if count > limit as usize {
        denials.push(Denial {
            rule: "policy.max_deletions_per_pass",
            resource: None,
            message: format!("the plan deletes or replaces {count} resources, more than {limit}; raise the limit if that is meant"),
        });
    }
}
