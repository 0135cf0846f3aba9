//! The desired state as the rules read it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use super::DesiredState;
use crate::agreement::Agreement;
use crate::ids::{MemberId, MspId, ResourceName};
use crate::records::{AnyRecord, Books, Collection};
use crate::rules::{InForce, Membership, View};
use crate::size::Totals;
use crate::time::Timestamp;

/// A state as the rules read it.
pub struct Present<'a> {
    state: &'a DesiredState,
    heard: &'a BTreeMap<MemberId, Timestamp>,
}

impl<'a> Present<'a> {
    /// A state that knows of signs of life what it took note of.
    pub fn new(state: &'a DesiredState) -> Self {
        Self {
            state,
            heard: &state.heard,
        }
    }

    /// A state with each member's last sign of life beside it.
    pub fn with(state: &'a DesiredState, heard: &'a BTreeMap<MemberId, Timestamp>) -> Self {
        Self { state, heard }
    }
}

impl Books for Present<'_> {
    fn record(&mut self, collection: Collection, id: &str) -> Result<Option<AnyRecord>, Infallible> {
        Ok(self.state.records.get(collection, id).cloned())
    }
    fn agreement(&mut self) -> Result<Option<Agreement>, Infallible> {
        Ok(self.state.in_force().cloned())
    }
    fn accepted(&mut self, member: &MemberId) -> Result<Option<Timestamp>, Infallible> {
        let record = self.state.agreement.as_ref();
        Ok(record.and_then(|record| record.accepted.get(member)).map(|source| source.at))
    }
    fn heard(&mut self, member: &MemberId) -> Result<Option<Timestamp>, Infallible> {
        Ok(self.heard.get(member).copied())
    }
    fn all_ordered(&mut self) -> Result<Vec<InForce>, Infallible> {
        let all = self.state.resources.values();
        Ok(all
            .map(|ordered| InForce {
                resource: ordered.resource.clone(),
                orderer: ordered.orderer().clone(),
            })
            .collect())
    }
}

impl View for Present<'_> {
    type Error = Infallible;
    fn member(&mut self, member: &MemberId) -> Result<Option<Membership>, Infallible> {
        Ok(self.state.members.get(member).map(|record| Membership {
            msp: record.msp.clone(),
            role: record.role,
        }))
    }
    fn member_of(&mut self, msp: &MspId) -> Result<Option<MemberId>, Infallible> {
        Ok(self.state.member_of(msp).cloned())
    }
    fn ordered(&mut self, name: &ResourceName) -> Result<Option<InForce>, Infallible> {
        Ok(self.state.resources.get(name).map(|ordered| InForce {
            resource: ordered.resource.clone(),
            orderer: ordered.orderer().clone(),
        }))
    }
    fn dependents(&mut self, name: &ResourceName) -> Result<BTreeSet<ResourceName>, Infallible> {
        Ok(self.state.all_dependents().get(name).cloned().unwrap_or_default())
    }
    fn count(&mut self) -> Result<u64, Infallible> {
        Ok(self.state.resources.len() as u64)
    }
    fn totals(&mut self) -> Result<Totals, Infallible> {
        Ok(self.state.resources.values().map(|ordered| &ordered.resource).collect())
    }
}
