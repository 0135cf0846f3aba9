//! Lists that are kept up to date by watches, for a service that looks again and again: a pass then reads nothing, and is woken.
//!
//! Every look keeps what it has listed; whoever waits for changes has it watched from there on. What a watch can't follow any more is
//! listed again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use kube::core::WatchEvent;
use providers::Scope;
use serde_json::Value;
use state::ids::ResourceName;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::live::{List, version};
use crate::object::{self, ObjectId};
use crate::server::{ApiKind, Server, Trouble};

/// How long a watch lasts at least: what ends sooner isn't begun again at once.
const SHORT: Duration = Duration::from_secs(1);

/// What a list is of: a scope, a kind, and a namespace where it isn't everywhere.
type Key = (Scope, ApiKind, Option<String>);

/// All lists that are kept.
pub(crate) struct Watches {
    /// Whether any is.
    on: bool,
    kept: Mutex<BTreeMap<Key, Arc<Kept>>>,
    news: Mutex<BTreeMap<Scope, Arc<News>>>,
}

/// What happened to a scope's objects.
#[derive(Default)]
struct News {
    /// The resources that something happened to since the last look.
    resources: Mutex<BTreeSet<ResourceName>>,
    rings: Notify,
}

impl News {
    fn take(&self, resources: BTreeSet<ResourceName>) {
        if !resources.is_empty() {
            locked(&self.resources).extend(resources);
            self.rings.notify_one();
        }
    }
}

/// A list, and what keeps it.
struct Kept {
    list: Arc<List>,
    /// From where it is to be followed.
    version: String,
    /// Whether it is as the server has it.
    alive: AtomicBool,
    task: Mutex<Option<AbortHandle>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            news: Mutex::default(),
        }
    }

    /// The objects of a kind, and whether a watch that is alive has kept them; else they are listed, whole where that is asked for.
    pub(crate) async fn list(
        &self,
        server: &Server,
        scope: &Scope,
        kind: &ApiKind,
        namespace: Option<&str>,
        whole: impl Fn(&ObjectId, &str) -> bool + Send + Sync,
    ) -> Result<(Arc<List>, bool), Trouble> {
        let key: Key = (scope.clone(), kind.clone(), namespace.map(str::to_owned));
        let kept = locked(&self.kept).get(&key).cloned();
        if let Some(kept) = kept.filter(|kept| kept.alive.load(Ordering::Acquire)) {
            return Ok((Arc::clone(&kept.list), true));
        }
        locked(&self.kept).remove(&key);
        let list = Arc::new(List::new(scope.clone()));
        let take = |object: Value| {
            list.put(object, &whole);
        };
        let version = server.list(kind, namespace, &object::selector(scope), take).await?;
        if self.on {
            let kept = Kept {
                list: Arc::clone(&list),
                version,
                alive: AtomicBool::new(false),
                task: Mutex::default(),
            };
            locked(&self.kept).insert(key, Arc::new(kept));
        }
        Ok((list, false))
    }

    /// Lets go of the lists of other kinds than these.
    pub(crate) fn keep(&self, scope: &Scope, kinds: &BTreeSet<ApiKind>) {
        locked(&self.kept).retain(|(of, kind, _), _| of != scope || kinds.contains(kind));
    }

    /// Whether a look reads something by itself, or only what watches have kept.
    pub(crate) fn reads(&self) -> bool {
        !locked(&self.kept).values().any(|kept| kept.alive.load(Ordering::Acquire))
    }

    fn news(&self, scope: &Scope) -> Arc<News> {
        Arc::clone(locked(&self.news).entry(scope.clone()).or_default())
    }

    /// The resources that something happened to since this was asked last.
    pub(crate) fn happened(&self, scope: &Scope) -> BTreeSet<ResourceName> {
        std::mem::take(&mut *locked(&self.news(scope).resources))
    }

    /// Has what was listed watched from there on, and waits until something happens to it.
    pub(crate) async fn changed(&self, server: &Arc<Server>, scope: &Scope) {
        let news = self.news(scope);
        for (key, kept) in locked(&self.kept).iter().filter(|((of, _, _), _)| of == scope) {
            let mut task = locked(&kept.task);
            if task.is_none() {
                kept.alive.store(true, Ordering::Release);
                let following = follow(
                    Arc::clone(server),
                    key.clone(),
                    kept.version.clone(),
                    Arc::downgrade(kept),
                    Arc::clone(&news),
                );
                *task = Some(tokio::spawn(following).abort_handle());
            }
        }
        news.rings.notified().await;
    }

    /// Takes what a call of ours has made of an object: the next look may be sooner than the watch.
    pub(crate) fn put(&self, scope: &Scope, kind: &ApiKind, object: &Value) {
        self.each(scope, kind, object, |list| list.put(object.clone(), |_, _| true));
    }

    /// Takes that an object was seen to be gone.
    pub(crate) fn gone(&self, scope: &Scope, kind: &ApiKind, object: &Value) {
        self.each(scope, kind, object, |list| list.remove(object));
    }

    fn each(&self, scope: &Scope, kind: &ApiKind, object: &Value, work: impl Fn(&List) -> BTreeSet<ResourceName>) {
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let news = self.news(scope);
        for ((of, what, place), kept) in locked(&self.kept).iter() {
            if of == scope && what == kind && place.as_deref().is_none_or(|place| Some(place) == namespace) {
                // Who does something knows of it, and is not woken.
                locked(&news.resources).extend(work(&kept.list));
            }
        }
    }
}

/// How a watch ended.
enum Ended {
    /// The server ends each now and then.
    Whole,
    /// It didn't begin: the account may not watch, or the server has something else to do.
    Refused(String),
    /// It can't be followed any further from where it stood.
    Broken(String),
}

/// Keeps a list up to date until nobody has it any more, or until the server has forgotten where it stood.
async fn follow(server: Arc<Server>, (scope, kind, namespace): Key, mut from: String, kept: Weak<Kept>, news: Arc<News>) {
    let selector = object::selector(&scope);
    let mut followed = false;
    loop {
        let began = Instant::now();
        let ended = turn(&server, &kind, namespace.as_deref(), &selector, &mut from, &kept, &news).await;
        let Some(list) = kept.upgrade() else { return };
        if let Ended::Refused(why) | Ended::Broken(why) = &ended {
            tracing::debug!(%kind, why, "a watch ended: its kind is listed again");
            list.alive.store(false, Ordering::Release);
        }
        drop(list);
        // Who is refused from the first looks at his interval, as if nothing were watched: he would be refused at once, again and again.
        if !followed && matches!(ended, Ended::Refused(_)) {
            return;
        }
        tokio::time::sleep_until(began + SHORT).await;
        if !matches!(ended, Ended::Whole) {
            news.rings.notify_one();
            return;
        }
        followed = true;
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
    news: &News,
) -> Ended {
    let events = match server.watch(kind, namespace, selector, from).await {
        Ok(events) => events,
        Err(trouble) => return Ended::Refused(state::errors::chain(&trouble)),
    };
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let Some(kept) = kept.upgrade() else { break };
        match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                version(&object).clone_into(from);
                news.take(kept.list.put(object, |_, _| true));
            }
            Ok(WatchEvent::Deleted(object)) => {
                version(&object).clone_into(from);
                news.take(kept.list.remove(&object));
            }
            Ok(WatchEvent::Bookmark(bookmark)) => *from = bookmark.metadata.resource_version,
            Ok(WatchEvent::Error(status)) => return Ended::Broken(status.message),
            Err(error) => return Ended::Broken(error.to_string()),
        }
    }
    Ended::Whole
}
