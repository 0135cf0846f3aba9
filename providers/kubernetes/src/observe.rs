//! Looking at everything at once: a list for each kind, and a try for what is not as it was seen to be last.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use serde_json::Value;
use state::ids::{Kind, ResourceName};
use state::observation::Observation;
use state::resource::{Origin, Outputs, Resource};

use providers::{Observed, Orphan, Scope, Wanted};

use crate::health::{Health, health};
use crate::object::{self, KIND, ORIGIN, Object, ObjectId, Owner};
use crate::record::Record;
use crate::send;
use crate::server::{ApiKind, Server, Trouble};
use crate::sight::{self, One, Sight};
use crate::spec::{self, Manifest};
use crate::{Hindrance, Settled, Site, chain};

/// How many kinds are listed at a time.
const LISTS: usize = 8;
/// How many resources are looked at at a time.
const LOOKS: usize = 16;

/// A wanted resource, taken along.
pub(crate) struct Asked {
    pub(crate) name: ResourceName,
    kind: Kind,
    origin: Origin,
    carried: bool,
    resource: Option<Resource>,
}

impl Asked {
    pub(crate) fn new(scope: &Scope, wanted: &Wanted<'_>) -> Self {
        Self {
            name: wanted.name.clone(),
            kind: wanted.kind.clone(),
            origin: Origin::of(&scope.channel, wanted.name, wanted.origin),
            carried: wanted.origin.is_some(),
            resource: wanted.resource.cloned(),
        }
    }
}

/// A resource to look at, and what is known of it before.
struct Case<'a> {
    asked: &'a Asked,
    /// What it asks for; none: only whether it is there matters.
    manifest: Option<Result<Manifest, String>>,
    record: Option<Record>,
    /// It was in sync at the last look, and neither of these was read.
    was_settled: bool,
}

impl<'a> Case<'a> {
    fn new(site: &Site, scope: &Scope, asked: &'a Asked) -> Result<Self, Hindrance> {
        let read = |resource: &Resource| spec::read(&site.config, resource, &asked.origin).map_err(|invalid| invalid.to_string());
        Ok(Self {
            asked,
            manifest: asked.resource.as_ref().map(read),
            record: site.record(scope, &asked.name)?,
            was_settled: false,
        })
    }
}

/// What the lists gave.
#[derive(Default)]
struct World {
    /// The kinds, by apiVersion and kind; none: the server has no such kind.
    kinds: BTreeMap<(String, String), Result<Option<ApiKind>, String>>,
    /// The scope's objects.
    live: BTreeMap<ObjectId, Arc<Value>>,
    /// Which of them are a resource's, as their labels say.
    made_for: BTreeMap<ResourceName, Vec<ObjectId>>,
    /// Why objects of a kind can't be seen, by group and kind.
    unseen: BTreeMap<(String, String), String>,
}

impl World {
    fn kind(&self, id: &ObjectId) -> Result<Option<&ApiKind>, String> {
        match self.kinds.get(&(id.api_version(), id.kind.clone())) {
            Some(Ok(kind)) => Ok(kind.as_ref()),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("{} was not asked for", id.kind)),
        }
    }

    fn unseen(&self, id: &ObjectId) -> Option<&String> {
        self.unseen.get(&(id.group.clone(), id.kind.clone()))
    }
}

/// Looks at all wanted resources, and for owned objects that none of them names.
pub(crate) async fn observe(site: &Site, scope: &Scope, asked: &[Asked]) -> Result<Observed, Hindrance> {
    let server = site.server().await?;
    if !site.watches.is_empty() {
        // A watch of a server that hangs says nothing, as one of a quiet server does.
        server.answers().await?;
    }
    {
        let mut memory = site.memory();
        memory.deletions = site.config.deletions;
        memory.seen.retain(|(of, _), _| of != scope);
    }
    let known = site.records(scope, |records| Ok(records.known))?;
    let mut cases = Vec::with_capacity(asked.len());
    for one in asked {
        // What was in sync is read only when one of its objects has changed.
        let was_settled = one.resource.is_some() && {
            let memory = site.memory();
            let settled = memory.settled.get(&(scope.clone(), one.name.clone()));
            settled.is_some_and(|settled| one.resource.as_ref() == Some(&settled.resource))
        };
        cases.push(match was_settled {
            true => Case {
                asked: one,
                manifest: None,
                record: None,
                was_settled,
            },
            false => Case::new(site, scope, one)?,
        });
    }
    let world = look(site, server, scope, &cases, known).await?;
    let mut observed = Observed::default();
    // The futures are made first: a stream of closures over references is more than the compiler can tell apart.
    let each: Vec<_> = cases.iter().map(|case| see(site, server, scope, &world, case)).collect();
    let mut looks = futures::stream::iter(each).buffer_unordered(LOOKS);
    let mut records = Vec::new();
    while let Some((name, observation, record)) = looks.next().await {
        records.push((name.clone(), record));
        observed.resources.insert(name, observation);
    }
    drop(looks);
    // A part of the truth is no reason to call anything unwanted.
    if world.unseen.is_empty() {
        let wanted: BTreeSet<&ResourceName> = asked.iter().map(|one| &one.name).collect();
        let (orphans, found) = orphans(site, scope, &world, &wanted)?;
        observed.orphans = orphans;
        records.extend(found.into_iter().map(|(name, record)| (name, Some(record))));
    }
    site.records(scope, |all| {
        for (name, record) in records {
            match record {
                Some(record) if record.objects.is_empty() => all.remove(&name)?,
                Some(record) => all.put(&name, record)?,
                None => {}
            }
        }
        if !all.known && world.unseen.is_empty() {
            all.set_known()?;
        }
        Ok(())
    })?;
    Ok(observed)
}

