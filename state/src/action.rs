//! What can be done to a real thing: the vocabulary that plans decide in and reports tell in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Makes what is absent.
    Create,
    /// Changes what is there, in place.
    Update,
    /// Deletes it, and makes it anew.
    Replace,
    /// Deletes it.
    Delete,
    /// Takes over what is there and not owned yet.
    Adopt,
    /// Takes it out of the inventory: its absence was seen, or it is kept by agreement.
    Forget,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Replace => "replace",
            Action::Delete => "delete",
            Action::Adopt => "adopt",
            Action::Forget => "forget",
        })
    }
}
