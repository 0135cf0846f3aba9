//! Why a specification is refused before anything is made.

use state::ids::ResourceName;

use crate::Invalid;

/// Why a specification is refused, in words that begin with the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is none.
    Wrong(String),
    /// The member doesn't allow it.
    Denied(String),
}

impl Refusal {
    /// Of a resource.
    pub fn of(self, resource: &ResourceName) -> Invalid {
        let resource = resource.clone();
        match self {
            Refusal::Wrong(message) => Invalid::Spec { resource, message },
            Refusal::Denied(message) => Invalid::Denied { resource, message },
        }
    }
}

/// What is no specification.
pub fn wrong(message: impl Into<String>) -> Refusal {
    Refusal::Wrong(message.into())
}

/// What the member doesn't allow.
pub fn denied(message: impl Into<String>) -> Refusal {
    Refusal::Denied(message.into())
}
