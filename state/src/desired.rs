//! What was ordered on a channel: a pure function of its ledger, taken in event by event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde::Serialize;

use crate::acts::imports::ImportRecord;
use crate::agreement::Agreement;
use crate::canonical::{self, CanonicalError};
use crate::ids::{Channel, MemberId, MspId, ResourceName};
use crate::paths::FileChange;
use crate::records::Records;
use crate::reported::ReportedState;
use crate::time::Timestamp;

mod documents;
mod load;
mod present;
mod taking;

pub use documents::{AgreementRecord, MemberRecord, Ordered, Succeeded};
pub(crate) use load::parse;
pub use load::{File, LoadError, Loader};
pub use present::Present;
pub use taking::Rejection;

/// What was ordered on a channel.
#[derive(Clone, Debug)]
pub struct DesiredState {
    channel: Channel,
    members: BTreeMap<MemberId, MemberRecord>,
    agreement: Option<AgreementRecord>,
    resources: BTreeMap<ResourceName, Ordered>,
    retired: BTreeMap<ResourceName, Ordered>,
    records: Records,
    /// Each member's last sign of life. It is of `reported`, and in no file of `desired`.
    heard: BTreeMap<MemberId, Timestamp>,
    // Made when it is asked for first: a plan without steps never asks.
    dependents: OnceLock<Dependents>,
}

type Dependents = BTreeMap<ResourceName, BTreeSet<ResourceName>>;

impl DesiredState {
    /// The state of a channel on which nothing has happened.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            members: BTreeMap::new(),
            agreement: None,
            resources: BTreeMap::new(),
            retired: BTreeMap::new(),
            records: Records::default(),
            heard: BTreeMap::new(),
            dependents: OnceLock::new(),
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The registered members.
    pub fn members(&self) -> &BTreeMap<MemberId, MemberRecord> {
        &self.members
    }

    /// The agreement, in force or not.
    pub fn agreement(&self) -> Option<&AgreementRecord> {
        self.agreement.as_ref()
    }

    /// The agreement, when it is in force.
    pub fn in_force(&self) -> Option<&Agreement> {
        let record = self.agreement.as_ref().filter(|record| record.in_force)?;
        Some(&record.agreement)
    }

    /// The resources in force.
    pub fn resources(&self) -> &BTreeMap<ResourceName, Ordered> {
        &self.resources
    }

    /// What was retired and not ordered again, as it was last.
    pub fn retired(&self) -> &BTreeMap<ResourceName, Ordered> {
        &self.retired
    }

    /// What the channel keeps beside these.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// What is imported under a name from another channel.
    pub fn imported(&self, name: &str) -> Option<&ImportRecord> {
        self.records.of::<ImportRecord>(name).filter(|record| record.dropped.is_none())
    }

    /// Takes note of a member's signs of life, as its reports show them.
    pub fn hear(&mut self, reported: &ReportedState) {
        self.heard = reported.heartbeats();
    }

    /// Takes note of one member's.
    pub fn hear_of(&mut self, member: &MemberId, reported: &ReportedState) {
        if let Some(at) = reported.members().get(member).and_then(|reports| reports.head.heartbeat) {
            self.heard.insert(member.clone(), at);
        }
    }

    /// The resources that depend on one.
    pub fn dependents(&self, name: &ResourceName) -> impl Iterator<Item = &ResourceName> {
        self.all_dependents().get(name).into_iter().flatten()
    }

    fn all_dependents(&self) -> &Dependents {
        self.dependents.get_or_init(|| {
            let mut all = Dependents::new();
            for (name, ordered) in &self.resources {
                for on in ordered.resource.dependencies() {
                    all.entry(on).or_default().insert(name.clone());
                }
            }
            all
        })
    }

    /// The member that is bound to an MSP.
    pub fn member_of(&self, msp: &MspId) -> Option<&MemberId> {
        self.members.iter().find(|(_, record)| record.msp == *msp).map(|(member, _)| member)
    }

    /// Builds the state from the files of a commit on `desired/<channel>`; other files are passed over.
    pub fn load<'a>(channel: Channel, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, LoadError> {
        let mut loader = Loader::new(channel);
        for (path, bytes) in files {
            loader.take(File::read(path, bytes)?);
        }
        loader.finish()
    }
}

pub(crate) fn file<T: Serialize>(path: String, value: &T) -> Result<FileChange, CanonicalError> {
    Ok(FileChange {
        path,
        bytes: Some(canonical::document(value)?),
    })
}
