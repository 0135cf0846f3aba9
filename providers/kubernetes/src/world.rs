//! What the lists give: the kinds that a server has, and a scope's objects of those that matter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use futures::StreamExt;
use state::errors::chain;
use state::ids::ResourceName;

use providers::Scope;

use crate::live::{List, Live};
use crate::object::ObjectId;
use crate::record::Places;
use crate::server::{ApiKind, Server, Trouble};
use crate::{Hindrance, Site};

/// How many kinds are listed at a time.
const LISTS: usize = 8;

/// What the lists gave.
#[derive(Default)]
pub(crate) struct World {
    /// The kinds, by apiVersion and kind; none: the server has no such kind.
    kinds: BTreeMap<(String, String), Result<Option<ApiKind>, String>>,
    /// The scope's objects, by group and kind.
    lists: BTreeMap<(String, String), Vec<Arc<List>>>,
    /// Why objects of a kind can't be seen, by group and kind.
    unseen: BTreeMap<(String, String), String>,
    /// Whether watches have kept all of it: what they have not told has not happened.
    pub(crate) kept: bool,
}

impl World {
    pub(crate) fn kind(&self, id: &ObjectId) -> Result<Option<&ApiKind>, String> {
        match self.kinds.get(&(id.api_version(), id.kind.clone())) {
            Some(Ok(kind)) => Ok(kind.as_ref()),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("{} was not asked for", id.kind)),
        }
    }

    /// Why an object can't be seen.
    pub(crate) fn unseen(&self, id: &ObjectId) -> Option<&String> {
        self.unseen.get(&(id.group.clone(), id.kind.clone()))
    }

    /// Whether everything was seen.
    pub(crate) fn is_whole(&self) -> bool {
        self.unseen.is_empty()
    }

    fn lists(&self, id: &ObjectId) -> &[Arc<List>] {
        self.lists.get(&(id.group.clone(), id.kind.clone())).map_or(&[], Vec::as_slice)
    }

    /// What is held of an object that the lists gave.
    pub(crate) fn held(&self, id: &ObjectId) -> Option<Live> {
        self.lists(id).iter().find_map(|list| list.held(id))
    }

    /// The version of an object that the lists gave.
    pub(crate) fn version(&self, id: &ObjectId) -> Option<Box<str>> {
        self.lists(id).iter().find_map(|list| list.version(id))
    }

    /// Lets go of what is held of an object beside what is asked of one that is in sync.
    pub(crate) fn thin(&self, id: &ObjectId, version: &str) {
        self.lists(id).iter().for_each(|list| list.thin(id, version));
    }

    /// Everything that is live for a resource, by its labels.
    pub(crate) fn made_for(&self, name: &ResourceName) -> BTreeSet<ObjectId> {
        self.lists.values().flatten().flat_map(|list| list.made_for(name)).collect()
    }

    /// What is live for resources that are not among these.
    pub(crate) fn others(&self, wanted: &BTreeSet<&ResourceName>) -> BTreeMap<ResourceName, BTreeSet<ObjectId>> {
        let mut others: BTreeMap<ResourceName, BTreeSet<ObjectId>> = BTreeMap::new();
        for (name, ids) in self.lists.values().flatten().flat_map(|list| list.others(wanted)) {
            others.entry(name).or_default().extend(ids);
        }
        others
    }
}

/// What a look asks for beside what is there already.
#[derive(Default)]
pub(crate) struct Wants {
    /// Where things will be.
    pub(crate) places: Places,
    /// Objects whose fields are read though they are in sync.
    pub(crate) whole: BTreeSet<ObjectId>,
}

