//! Names that stand many times in one state, kept once.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Position, Provenance};
use crate::ids::{Kind, MemberId};
use crate::resource::Resource;

/// What was seen so far while a state is loaded.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    kinds: BTreeSet<Kind>,
    members: BTreeSet<MemberId>,
    transactions: BTreeMap<Position, Provenance>,
}

impl Shared {
    pub(crate) fn resource(&mut self, resource: &mut Resource) {
        self.kind(&mut resource.kind);
        once(&mut self.members, &mut resource.owner);
    }

    pub(crate) fn kind(&mut self, kind: &mut Kind) {
        once(&mut self.kinds, kind);
    }

    pub(crate) fn provenance(&mut self, provenance: &mut Provenance) {
        match self.transactions.get(&provenance.position) {
            // A damaged file may tell something else of the same place: then it stays as it is.
            Some(same) if same == provenance => *provenance = same.clone(),
            Some(_) => {}
            None => {
                once(&mut self.members, &mut provenance.by);
                self.transactions.insert(provenance.position, provenance.clone());
            }
        }
    }
}

fn once<T: Ord + Clone>(known: &mut BTreeSet<T>, value: &mut T) {
    match known.get(value) {
        Some(same) => *value = same.clone(),
        None => {
            known.insert(value.clone());
        }
    }
}
