//! How large resources are, as their orders state it: what quotas count.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::MemberId;
use crate::resource::Resource;

/// The most that one resource may state of one amount. The sum over all resources of a channel stays exact in JSON.
pub const MAX_AMOUNT: u64 = 10_000_000_000;

/// How large a resource is. What is not stated is not known, which is not the same as nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Thousandths of a CPU core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000_000_000_u64))]
    pub cpu_millis: Option<u64>,
    /// Memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000_000_000_u64))]
    pub memory_mib: Option<u64>,
    /// Storage, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000_000_000_u64))]
    pub storage_mib: Option<u64>,
    /// Cost a month, in the agreement's units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10_000_000_000_u64))]
    pub monthly_cost: Option<u64>,
}

/// What a quota can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// How many resources.
    Count,
    /// Thousandths of a CPU core.
    CpuMillis,
    /// Memory, in MiB.
    MemoryMib,
    /// Storage, in MiB.
    StorageMib,
    /// Cost a month.
    MonthlyCost,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Dimension; 5] = [
        Dimension::Count,
        Dimension::CpuMillis,
        Dimension::MemoryMib,
        Dimension::StorageMib,
        Dimension::MonthlyCost,
    ];

    /// Its name in documents.
    pub fn word(self) -> &'static str {
        match self {
            Dimension::Count => "count",
            Dimension::CpuMillis => "cpu_millis",
            Dimension::MemoryMib => "memory_mib",
            Dimension::StorageMib => "storage_mib",
            Dimension::MonthlyCost => "monthly_cost",
        }
    }
}

impl Size {
    /// The amount in a dimension, if it is stated; one resource is one.
    pub fn of(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::Count => Some(1),
            Dimension::CpuMillis => self.cpu_millis,
            Dimension::MemoryMib => self.memory_mib,
            Dimension::StorageMib => self.storage_mib,
            Dimension::MonthlyCost => self.monthly_cost,
        }
    }

    /// The first amount over [`MAX_AMOUNT`].
    pub fn excess(&self) -> Option<(Dimension, u64)> {
        Dimension::ALL
            .into_iter()
            .filter_map(|dimension| self.of(dimension).map(|amount| (dimension, amount)))
            .find(|(_, amount)| *amount > MAX_AMOUNT)
    }
}

/// A sum of sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// How many resources.
    pub count: u64,
    /// Thousandths of a CPU core.
    pub cpu_millis: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Storage, in MiB.
    pub storage_mib: u64,
    /// Cost a month.
    pub monthly_cost: u64,
}

impl Amounts {
    /// The sum in a dimension.
    pub fn of(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::Count => self.count,
            Dimension::CpuMillis => self.cpu_millis,
            Dimension::MemoryMib => self.memory_mib,
            Dimension::StorageMib => self.storage_mib,
            Dimension::MonthlyCost => self.monthly_cost,
        }
    }

    fn each(&mut self, size: &Size, change: fn(u64, u64) -> u64) {
        for (sum, dimension) in [
            (&mut self.count, Dimension::Count),
            (&mut self.cpu_millis, Dimension::CpuMillis),
            (&mut self.memory_mib, Dimension::MemoryMib),
            (&mut self.storage_mib, Dimension::StorageMib),
            (&mut self.monthly_cost, Dimension::MonthlyCost),
        ] {
            *sum = change(*sum, size.of(dimension).unwrap_or(0));
        }
    }
}

/// What all resources in force come to, and those of each owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// All together.
    pub all: Amounts,
    /// By owner; one who owns nothing is not listed.
    pub owners: BTreeMap<MemberId, Amounts>,
}

impl Totals {
    /// Adds a resource.
    pub fn add(&mut self, resource: &Resource) {
        let size = resource.size();
        self.all.each(&size, u64::saturating_add);
        self.owners
            .entry(resource.owner.clone())
            .or_default()
            .each(&size, u64::saturating_add);
    }

    /// Takes a resource out that was added.
    pub fn remove(&mut self, resource: &Resource) {
        let size = resource.size();
        self.all.each(&size, u64::saturating_sub);
        if let Some(own) = self.owners.get_mut(&resource.owner) {
            own.each(&size, u64::saturating_sub);
            if own.count == 0 {
                self.owners.remove(&resource.owner);
            }
        }
    }

    /// The sums of an owner, or of all.
    pub fn whose(&self, owner: Option<&MemberId>) -> Amounts {
        match owner {
            Some(owner) => self.owners.get(owner).copied().unwrap_or_default(),
            None => self.all,
        }
    }
}

impl<'a> FromIterator<&'a Resource> for Totals {
    fn from_iter<I: IntoIterator<Item = &'a Resource>>(resources: I) -> Self {
        let mut totals = Totals::default();
        for resource in resources {
            totals.add(resource);
        }
        totals
    }
}