/// Asks which kinds there are, and lists the scope's objects of those that matter: where they are, and where what is wanted will be.
/// Where nobody remembers what was made, those of all.
pub(crate) async fn look(site: &Site, server: &Server, scope: &Scope, wants: Wants) -> Result<World, Hindrance> {
    let (made, known) = site.records(scope, |records| Ok((records.places(), records.known)))?;
    let Wants { mut places, whole } = wants;
    places.kinds.extend(made.kinds.clone());
    places.namespaces.extend(made.namespaces.iter().cloned());
    let named = site.config.namespaces.iter().filter(|name| !name.ends_with('*'));
    places.namespaces.extend(named.cloned());
    let mut world = World {
        kept: true,
        ..World::default()
    };
    for (key, id) in &places.kinds {
        let found = server.kind(id).await.map_err(|trouble| chain(&trouble));
        if let Err(why) = &found {
            world.unseen.insert((id.group.clone(), id.kind.clone()), why.clone());
        }
        world.kinds.insert(key.clone(), found);
    }
    let needed: BTreeSet<ApiKind> = world.kinds.values().filter_map(|kind| kind.clone().ok().flatten()).collect();
    let mut all = needed.clone();
    if !known {
        let preferred = server.all_kinds().await?;
        let is_needed = |kind: &ApiKind| needed.iter().any(|one| (&one.group, &one.kind) == (&kind.group, &kind.kind));
        all.extend(preferred.into_iter().filter(|kind| !is_needed(kind)));
    }
    let lister = Lister {
        site,
        server,
        scope,
        namespaces: &places.namespaces,
        // Only what is listed asks for it.
        clean: LazyLock::new(Box::new(|| site.records(scope, |records| Ok(records.clean())).unwrap_or_default())),
        whole,
    };
    // The futures are made first: a stream of closures over references is more than the compiler can tell apart.
    let each: Vec<_> = all.into_iter().map(|kind| lister.list(kind)).collect();
    let mut lists = futures::stream::iter(each).buffer_unordered(LISTS);
    while let Some((kind, found)) = lists.next().await {
        match found {
            Ok(found) => {
                world.kept &= found.iter().all(|(_, kept)| *kept);
                let lists = found.into_iter().map(|(list, _)| list).collect();
                world.lists.insert((kind.group, kind.kind), lists);
                continue;
            }
            // Its definition went, and with it everything of the kind: it is asked for again.
            Err(trouble) if trouble.code() == Some(404) => server.forget_kinds(),
            // What Charter may not list it can't have made.
            Err(trouble) if !needed.contains(&kind) && matches!(trouble.code(), Some(403 | 405)) => {}
            Err(trouble) => {
                world.unseen.insert((kind.group, kind.kind), chain(&trouble));
            }
        }
        world.kept = false;
    }
    drop(lists);
    site.watches.keep(scope, &needed);
    Ok(world)
}

type Versions<'a> = LazyLock<std::collections::HashSet<String>, Box<dyn FnOnce() -> std::collections::HashSet<String> + Send + 'a>>;

/// Lists kinds for one look.
struct Lister<'a> {
    site: &'a Site,
    server: &'a Server,
    scope: &'a Scope,
    namespaces: &'a BTreeSet<String>,
    /// The versions that are known to be in sync.
    clean: Versions<'a>,
    whole: BTreeSet<ObjectId>,
}

/// Lists, and whether watches have kept each.
type Lists = Vec<(Arc<List>, bool)>;

impl Lister<'_> {
    /// Lists the scope's objects of one kind.
    async fn list(&self, kind: ApiKind) -> (ApiKind, Result<Lists, Trouble>) {
        let found = self.lists(&kind).await;
        (kind, found)
    }

    /// Everywhere, or where that isn't allowed in each namespace that matters.
    async fn lists(&self, kind: &ApiKind) -> Result<Lists, Trouble> {
        let key = (kind.group.clone(), kind.kind.clone());
        let narrow = self.site.memory().narrow.contains(&key);
        if !narrow {
            match self.one(kind, None).await {
                Err(trouble) if trouble.code() == Some(403) && kind.namespaced => {
                    self.site.memory().narrow.insert(key);
                }
                found => return Ok(vec![found?]),
            }
        }
        let mut all = Vec::new();
        for namespace in self.namespaces {
            all.push(self.one(kind, Some(namespace)).await?);
        }
        Ok(all)
    }

    async fn one(&self, kind: &ApiKind, namespace: Option<&str>) -> Result<(Arc<List>, bool), Trouble> {
        let whole = |id: &ObjectId, version: &str| !self.clean.contains(version) || self.whole.contains(id);
        self.site.watches.list(self.server, self.scope, kind, namespace, whole).await
    }
}
