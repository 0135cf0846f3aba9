//! What is held of live objects: whose each is, its version and its health. Whole, as text, is held only what is to be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use state::ids::ResourceName;
use state::resource::OnRetire;

use providers::Scope;

use crate::health::{Health, health};
use crate::object::{self, KIND, ORIGIN, ObjectId};
use crate::server::slim;

/// The version of an object, as the server names it.
pub(crate) fn version(object: &Value) -> &str {
    object
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A version as a number: of one object, and of all of a kind, later ones are greater.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or_default()
}

/// What is held of one object.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) version: Box<str>,
    /// The resource of the list's scope that it was made for, as its labels say.
    pub(crate) made_for: Option<ResourceName>,
    pub(crate) health: Health,
    pub(crate) on_retire: OnRetire,
    /// The resource's kind and external name, as its annotations say.
    pub(crate) kind: Option<Box<str>>,
    pub(crate) origin: Option<Box<str>>,
    text: Option<Box<str>>,
}

impl Live {
    fn of(mut object: Value, scope: &Scope, whole: bool) -> Self {
        let annotation = |key: &str| object::annotation(&object, key).map(Box::from);
        let mut live = Self {
            version: version(&object).into(),
            made_for: object::made_for(&object, scope),
            health: health(&object),
            on_retire: object::on_retire(&object),
            kind: annotation(KIND),
            origin: annotation(ORIGIN),
            text: None,
        };
        // What others have made of our labels is never compared.
        if whole && live.made_for.is_some() {
            slim(&mut object);
            live.text = Some(object.to_string().into());
        }
        live
    }

    /// The whole object, where it is held.
    pub(crate) fn whole(&self) -> Option<Value> {
        serde_json::from_str(self.text.as_deref()?).ok()
    }
}

/// The objects of one kind that a scope has, everywhere or in one namespace.
#[derive(Debug)]
pub(crate) struct List {
    scope: Scope,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    objects: BTreeMap<ObjectId, Live>,
    made_for: BTreeMap<ResourceName, Vec<ObjectId>>,
}

impl All {
    fn take_off(&mut self, id: &ObjectId) -> Option<ResourceName> {
        let name = self.objects.remove(id)?.made_for?;
        if let Some(ids) = self.made_for.get_mut(&name) {
            ids.retain(|one| one != id);
            if ids.is_empty() {
                self.made_for.remove(&name);
            }
        }
        Some(name)
    }
}

impl List {
    pub(crate) fn new(scope: Scope) -> Self {
        Self {
            scope,
            all: Mutex::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a state of an object, unless it is there already, or a later one. Says which resources it is news for.
    pub(crate) fn put(&self, object: Value, whole: impl FnOnce(&ObjectId, &str) -> bool) -> BTreeSet<ResourceName> {
        let Some(id) = ObjectId::of(&object) else {
            return BTreeSet::new();
        };
        let mut all = self.all();
        let new = number(version(&object));
        if all.objects.get(&id).is_some_and(|present| number(&present.version) >= new) {
            return BTreeSet::new();
        }
        let whole = whole(&id, version(&object));
        let live = Live::of(object, &self.scope, whole);
        let mut news: BTreeSet<ResourceName> = all.take_off(&id).into_iter().collect();
        if let Some(name) = &live.made_for {
            all.made_for.entry(name.clone()).or_default().push(id.clone());
            news.insert(name.clone());
        }
        all.objects.insert(id, live);
        news
    }

    /// Takes the end of an object, unless it is there again.
    pub(crate) fn remove(&self, object: &Value) -> BTreeSet<ResourceName> {
        let gone = ObjectId::of(object).filter(|id| {
            let all = self.all();
            all.objects
                .get(id)
                .is_some_and(|present| number(&present.version) <= number(version(object)))
        });
        gone.and_then(|id| self.all().take_off(&id)).into_iter().collect()
    }

    /// What is held of an object.
    pub(crate) fn held(&self, id: &ObjectId) -> Option<Live> {
        self.all().objects.get(id).cloned()
    }

    pub(crate) fn version(&self, id: &ObjectId) -> Option<Box<str>> {
        self.all().objects.get(id).map(|live| live.version.clone())
    }

    /// The objects that are a resource's, as their labels say.
    pub(crate) fn made_for(&self, name: &ResourceName) -> Vec<ObjectId> {
        self.all().made_for.get(name).cloned().unwrap_or_default()
    }

    /// Those of resources that are not among these.
    pub(crate) fn others(&self, wanted: &BTreeSet<&ResourceName>) -> Vec<(ResourceName, Vec<ObjectId>)> {
        let all = self.all();
        let others = all.made_for.iter().filter(|(name, _)| !wanted.contains(name));
        others.map(|(name, ids)| (name.clone(), ids.clone())).collect()
    }

    /// Lets go of what nobody asks for any more while this version is there.
    pub(crate) fn thin(&self, id: &ObjectId, version: &str) {
        if let Some(live) = self.all().objects.get_mut(id)
            && *live.version == *version
        {
            live.text = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, version: u64, resource: Option<&str>) -> Value {
        let mut object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": name, "namespace": "air", "resourceVersion": version.to_string(),
                "managedFields": [{ "manager": "charter", "operation": "Apply", "fieldsV1": { "f:data": {} } }],
            },
            "data": { "a": "1" },
        });
        if let Some(resource) = resource {
            object["metadata"]["labels"] =
                json!({ "charter.dao/channel": "ch", "charter.dao/member": "city", "charter.dao/resource": resource });
        }
        object
    }

    #[test]
    fn a_list_knows_the_latest_of_each_and_whose_it_is() {
        let list = List::new(Scope::new("ch".parse().unwrap(), "city".parse().unwrap()));
        let name = |name: &str| ResourceName::new(name).unwrap();
        let put = |version, resource| list.put(object("x", version, resource), |_, _| true);
        let id = ObjectId::of(&object("x", 1, None)).unwrap();
        assert_eq!(put(5, Some("web")), [name("web")].into());
        // What is older or the same is no news, whatever it says.
        assert!(put(5, Some("other")).is_empty() && put(4, Some("other")).is_empty());
        assert_eq!(list.made_for(&name("web")), std::slice::from_ref(&id));
        // What changes hands is news for both.
        assert_eq!(put(6, Some("other")), [name("other"), name("web")].into());
        assert!(list.made_for(&name("web")).is_empty());
        assert_eq!(list.others(&[&name("web")].into()), [(name("other"), vec![id.clone()])]);
        // What a version is held for is held while it is that one.
        list.thin(&id, "5");
        assert_eq!(list.held(&id).unwrap().whole().unwrap()["data"]["a"], "1");
        list.thin(&id, "6");
        assert!(list.held(&id).unwrap().whole().is_none());
        assert!(list.remove(&object("x", 5, None)).is_empty());
        assert_eq!(list.remove(&object("x", 7, None)), [name("other")].into());
        assert!(list.held(&id).is_none() && list.others(&BTreeSet::new()).is_empty());
    }
}