/// Asks which kinds there are, and lists the scope's objects of those that matter. Where nobody remembers what was made, those of all.
async fn look(site: &Site, server: &Arc<Server>, scope: &Scope, cases: &[Case<'_>], known: bool) -> Result<World, Hindrance> {
    let mut ids: BTreeSet<ObjectId> = site.records(scope, |records| Ok(records.objects().cloned().collect()))?;
    let manifests = cases.iter().filter_map(|case| case.manifest.as_ref()?.as_ref().ok());
    ids.extend(manifests.flat_map(|manifest| manifest.objects.iter().map(|object| object.id.clone())));
    let mut world = World::default();
    let mut namespaces: BTreeSet<String> = site.config.namespaces.iter().filter(|name| !name.ends_with('*')).cloned().collect();
    for id in &ids {
        namespaces.extend(id.namespace.clone());
        let key = (id.api_version(), id.kind.clone());
        if let Entry::Vacant(place) = world.kinds.entry(key) {
            place.insert(server.kind(id).await.map_err(|trouble| chain(&trouble)));
        }
    }
    for ((api_version, kind), found) in &world.kinds {
        if let Err(why) = found {
            let group = api_version.split_once('/').map_or("", |(group, _)| group);
            world.unseen.insert((group.to_owned(), kind.clone()), why.clone());
        }
    }
    let needed: BTreeSet<ApiKind> = world.kinds.values().filter_map(|kind| kind.clone().ok().flatten()).collect();
    let mut all = needed.clone();
    if !known {
        let preferred = server.all_kinds().await?;
        let is_needed = |kind: &ApiKind| needed.iter().any(|one| (&one.group, &one.kind) == (&kind.group, &kind.kind));
        all.extend(preferred.into_iter().filter(|kind| !is_needed(kind)));
    }
    let each: Vec<_> = all.into_iter().map(|kind| list(site, server, scope, kind, &namespaces)).collect();
    let mut lists = futures::stream::iter(each).buffer_unordered(LISTS);
    while let Some((kind, found)) = lists.next().await {
        match found {
            Ok(found) => world.live.extend(found),
            // Its definition went, and with it everything of the kind: it is asked for again.
            Err(trouble) if trouble.code() == Some(404) => server.forget_kinds(),
            // What Charter may not list it can't have made.
            Err(trouble) if !needed.contains(&kind) && matches!(trouble.code(), Some(403 | 405)) => {}
            Err(trouble) => {
                world.unseen.insert((kind.group, kind.kind), chain(&trouble));
            }
        }
    }
    for (id, live) in &world.live {
        if let Some(name) = object::made_for(live, scope) {
            world.made_for.entry(name).or_default().push(id.clone());
        }
    }
    Ok(world)
}

/// What a list gives.
type Listed = Vec<(ObjectId, Arc<Value>)>;

/// Lists the scope's objects of one kind: everywhere, or where that isn't allowed in each namespace that matters.
async fn list(
    site: &Site,
    server: &Arc<Server>,
    scope: &Scope,
    kind: ApiKind,
    namespaces: &BTreeSet<String>,
) -> (ApiKind, Result<Listed, Trouble>) {
    let found = list_one(site, server, scope, &kind, namespaces).await;
    (kind, found)
}

async fn list_one(
    site: &Site,
    server: &Arc<Server>,
    scope: &Scope,
    kind: &ApiKind,
    namespaces: &BTreeSet<String>,
) -> Result<Listed, Trouble> {
    let selector = object::selector(scope.channel.as_str(), &scope.member);
    let key = (kind.group.clone(), kind.kind.clone());
    let narrow = site.memory().narrow.contains(&key);
    if !narrow {
        match site.watches.list(server, kind, None, &selector).await {
            Err(trouble) if trouble.code() == Some(403) && kind.namespaced => {
                site.memory().narrow.insert(key);
            }
            found => return found,
        }
    }
    let mut all = Vec::new();
    for namespace in namespaces {
        all.extend(site.watches.list(server, kind, Some(namespace), &selector).await?);
    }
    Ok(all)
}

/// Sees one resource, and says what is to be remembered of it.
async fn see(
    site: &Site,
    server: &Arc<Server>,
    scope: &Scope,
    world: &World,
    case: &Case<'_>,
) -> (ResourceName, Observation, Option<Record>) {
    let read;
    let mut case = case;
    if case.was_settled {
        if let Some(observation) = settled(site, scope, world, case) {
            return (case.asked.name.clone(), observation, None);
        }
        match Case::new(site, scope, case.asked) {
            Ok(fresh) => read = fresh,
            Err(hindrance) => {
                let why = chain(&hindrance);
                return (case.asked.name.clone(), Observation::Unknown { why }, None);
            }
        }
        case = &read;
    }
    let found = match &case.manifest {
        None => there(world, case),
        Some(Err(why)) => Err(why.clone()),
        Some(Ok(manifest)) => match &case.asked.resource {
            Some(resource) => differs(site, server, scope, world, case, resource, manifest).await,
            None => there(world, case),
        },
    };
    let (observation, record) = found.unwrap_or_else(|why| (Observation::Unknown { why }, None));
    (case.asked.name.clone(), observation, record)
}

/// Everything that is live for a resource, by its labels.
fn labelled<'a>(world: &'a World, name: &ResourceName) -> impl Iterator<Item = &'a ObjectId> {
    world.made_for.get(name).into_iter().flatten()
}

