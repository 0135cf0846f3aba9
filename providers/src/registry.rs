//! The providers of one Charter, by the kinds that they make.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use state::ids::{Kind, ResourceName};
use thiserror::Error;

use crate::{Provider, Scope};

/// Two providers make the same kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("two providers make {kind}: configure one of them only")]
pub struct Ambiguous {
    /// The kind.
    pub kind: Kind,
}

/// The providers of one Charter.
#[derive(Clone, Default)]
pub struct Registry {
    providers: Vec<Arc<dyn Provider>>,
    by_kind: BTreeMap<Kind, usize>,
}

impl Registry {
    /// Takes providers, no two of the same kind.
    pub fn new(providers: Vec<Arc<dyn Provider>>) -> Result<Self, Ambiguous> {
        let mut by_kind = BTreeMap::new();
        for (index, provider) in providers.iter().enumerate() {
            for kind in provider.kinds() {
                if by_kind.insert(kind.clone(), index).is_some() {
                    return Err(Ambiguous { kind });
                }
            }
        }
        Ok(Self { providers, by_kind })
    }

    /// The provider that makes a kind.
    pub fn for_kind(&self, kind: &Kind) -> Option<&Arc<dyn Provider>> {
        self.by_kind.get(kind).and_then(|index| self.providers.get(*index))
    }

    /// All providers: each has to observe, also when none of its kinds is wanted, to find its orphans.
    pub fn providers(&self) -> &[Arc<dyn Provider>] {
        &self.providers
    }

    /// Waits until one of them has seen a change by itself.
    pub async fn changed(&self, scope: &Scope) {
        if self.providers.is_empty() {
            std::future::pending::<()>().await;
        }
        futures::future::select_all(self.providers.iter().map(|provider| provider.changed(scope))).await;
    }

    /// What goes on right now for a scope, by resource.
    pub fn going_on(&self, scope: &Scope) -> BTreeMap<ResourceName, String> {
        self.providers.iter().flat_map(|provider| provider.going_on(scope)).collect()
    }

    /// All kinds that can be made.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.by_kind.keys()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_kind.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn a_kind_has_one_provider() {
        let memory = || Arc::new(Memory::new()) as Arc<dyn Provider>;
        let registry = Registry::new(vec![memory()]).unwrap();
        let kind = Kind::new("memory/object").unwrap();
        assert!(registry.for_kind(&kind).is_some());
        assert!(registry.for_kind(&Kind::new("machine/file").unwrap()).is_none());
        assert_eq!(Registry::new(vec![memory(), memory()]).unwrap_err(), Ambiguous { kind });
    }
}
