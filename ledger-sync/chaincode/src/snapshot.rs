//! The state as the rules see it: typed point reads over the stub, each parsed once.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use state::agreement::Agreement;
use state::ids::{MemberId, MspId, ResourceName};
use state::records::{AnyRecord, Books, Collection};
use state::rules::{InForce, Membership, View};
use state::size::Totals;
use state::time::Timestamp;

use crate::error::Refused;
use crate::records::{self, AgreementRecord, MemberRecord, OrderedRecord, ReportRecord, Usage};
use crate::stub::Stub;

/// One transaction's view of the state.
pub(crate) struct Snapshot<'a> {
    stub: &'a mut dyn Stub,
    resources: BTreeMap<ResourceName, Option<OrderedRecord>>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(stub: &'a mut dyn Stub) -> Self {
        Self {
            stub,
            resources: BTreeMap::new(),
        }
    }

    fn read<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, Refused> {
        match self.stub.get_state(key)? {
            Some(bytes) => parse(key, &bytes).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn member_record(&mut self, member: &MemberId) -> Result<Option<MemberRecord>, Refused> {
        self.read(&records::member(member))
    }

    /// The member that a creator's MSP is bound to.
    pub(crate) fn submitter(&mut self, msp: &MspId) -> Result<MemberId, Refused> {
        self.read(&records::msp(msp))?.ok_or_else(|| Refused::Unregistered(msp.clone()))
    }

    pub(crate) fn standing(&mut self) -> Result<Option<AgreementRecord>, Refused> {
        self.read(records::AGREEMENT)
    }

    /// The agreement, when it is in force.
    pub(crate) fn in_force(&mut self) -> Result<Option<Agreement>, Refused> {
        let standing = self.standing()?.filter(|record| record.in_force);
        Ok(standing.map(|record| record.agreement))
    }

    pub(crate) fn usage(&mut self) -> Result<Usage, Refused> {
        Ok(self.read(records::USAGE)?.unwrap_or_default())
    }

    pub(crate) fn report(&mut self, member: &MemberId) -> Result<Option<ReportRecord>, Refused> {
        self.read(&records::report(member))
    }

    pub(crate) fn retired(&mut self, name: &ResourceName) -> Result<Option<OrderedRecord>, Refused> {
        self.read(&records::retired(name))
    }

    /// A resource in force.
    pub(crate) fn resource(&mut self, name: &ResourceName) -> Result<Option<&OrderedRecord>, Refused> {
        if !self.resources.contains_key(name) {
            let found = self.read(&records::resource(name))?;
            self.resources.insert(name.clone(), found);
        }
        Ok(self.resources.get(name).and_then(Option::as_ref))
    }

    /// At most `limit` records of a collection whose names stand after one.
    pub(crate) fn records(&mut self, collection: Collection, after: Option<&str>, limit: usize) -> Result<Vec<AnyRecord>, Refused> {
        let start = match after {
            Some(after) => format!("{}-", state::records::key(collection, after)),
            None => state::records::key(collection, ""),
        };
        let found = self.stub.get_state_page(&start, &format!("{}0", collection.key()), limit)?;
        let read = |(key, bytes): &(String, Vec<u8>)| collection.parse(bytes).map_err(|_| Refused::Damaged(key.clone()));
        found.iter().map(read).collect()
    }

    /// At most `limit` resources in force whose names stand after one.
    pub(crate) fn page(&mut self, after: Option<&ResourceName>, limit: usize) -> Result<Vec<OrderedRecord>, Refused> {
        // The first key that is greater than a name's own has one character more, the least one that names have.
        let start = after.map_or_else(|| records::RESOURCES.to_owned(), |after| format!("{}-", records::resource(after)));
        let found = self.stub.get_state_page(&start, records::RESOURCES_END, limit)?;
        found.iter().map(|(key, bytes)| parse(key, bytes)).collect()
    }
}

impl Books for Snapshot<'_> {
    fn record(&mut self, collection: Collection, id: &str) -> Result<Option<AnyRecord>, Refused> {
        let key = state::records::key(collection, id);
        match self.stub.get_state(&key)? {
            Some(bytes) => collection.parse(&bytes).map(Some).map_err(|_| Refused::Damaged(key)),
            None => Ok(None),
        }
    }

    fn agreement(&mut self) -> Result<Option<Agreement>, Refused> {
        self.in_force()
    }

    fn accepted(&mut self, member: &MemberId) -> Result<Option<Timestamp>, Refused> {
        let record = self.standing()?;
        Ok(record.and_then(|record| record.accepted.get(member).map(|submitted| submitted.at)))
    }

    fn heard(&mut self, member: &MemberId) -> Result<Option<Timestamp>, Refused> {
        Ok(self.report(member)?.and_then(|record| record.at))
    }

    fn all_ordered(&mut self) -> Result<Vec<InForce>, Refused> {
        let found = self.stub.get_state_by_range(records::RESOURCES, records::RESOURCES_END)?;
        found
            .iter()
            .map(|(key, bytes)| {
                let record: OrderedRecord = parse(key, bytes)?;
                Ok(InForce {
                    orderer: record.orderer().clone(),
                    resource: record.resource,
                })
            })
            .collect()
    }
}

fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(bytes).map_err(|_| Refused::Damaged(key.to_owned()))
}

impl View for Snapshot<'_> {
    type Error = Refused;

    fn member(&mut self, member: &MemberId) -> Result<Option<Membership>, Refused> {
        Ok(self.member_record(member)?.map(|record| Membership {
            msp: record.msp,
            role: record.role,
        }))
    }

    fn member_of(&mut self, msp: &MspId) -> Result<Option<MemberId>, Refused> {
        self.read(&records::msp(msp))
    }

    fn ordered(&mut self, name: &ResourceName) -> Result<Option<InForce>, Refused> {
        Ok(self.resource(name)?.map(|record| InForce {
            resource: record.resource.clone(),
            orderer: record.orderer().clone(),
        }))
    }

    fn dependents(&mut self, name: &ResourceName) -> Result<BTreeSet<ResourceName>, Refused> {
        let (start, end) = records::dependents(name);
        let found = self.stub.get_state_by_range(&start, &end)?;
        found
            .into_iter()
            .map(|(key, _)| match key.strip_prefix(&start).map(ResourceName::new) {
                Some(Ok(dependent)) => Ok(dependent),
                _ => Err(Refused::Damaged(key)),
            })
            .collect()
    }

    fn count(&mut self) -> Result<u64, Refused> {
        Ok(self.usage()?.resources)
    }

    fn totals(&mut self) -> Result<Totals, Refused> {
        Ok(self.usage()?.totals.unwrap_or_default())
    }
}