/// Whether anything is there of what is going.
fn there(world: &World, case: &Case<'_>) -> Result<(Observation, Option<Record>), String> {
    let recorded = case.record.iter().flat_map(|record| &record.objects);
    if let Some(why) = recorded.clone().find_map(|id| world.unseen(id)) {
        return Err(why.clone());
    }
    let live: BTreeSet<ObjectId> = labelled(world, &case.asked.name).cloned().collect();
    let record = case.record.clone().map(|mut record| {
        record.objects = live.clone();
        record
    });
    let observation = match live.is_empty() {
        true => Observation::Absent,
        false => Observation::Present {
            external: case.asked.origin.to_string(),
            owned: true,
            outputs: Outputs::new(),
            drift: Vec::new(),
            replace: None,
            blocked: None,
        },
    };
    Ok((observation, record))
}

async fn differs(
    site: &Site,
    server: &Arc<Server>,
    scope: &Scope,
    world: &World,
    case: &Case<'_>,
    resource: &Resource,
    manifest: &Manifest,
) -> Result<(Observation, Option<Record>), String> {
    let external = case.asked.origin.to_string();
    let record = case.record.clone();
    let mut sight = Sight::default();
    let mut wanted = BTreeSet::new();
    for object in &manifest.objects {
        let at = place(&case.asked.kind, object);
        let Some(kind) = world.kind(&object.id)? else {
            // Its definition may be among what is made first.
            sight.drift.push(send::existence(at, Some(&object.id), None));
            continue;
        };
        if let Some(why) = world.unseen(&object.id) {
            return Err(why.clone());
        }
        let sent = send::sent(site, scope, resource, object, kind).map_err(|hindrance| chain(&hindrance))?;
        wanted.insert(sent.id.clone());
        let live = match world.live.get(&sent.id) {
            Some(live) => Some(Cow::Borrowed(&**live)),
            None => server.get(kind, &sent.id).await.map_err(|trouble| chain(&trouble))?.map(Cow::Owned),
        };
        let Some(live) = live else {
            sight.drift.push(send::existence(at, Some(&sent.id), None));
            site.memory().seen.insert((scope.clone(), sent.id), None);
            continue;
        };
        sight.any = true;
        let owner = object::owner(&live, scope, &case.asked.name);
        match &owner {
            Owner::Ours => {}
            Owner::Anothers(by) if case.asked.carried => sight.held = Some(by.clone()),
            Owner::Anothers(_) | Owner::Nobody => sight.foreign = true,
        }
        let one = One {
            server,
            kind,
            object,
            sent,
            owner: &owner,
            at: &at,
        };
        let live = match one.compare(&live, record.as_ref(), &mut sight).await? {
            Some(newer) => Cow::Owned(newer),
            None => live,
        };
        if !sight.clean.contains(&object.index)
            && let Some(id) = ObjectId::of(&live)
        {
            site.memory().seen.insert((scope.clone(), id), Some(live.clone().into_owned()));
        }
        if let Health::Waits(why) = health(&live) {
            sight.waits.get_or_insert(format!("{}: {why}", object.id));
        }
        if manifest.outputs.values().any(|(index, _)| *index == object.index) {
            sight.live.insert(object.index, live.into_owned());
        }
    }
    for id in labelled(world, &case.asked.name).filter(|id| !wanted.contains(*id)) {
        sight.any = true;
        sight
            .drift
            .push(send::existence(format!("/leftovers/{}/{}", id.kind, id.name), None, Some(id)));
    }
    let record = remembered(world, case, record, &sight);
    let observation = observation(external, manifest, sight);
    settle(site, scope, world, case, resource, &observation);
    Ok((observation, record))
}

