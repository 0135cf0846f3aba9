//! The outputs of a resource: what a provider says of it once it is there.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::ids::OutputName;

/// The outputs of a resource, by name.
///
/// Most resources have one to three, and a state holds tens of thousands of these: a sorted list is a tenth of a tree's node.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Outputs(Vec<(OutputName, Value)>);

impl Outputs {
    /// No outputs.
    pub fn new() -> Self {
        Self::default()
    }

    /// One output.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.position(name).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether there is an output of that name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    /// Puts an output there, and gives the value that stood in its place.
    pub fn insert(&mut self, name: OutputName, value: Value) -> Option<Value> {
        match self.position(name.as_str()) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (name, value));
                None
            }
        }
    }

    /// Takes all outputs away.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OutputName, &Value)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Their names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &OutputName> {
        self.0.iter().map(|(name, _)| name)
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(found, _)| found.as_str().cmp(name))
    }
}

/// Panics when there is no output of that name, as a map does.
impl std::ops::Index<&str> for Outputs {
    type Output = Value;
    fn index(&self, name: &str) -> &Value {
        self.get(name).expect("the caller knows that the output is there")
    }
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl FromIterator<(OutputName, Value)> for Outputs {
    fn from_iter<I: IntoIterator<Item = (OutputName, Value)>>(all: I) -> Self {
        let mut outputs = Self::new();
        outputs.extend(all);
        outputs
    }
}

impl Extend<(OutputName, Value)> for Outputs {
    fn extend<I: IntoIterator<Item = (OutputName, Value)>>(&mut self, all: I) {
        for (name, value) in all {
            self.insert(name, value);
        }
    }
}

impl<const N: usize> From<[(OutputName, Value); N]> for Outputs {
    fn from(all: [(OutputName, Value); N]) -> Self {
        all.into_iter().collect()
    }
}

impl IntoIterator for Outputs {
    type Item = (OutputName, Value);
    type IntoIter = std::vec::IntoIter<(OutputName, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Serialize for Outputs {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Outputs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Outputs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of outputs")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outputs, A::Error> {
                let mut outputs = Outputs::new();
                while let Some((name, value)) = map.next_entry()? {
                    outputs.insert(name, value);
                }
                Ok(outputs)
            }
        }
        from.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn outputs_stand_by_name_and_the_last_value_counts() {
        let outputs: Outputs = serde_json::from_str(r#"{"port":1,"id":"x","port":2}"#).unwrap();
        assert_eq!(serde_json::to_string(&outputs).unwrap(), r#"{"id":"x","port":2}"#);
        assert_eq!((outputs.get("port"), outputs.get("log")), (Some(&json!(2)), None));
        assert!(serde_json::from_str::<Outputs>(r#"{"No":1}"#).is_err());
    }
}
