//! Whose an interface's address is: no two domains of a host may have the same.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::Hindrance;
use crate::wire::Seen;

/// The domain of each address, as the last look at everything saw it and as it was made since.
#[derive(Debug, Default)]
pub(crate) struct Macs(Mutex<BTreeMap<String, String>>);

impl Macs {
    /// Whether nothing is known yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes what a look at everything has seen.
    pub(crate) fn keep(&self, seen: &Seen) {
        let mut all = BTreeMap::new();
        for domain in &seen.domains {
            for mac in of(&domain.inactive) {
                all.insert(mac, domain.name.clone());
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Gives addresses to a domain, if no other has one of them.
    pub(crate) fn take<'a>(&self, domain: &str, macs: impl Iterator<Item = &'a str>) -> Result<(), Hindrance> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for mac in macs {
            match all.get(mac) {
                Some(other) if other != domain => {
                    return Err(Hindrance::Mac {
                        mac: mac.to_owned(),
                        other: other.clone(),
                    });
                }
                _ => all.insert(mac.to_owned(), domain.to_owned()),
            };
        }
        Ok(())
    }
}

/// The addresses of a definition's interfaces, as the daemon writes them: read in passing, for there may be many definitions.
fn of(definition: &str) -> impl Iterator<Item = String> {
    let rest = definition.split("<mac address='").skip(1);
    rest.filter_map(|rest| rest.split('\'').next()).map(str::to_ascii_lowercase)
}
