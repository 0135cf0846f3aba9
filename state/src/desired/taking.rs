//! Taking in events, one after another.

use std::convert::Infallible;

use thiserror::Error;

use super::{AgreementRecord, DesiredState, MemberRecord, Ordered, Present, Succeeded, file};
use crate::acts::transfers::Succession;
use crate::acts::{self, Effect, Source};
use crate::agreement::{Agreement, Role};
use crate::canonical::{CanonicalError, Digest};
use crate::event::{EventBody, LedgerEvent, Provenance};
use crate::ids::{Channel, MemberId, MspId, ResourceName};
use crate::paths::{self, FileChange};
use crate::records::Submitted;
use crate::resource::Resource;
use crate::rules::{self, Acceptance, Change, CheckError, Proposed, Refusal, Verdict};

/// Why an event can't be taken in. The state stays as it is.
#[derive(Debug, Error)]
pub enum Rejection {
    /// The event is of another channel.
    #[error("the event is of channel {found}, not {expected}")]
    Channel {
        /// This channel.
        expected: Channel,
        /// Its channel.
        found: Channel,
    },
    /// The submitter's MSP is not the one that the member is bound to.
    #[error("member {member} is not bound to {msp}")]
    Identity {
        /// Whom the event names.
        member: MemberId,
        /// Who signed it.
        msp: MspId,
    },
    /// The event contradicts what its own content leads to: no Charter chaincode writes such a one.
    #[error("the event's {0} is not what its content leads to")]
    Contradicts(&'static str),
    /// A rule forbids it.
    #[error("the change is refused")]
    Refused(#[from] Refusal),
    /// It has no canonical form.
    #[error("the event can't be encoded")]
    Encode(#[from] CanonicalError),
    /// Reports don't change what is desired.
    #[error("a report does not change the desired state")]
    Report,
}

impl DesiredState {
    /// Takes in one event, whole or not at all. Returns the files that it changes.
    pub fn apply(&mut self, event: &LedgerEvent) -> Result<Vec<FileChange>, Rejection> {
        if event.channel != self.channel {
            return Err(Rejection::Channel {
                expected: self.channel.clone(),
                found: event.channel.clone(),
            });
        }
        let by = &event.source.by;
        if let EventBody::MemberRegistered { member, msp, role } = &event.body {
            return self.register(event, member, msp, *role);
        }
        if self.members.get(by).is_none_or(|record| record.msp != event.msp) {
            return Err(Rejection::Identity {
                member: by.clone(),
                msp: event.msp.clone(),
            });
        }
        if let Some(change) = change(&event.body) {
            self.check(event, change)?;
            return self.change(&event.source, change);
        }
        match &event.body {
            EventBody::MemberRegistered { .. } | EventBody::ReportSubmitted { .. } => Err(Rejection::Report),
            EventBody::AgreementConstituted { agreement, digest } => self.constitute(event, agreement, *digest),
            EventBody::AgreementAccepted { digest, in_force } => self.accept(event, *digest, *in_force),
            body => self.act(event, body),
        }
    }

    /// Takes in an event as if the change in it had been approved, to see what it would do. Tells whether it would be in force at once.
    pub fn foresee(&mut self, event: &LedgerEvent) -> Result<Verdict, Rejection> {
        let (change, source) = (change(&event.body), &event.source);
        let Some(change) = change else {
            self.apply(event)?;
            return Ok(Verdict::Now);
        };
        let verdict = rules::check(&mut Present::new(self), self.in_force(), &source.by, source.at, change)?;
        self.change(source, change)?;
        Ok(verdict)
    }

    /// Takes in an act: its records, and what it puts into force.
    fn act(&mut self, event: &LedgerEvent, body: &EventBody) -> Result<Vec<FileChange>, Rejection> {
        let channel = self.channel.clone();
        let source = Source {
            channel: &channel,
            submitted: Submitted {
                tx_id: event.source.tx_id.clone(),
                at: event.source.at,
                by: event.source.by.clone(),
            },
        };
        let taken = acts::take(&mut Present::new(self), &source, body)?;
        let mut changes = Vec::new();
        for record in taken.records {
            changes.push(file(record.path(), &record)?);
            self.records.put(record);
        }
        for effect in taken.changes {
            let by = |member| Provenance {
                by: member,
                ..event.source.clone()
            };
            changes.extend(match effect {
                Effect::Order(member, resources) => self.change(&by(member), Change::Order(&resources))?,
                Effect::Amend(member, resources) => self.change(&by(member), Change::Amend(&resources))?,
                Effect::Retire(member, names) => self.change(&by(member), Change::Retire(&names))?,
                Effect::Release(member, names) => self.release(&by(member), &names)?,
                Effect::Transfer(member, names) => self.transfer(&event.source, &member, &names)?,
                Effect::Succeed(succession) => self.succeed(&event.source, *succession)?,
            });
        }
        Ok(changes)
    }

    fn register(&mut self, event: &LedgerEvent, member: &MemberId, msp: &MspId, role: Role) -> Result<Vec<FileChange>, Rejection> {
        if *msp != event.msp || *member != event.source.by {
            return Err(Rejection::Identity {
                member: member.clone(),
                msp: event.msp.clone(),
            });
        }
        rules::register(&mut Present::new(self), member, msp)?;
        let record = MemberRecord {
            msp: msp.clone(),
            role,
            registered: event.source.clone(),
        };
        let change = file(paths::member(member), &record)?;
        self.members.insert(member.clone(), record);
        Ok(vec![change])
    }

    fn constitute(&mut self, event: &LedgerEvent, agreement: &Agreement, digest: Digest) -> Result<Vec<FileChange>, Rejection> {
        let by = &event.source.by;
        let standing = self.agreement.as_ref().map(|record| &record.agreement);
        rules::constitute(&mut Present::new(self), standing, agreement, by)?;
        if agreement.digest()? != digest {
            return Err(Rejection::Contradicts("digest"));
        }
        let record = AgreementRecord {
            agreement: agreement.clone(),
            digest,
            constituted: event.source.clone(),
            accepted: [(by.clone(), event.source.clone())].into(),
            in_force: false,
            succeeded: Vec::new(),
        };
        let change = file(paths::AGREEMENT.into(), &record)?;
        self.agreement = Some(record);
        Ok(vec![change])
    }

    fn accept(&mut self, event: &LedgerEvent, digest: Digest, in_force: bool) -> Result<Vec<FileChange>, Rejection> {
        let by = &event.source.by;
        let proposed = self.agreement.as_ref().map(|record| Proposed {
            agreement: &record.agreement,
            digest: record.digest,
            accepted: record.accepted.keys().collect(),
        });
        let acceptance = rules::accept(proposed.as_ref(), digest, by)?;
        let Some(mut record) = self.agreement.clone() else {
            return Err(Refusal::NothingProposed.into());
        };
        record.accepted.insert(by.clone(), event.source.clone());
        record.in_force = acceptance == Acceptance::InForce;
        if record.in_force != in_force {
            return Err(Rejection::Contradicts("in_force"));
        }
        let change = file(paths::AGREEMENT.into(), &record)?;
        self.agreement = Some(record);
        Ok(vec![change])
    }

    fn check(&self, event: &LedgerEvent, change: Change<'_>) -> Result<(), Rejection> {
        let (by, at) = (&event.source.by, event.source.at);
        Ok(rules::check_at_once(&mut Present::new(self), self.in_force(), by, at, change)?)
    }

    /// Puts a change into force that the rules allow.
    fn change(&mut self, source: &Provenance, change: Change<'_>) -> Result<Vec<FileChange>, Rejection> {
        let mut changes = Vec::new();
        match change {
            Change::Order(resources) | Change::Amend(resources) => {
                for resource in resources {
                    changes.extend(self.put(source, resource)?);
                }
            }
            Change::Retire(_) | Change::HandOver(_) => {
                for (name, kept) in change.leaving() {
                    if kept {
                        changes.extend(self.release(source, std::slice::from_ref(name))?);
                    } else {
                        changes.extend(self.retire(source, name)?);
                    }
                }
            }
        }
        Ok(changes)
    }

    /// Retires resources, and has them kept where they are.
    fn release(&mut self, source: &Provenance, names: &[ResourceName]) -> Result<Vec<FileChange>, Rejection> {
        let mut changes = Vec::new();
        for name in names {
            if let Some(ordered) = self.resources.get_mut(name) {
                ordered.resource.release();
            }
            changes.extend(self.retire(source, name)?);
        }
        Ok(changes)
    }

    /// Gives resources to another member.
    fn transfer(&mut self, source: &Provenance, to: &MemberId, names: &[ResourceName]) -> Result<Vec<FileChange>, Rejection> {
        let mut changes = Vec::new();
        for name in names {
            let Some(ordered) = self.resources.get_mut(name) else {
                return Err(Refusal::Missing(name.clone()).into());
            };
            ordered.resource.owner = to.clone();
            ordered.transferred = Some(source.clone());
            ordered.orderer = None;
            changes.push(file(paths::resource("resources", &ordered.resource.kind, name), ordered)?);
        }
        Ok(changes)
    }

    /// Puts a newcomer in a party's place.
    fn succeed(&mut self, source: &Provenance, succession: Succession) -> Result<Vec<FileChange>, Rejection> {
        let Some(record) = &mut self.agreement else {
            return Err(Refusal::NoAgreement.into());
        };
        record.succeeded.push(Succeeded {
            from: succession.from.clone(),
            to: succession.to.clone(),
            before: record.digest,
            by: source.clone(),
        });
        record.digest = succession.agreement.digest()?;
        record.agreement = succession.agreement;
        record.accepted.remove(&succession.from);
        // It has accepted the transfer: it is a party from this transaction on.
        record.accepted.insert(succession.to, source.clone());
        let mut changes = vec![file(paths::AGREEMENT.into(), record)?];
        for (name, (owner, orderer)) in succession.resources {
            let Some(ordered) = self.resources.get_mut(&name) else {
                return Err(Refusal::Missing(name).into());
            };
            if ordered.resource.owner != owner {
                ordered.resource.owner = owner;
                ordered.transferred = Some(source.clone());
            }
            ordered.orderer = Some(orderer);
            changes.push(file(paths::resource("resources", &ordered.resource.kind, &name), ordered)?);
        }
        Ok(changes)
    }

    fn put(&mut self, source: &Provenance, resource: &Resource) -> Result<Vec<FileChange>, Rejection> {
        let name = &resource.name;
        let ordered = match self.resources.get(name) {
            Some(present) => Ordered {
                resource: resource.clone(),
                ordered: present.ordered.clone(),
                amended: Some(source.clone()),
                transferred: present.transferred.clone(),
                orderer: present.orderer.clone(),
                retired: None,
            },
            None => Ordered {
                resource: resource.clone(),
                ordered: source.clone(),
                amended: None,
                transferred: None,
                orderer: None,
                retired: None,
            },
        };
        let mut changes = vec![file(paths::resource("resources", &resource.kind, name), &ordered)?];
        if let Some(gone) = self.retired.remove(name) {
            changes.push(FileChange {
                path: paths::resource("retired", &gone.resource.kind, name),
                bytes: None,
            });
        }
        self.unlink(name);
        self.link(ordered);
        Ok(changes)
    }

    fn retire(&mut self, source: &Provenance, name: &ResourceName) -> Result<Vec<FileChange>, Rejection> {
        let Some(mut ordered) = self.resources.get(name).cloned() else {
            return Err(Refusal::Missing(name.clone()).into());
        };
        ordered.retired = Some(source.clone());
        let kind = ordered.resource.kind.clone();
        let tombstone = file(paths::resource("retired", &kind, name), &ordered)?;
        self.unlink(name);
        self.resources.remove(name);
        self.retired.insert(name.clone(), ordered);
        Ok(vec![
            FileChange {
                path: paths::resource("resources", &kind, name),
                bytes: None,
            },
            tombstone,
        ])
    }

    fn link(&mut self, ordered: Ordered) {
        let name = ordered.resource.name.clone();
        if let Some(dependents) = self.dependents.get_mut() {
            for on in ordered.resource.dependencies() {
                dependents.entry(on).or_default().insert(name.clone());
            }
        }
        self.resources.insert(name, ordered);
    }

    fn unlink(&mut self, name: &ResourceName) {
        let (Some(present), Some(dependents)) = (self.resources.get(name), self.dependents.get_mut()) else {
            return;
        };
        for on in present.resource.dependencies() {
            if let Some(names) = dependents.get_mut(&on) {
                names.remove(name);
                if names.is_empty() {
                    dependents.remove(&on);
                }
            }
        }
    }
}

/// The change of resources that an event is, if it is one.
fn change(body: &EventBody) -> Option<Change<'_>> {
    match body {
        EventBody::ResourcesOrdered { resources } => Some(Change::Order(resources)),
        EventBody::ResourcesAmended { resources } => Some(Change::Amend(resources)),
        EventBody::ResourcesRetired { resources } => Some(Change::Retire(resources)),
        _ => None,
    }
}

impl From<CheckError<Infallible>> for Rejection {
    fn from(error: CheckError<Infallible>) -> Self {
        match error {
            CheckError::Refused(refusal) => Rejection::Refused(refusal),
            CheckError::View(never) => match never {},
        }
    }
}
