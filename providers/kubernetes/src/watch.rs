//! Lists that are kept up to date by watches, for a service that looks again and again: a pass then reads nothing.
//!
//! The first look of a process lists; the second lists and begins to watch. What a watch can't follow any more is listed again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::StreamExt;
use kube::core::WatchEvent;
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::object::ObjectId;
use crate::server::{ApiKind, Server, Trouble, slim};

/// What a list is of: a selector, a kind, and a namespace where it isn't everywhere.
type Key = (String, ApiKind, Option<String>);
type Objects = BTreeMap<ObjectId, Arc<Value>>;

/// All lists that are kept.
pub(crate) struct Watches {
    /// Whether any is.
    on: bool,
    kept: Mutex<BTreeMap<Key, Arc<Kept>>>,
    /// What was listed once.
    listed: Mutex<BTreeSet<Key>>,
}

/// A list and the watch that keeps it.
struct Kept {
    objects: Mutex<Objects>,
    alive: AtomicBool,
    task: Mutex<Option<AbortHandle>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The version of an object as a number: of one object, and of all of a kind, later ones are greater.
fn version(object: &Value) -> u64 {
    let text = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Kept {
    /// Takes a state of an object, unless a later one is there.
    fn put(&self, object: Value) {
        let Some(id) = ObjectId::of(&object) else { return };
        let mut objects = locked(&self.objects);
        if objects.get(&id).is_none_or(|present| version(present) <= version(&object)) {
            objects.insert(id, Arc::new(object));
        }
    }

    /// Takes the end of an object, unless it is there again.
    fn remove(&self, object: &Value) {
        let Some(id) = ObjectId::of(object) else { return };
        let mut objects = locked(&self.objects);
        if objects.get(&id).is_some_and(|present| version(present) <= version(object)) {
            objects.remove(&id);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.task).take() {
            task.abort();
        }
    }
}

impl Watches {
    pub(crate) fn new(on: bool) -> Self {
        Self {
            on,
            kept: Mutex::default(),
            listed: Mutex::default(),
        }
    }

    /// The objects of a kind: those of a watch that is alive, or listed anew.
    pub(crate) async fn list(
        &self,
        server: &Arc<Server>,
        kind: &ApiKind,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<(ObjectId, Arc<Value>)>, Trouble> {
        let key: Key = (selector.to_owned(), kind.clone(), namespace.map(str::to_owned));
        let kept = locked(&self.kept).get(&key).cloned();
        if let Some(kept) = kept.filter(|kept| kept.alive.load(Ordering::Acquire)) {
            let objects = locked(&kept.objects);
            return Ok(objects.iter().map(|(id, object)| (id.clone(), Arc::clone(object))).collect());
        }
        locked(&self.kept).remove(&key);
        let (found, version) = server.list(kind, namespace, selector).await?;
        let all: Objects = found
            .into_iter()
            .filter_map(|object| Some((ObjectId::of(&object)?, Arc::new(object))))
            .collect();
        if self.on && !locked(&self.listed).insert(key.clone()) {
            let kept = Arc::new(Kept {
                objects: Mutex::new(all.clone()),
                alive: AtomicBool::new(true),
                task: Mutex::new(None),
            });
            let task = tokio::spawn(follow(Arc::clone(server), key.clone(), version, Arc::downgrade(&kept)));
            *locked(&kept.task) = Some(task.abort_handle());
            locked(&self.kept).insert(key, kept);
        }
        Ok(all.into_iter().collect())
    }

    /// Whether a look reads something by itself, or only what watches have kept.
    pub(crate) fn is_empty(&self) -> bool {
        locked(&self.kept).is_empty()
    }

    /// Takes what a call of ours has made of an object: the next look may be sooner than the watch.
    pub(crate) fn put(&self, selector: &str, kind: &ApiKind, object: &Value) {
        self.each(selector, kind, object, |kept| {
            let mut object = object.clone();
            slim(&mut object);
            kept.put(object);
        });
    }

    /// Takes that an object was seen to be gone.
    pub(crate) fn gone(&self, selector: &str, kind: &ApiKind, object: &Value) {
        self.each(selector, kind, object, |kept| kept.remove(object));
    }

    fn each(&self, selector: &str, kind: &ApiKind, object: &Value, work: impl Fn(&Kept)) {
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        for ((of, what, place), kept) in locked(&self.kept).iter() {
            if of == selector && what == kind && place.as_deref().is_none_or(|place| Some(place) == namespace) {
                work(kept);
            }
        }
    }
}

/// Keeps a list up to date until nobody has it any more, or until the server has forgotten where it stood.
async fn follow(server: Arc<Server>, (selector, kind, namespace): Key, mut from: String, kept: Weak<Kept>) {
    loop {
        match turn(&server, &kind, namespace.as_deref(), &selector, &mut from, &kept).await {
            // The server ends a watch now and then.
            Ok(()) if kept.strong_count() > 0 => {}
            Ok(()) => return,
            Err(why) => {
                tracing::debug!(%kind, why, "a watch ended: its kind is listed again");
                if let Some(kept) = kept.upgrade() {
                    kept.alive.store(false, Ordering::Release);
                }
                return;
            }
        }
    }
}

/// One watch, from where the last one stood.
async fn turn(
    server: &Server,
    kind: &ApiKind,
    namespace: Option<&str>,
    selector: &str,
    from: &mut String,
    kept: &Weak<Kept>,
) -> Result<(), String> {
    let events = server
        .watch(kind, namespace, selector, from)
        .await
        .map_err(|trouble| crate::chain(&trouble))?;
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let Some(kept) = kept.upgrade() else { return Ok(()) };
        let event: WatchEvent<Value> = event.map_err(|error| error.to_string())?;
        match event {
            WatchEvent::Added(mut object) | WatchEvent::Modified(mut object) => {
                *from = version(&object).to_string();
                slim(&mut object);
                kept.put(object);
            }
            WatchEvent::Deleted(object) => {
                *from = version(&object).to_string();
                kept.remove(&object);
            }
            WatchEvent::Bookmark(bookmark) => *from = bookmark.metadata.resource_version,
            WatchEvent::Error(status) => return Err(status.message),
        }
    }
    Ok(())
}
