//! For whom something was made: what providers write on it where that is kept, and remember beside it where it isn't.

use serde::{Deserialize, Serialize};
use state::ids::{Channel, Kind, MemberId, ResourceName};
use state::resource::{OnRetire, Origin, Resource};

use crate::{Orphan, Scope};

/// For whom something was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The channel that it is ordered on now.
    pub channel: Channel,
    /// The member whose Charter makes it.
    pub member: MemberId,
    /// The resource.
    pub resource: ResourceName,
    /// What it is.
    pub kind: Kind,
    /// Where it was ordered first.
    pub origin: Origin,
    /// What happens to it when it is retired.
    pub on_retire: OnRetire,
}

impl Made {
    /// For a resource of a scope.
    pub fn new(scope: &Scope, resource: &Resource) -> Self {
        Self {
            channel: scope.channel.clone(),
            member: scope.member.clone(),
            resource: resource.name.clone(),
            kind: resource.kind.clone(),
            origin: resource.origin(&scope.channel),
            on_retire: resource.on_retire,
        }
    }

    /// Whether it is of a scope.
    pub fn is_of(&self, scope: &Scope) -> bool {
        (&self.channel, &self.member) == (&scope.channel, &scope.member)
    }

    /// Whether it is of this resource of a scope.
    pub fn is_ours(&self, scope: &Scope, name: &ResourceName) -> bool {
        self.is_of(scope) && self.resource == *name
    }

    /// Whose it is, in words.
    pub fn owner(&self) -> String {
        format!("{}/{}", self.channel, self.resource)
    }

    /// What nobody wants any more, by its external name.
    pub fn orphan(self, external: String) -> Orphan {
        Orphan {
            name: self.resource,
            kind: self.kind,
            external,
            on_retire: self.on_retire,
        }
    }
}
