//! What a provider sees of one resource.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::resource::Outputs;

/// One field that differs from what was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldDrift {
    /// The field, as a JSON pointer into the specification (or a provider's own word for what is no field).
    pub path: String,
    /// What it should be; none when it should not be there or may not be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Value>,
    /// What it is; none when it is not there or may not be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Value>,
}

/// What a provider sees of one resource, against the specification that it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Observation {
    /// It is not there: the provider looked where it would be, and was allowed to.
    Absent,
    /// It was never made, and this is known of what making it would change outside.
    Unmade {
        /// What would change.
        changes: Vec<FieldDrift>,
    },
    /// It is there.
    Present {
        /// Its external name.
        external: String,
        /// Whether its owner label is ours. What isn't owned is never touched, but by `adopt`.
        owned: bool,
        /// What it gives to others.
        #[serde(default, skip_serializing_if = "Outputs::is_empty")]
        outputs: Outputs,
        /// How it differs from the specification; empty: it doesn't.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        drift: Vec<FieldDrift>,
        /// Why the difference can't be changed in place, if it can't.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replace: Option<String>,
        /// Why nothing may be done about the difference until somebody decides, and what could be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blocked: Option<String>,
    },
    /// It is there, is what was specified, and is not ready yet; or it is still going.
    Pending {
        /// Its external name.
        external: String,
        /// What it waits for.
        why: String,
    },
    /// The provider could not see it. It is never in sync, and never absent.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl Observation {
    /// Whether it is there, owned, ready, and as specified.
    pub fn in_sync(&self) -> bool {
        matches!(self, Observation::Present { owned: true, drift, .. } if drift.is_empty())
    }

    /// The outputs of what is there.
    pub fn outputs(&self) -> Option<&Outputs> {
        match self {
            Observation::Present { outputs, .. } => Some(outputs),
            _ => None,
        }
    }
}