/// What was in sync stays so while it is asked for just as it was, and none of its objects has changed.
fn settled(site: &Site, scope: &Scope, world: &World, case: &Case<'_>) -> Option<Observation> {
    let memory = site.memory();
    let settled = memory.settled.get(&(scope.clone(), case.asked.name.clone()))?;
    let unchanged = |(id, version): &(ObjectId, String)| {
        let live = world.live.get(id);
        live.is_some_and(|live| sight::version(live) == version)
    };
    let as_many = world.made_for.get(&case.asked.name).map_or(0, Vec::len) == settled.objects.len();
    (as_many && settled.objects.iter().all(unchanged)).then(|| settled.observation.clone())
}

/// Remembers what is in sync, but for what holds secrets: those may change where no server tells.
fn settle(site: &Site, scope: &Scope, world: &World, case: &Case<'_>, resource: &Resource, observation: &Observation) {
    let key = (scope.clone(), case.asked.name.clone());
    if !observation.in_sync() || !resource.spec.secrets().is_empty() {
        site.memory().settled.remove(&key);
        return;
    }
    let objects = labelled(world, &case.asked.name).filter_map(|id| {
        let live = world.live.get(id)?;
        Some((id.clone(), sight::version(live).to_owned()))
    });
    let settled = Settled {
        resource: resource.clone(),
        objects: objects.collect(),
        observation: observation.clone(),
    };
    site.memory().settled.insert(key, settled);
}

/// Where an object stands in its specification.
fn place(kind: &Kind, object: &Object) -> String {
    match kind.name() {
        "namespace" => String::new(),
        _ => format!("/objects/{}", object.index),
    }
}

fn observation(external: String, manifest: &Manifest, sight: Sight) -> Observation {
    if let Some(by) = sight.held {
        let why = providers::still_held(&by);
        return Observation::Pending { external, why };
    }
    if !sight.any {
        return Observation::Absent;
    }
    if let Some(why) = sight.waits.filter(|_| sight.drift.is_empty() && !sight.foreign) {
        return Observation::Pending { external, why };
    }
    Observation::Present {
        external,
        owned: !sight.foreign,
        outputs: send::outputs(manifest, |index| sight.live.get(&index)),
        drift: sight.drift,
        replace: sight.replace,
        blocked: sight.blocked,
    }
}

/// What is to be remembered of a resource after a look at it.
fn remembered(world: &World, case: &Case<'_>, record: Option<Record>, sight: &Sight) -> Option<Record> {
    let live = labelled(world, &case.asked.name).cloned();
    match record {
        Some(mut record) => {
            record.objects.extend(live);
            record.sent = sight.sent.clone();
            Some(record)
        }
        None => {
            let objects: BTreeSet<ObjectId> = live.collect();
            if objects.is_empty() {
                return None;
            }
            let mut record = Record::new().ok()?;
            record.objects = objects;
            Some(record)
        }
    }
}

/// Owned objects that no wanted resource names.
fn orphans(
    site: &Site,
    scope: &Scope,
    world: &World,
    wanted: &BTreeSet<&ResourceName>,
) -> Result<(Vec<Orphan>, BTreeMap<ResourceName, Record>), Hindrance> {
    let mut orphans = Vec::new();
    let mut records = BTreeMap::new();
    for (name, ids) in world.made_for.iter().filter(|(name, _)| !wanted.contains(name)) {
        let first = ids.first().and_then(|id| world.live.get(id)).map(|live| &**live);
        let said = |key: &str| first.and_then(|live| object::annotation(live, key));
        orphans.push(Orphan {
            name: name.clone(),
            kind: said(KIND)
                .and_then(|kind| Kind::new(kind).ok())
                .unwrap_or_else(|| spec::kind("manifest")),
            external: match said(ORIGIN) {
                Some(origin) => origin.to_owned(),
                None => Origin::of(&scope.channel, name, None).to_string(),
            },
            on_retire: first.map(object::on_retire).unwrap_or_default(),
        });
        let mut record = match site.record(scope, name)? {
            Some(record) => record,
            None => Record::new()?,
        };
        record.objects.extend(ids.iter().cloned());
        records.insert(name.clone(), record);
    }
    Ok((orphans, records))
}
