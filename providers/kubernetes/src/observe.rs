//! Looking at everything at once: at what the lists give, with a try for what is not as it was seen to be last.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use serde_json::Value;
use state::errors::chain;
use state::ids::{Kind, ResourceName};
use state::observation::Observation;
use state::resource::{Origin, Outputs, Resource};

use providers::{Observed, Orphan, Scope, Wanted};

use crate::health::{Health, health};
use crate::live::Live;
use crate::object::{self, Object, ObjectId, Owner};
use crate::record::Record;
use crate::send;
use crate::server::{ApiKind, Server};
use crate::sight::{One, Sight};
use crate::spec::{self, Manifest};
use crate::world::{self, Wants, World};
use crate::{Hindrance, Seen, Settled, Site};

/// How many resources are looked at at a time.
const LOOKS: usize = 16;

/// A resource to look at. What it asks for is read when it is its turn: all of it at once would take many times its text.
struct Case {
    name: ResourceName,
    kind: Kind,
    origin: Origin,
    carried: bool,
    /// None: only whether it is there matters.
    resource: Option<Resource>,
}

impl Case {
    fn new(scope: &Scope, wanted: &Wanted<'_>) -> Self {
        Self {
            name: wanted.name.clone(),
            kind: wanted.kind.clone(),
            origin: Origin::of(&scope.channel, wanted.name, wanted.origin),
            carried: wanted.origin.is_some(),
            resource: wanted.resource.cloned(),
        }
    }

    fn manifest(&self, site: &Site) -> Option<Result<Manifest, String>> {
        let resource = self.resource.as_ref()?;
        Some(spec::read(&site.config, resource, &self.origin).map_err(|invalid| invalid.to_string()))
    }
}

/// Looks at all wanted resources, and for owned objects that none of them names.
pub(crate) async fn observe(site: &Site, scope: &Scope, wanted: &[Wanted<'_>]) -> Result<Observed, Hindrance> {
    let server = site.server().await?;
    if !site.watches.reads() {
        // A watch of a server that hangs says nothing, as one of a quiet server does.
        server.answers().await?;
    }
    let happened = site.watches.happened(scope);
    {
        let mut memory = site.memory();
        memory.deletions = site.config.deletions;
        memory.seen.retain(|(of, _), _| of != scope);
        for name in &happened {
            memory.settled.remove(&(scope.clone(), name.clone()));
        }
    }
    // What was in sync is read only when it is asked for otherwise, or something happened to it.
    let mut cases = Vec::new();
    let mut as_before = Vec::new();
    for one in wanted {
        match is_as_before(site, scope, one) {
            true => as_before.push(one),
            false => cases.push(Case::new(scope, one)),
        }
    }
    let mut wants = Wants::default();
    for manifest in cases.iter().filter_map(|case| case.manifest(site)?.ok()) {
        manifest.objects.iter().for_each(|object| wants.places.add(&object.id));
        wants.whole.extend(manifest.giving().cloned());
    }
    let world = world::look(site, server, scope, wants).await?;
    let mut observed = Observed::default();
    for one in as_before {
        match settled(site, scope, &world, one.name) {
            Some(observation) => {
                observed.resources.insert(one.name.clone(), observation);
            }
            None => cases.push(Case::new(scope, one)),
        }
    }
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
    if world.is_whole() {
        let wanted: BTreeSet<&ResourceName> = wanted.iter().map(|one| one.name).collect();
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
        if !all.known && world.is_whole() {
            all.set_known()?;
        }
        Ok(())
    })?;
    Ok(observed)
}

/// Sees one resource, and says what is to be remembered of it.
async fn see(site: &Site, server: &Server, scope: &Scope, world: &World, case: &Case) -> (ResourceName, Observation, Option<Record>) {
    let found = match site.record(scope, &case.name) {
        Err(error) => Err(chain(&error)),
        Ok(record) => match (case.manifest(site), &case.resource) {
            (Some(Err(why)), _) => Err(why),
            (Some(Ok(manifest)), Some(resource)) => differs(site, server, scope, world, case, resource, &manifest, record).await,
            _ => there(world, case, record),
        },
    };
    let (observation, record) = found.unwrap_or_else(|why| (Observation::Unknown { why }, None));
    (case.name.clone(), observation, record)
}

/// Whether anything is there of what is going.
fn there(world: &World, case: &Case, record: Option<Record>) -> Result<(Observation, Option<Record>), String> {
    let recorded = record.iter().flat_map(|record| &record.objects);
    if let Some(why) = recorded.clone().find_map(|id| world.unseen(id)) {
        return Err(why.clone());
    }
    let live = world.made_for(&case.name);
    let record = record.map(|mut record| {
        record.objects = live.clone();
        record
    });
    let observation = match live.is_empty() {
        true => Observation::Absent,
        false => Observation::Present {
            external: case.origin.to_string(),
            owned: true,
            outputs: Outputs::new(),
            drift: Vec::new(),
            replace: None,
            blocked: None,
        },
    };
    Ok((observation, record))
}

#[allow(clippy::too_many_arguments, reason = "each is one thing that a look at a resource needs")]
async fn differs(
    site: &Site,
    server: &Server,
    scope: &Scope,
    world: &World,
    case: &Case,
    resource: &Resource,
    manifest: &Manifest,
    record: Option<Record>,
) -> Result<(Observation, Option<Record>), String> {
    let external = case.origin.to_string();
    let mut sight = Sight::default();
    let mut wanted = BTreeSet::new();
    for object in &manifest.objects {
        let at = place(&case.kind, object);
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
        let id = sent.id.clone();
        let one = One::new(server, kind, object, sent, &at, record.as_ref());
        let held = world.held(&id);
        let gives = manifest.giving().any(|one| *one == object.id);
        if let Some(held) = held.as_ref().filter(|held| held.made_for.as_ref() == Some(&case.name))
            && one.was_clean(&held.version, &mut sight)
        {
            if let Health::Waits(why) = &held.health {
                sight.waits.get_or_insert(format!("{}: {why}", object.id));
            }
            if gives {
                let whole = whole(server, kind, &id, Some(held)).await?;
                sight.live.insert(object.index, whole.ok_or_else(|| went(object))?);
            }
            continue;
        }
        let Some(mut live) = whole(server, kind, &id, held.as_ref()).await? else {
            sight.drift.push(send::existence(at, Some(&id), None));
            site.memory().seen.insert((scope.clone(), id), Seen::Nothing);
            continue;
        };
        sight.any = true;
        let owner = object::owner(&live, scope, &case.name);
        match &owner {
            Owner::Ours => {}
            Owner::Anothers(by) if case.carried => sight.held = Some(by.clone()),
            Owner::Anothers(_) | Owner::Nobody => sight.foreign = true,
        }
        if let Some(newer) = one.compare(&live, &owner, &mut sight).await? {
            live = newer;
        }
        if !sight.clean.contains(&object.index) {
            site.memory().seen.insert((scope.clone(), id), Seen::This(live.to_string().into()));
        }
        if let Health::Waits(why) = health(&live) {
            sight.waits.get_or_insert(format!("{}: {why}", object.id));
        }
        if gives {
            sight.live.insert(object.index, live);
        }
    }
    let labelled = world.made_for(&case.name);
    for id in labelled.difference(&wanted) {
        sight.any = true;
        sight
            .drift
            .push(send::existence(format!("/leftovers/{}/{}", id.kind, id.name), None, Some(id)));
    }
    let record = remembered(&labelled, record, &sight);
    let observation = observation(external, manifest, sight);
    settle(site, scope, world, labelled, resource, &observation);
    Ok((observation, record))
}

fn went(object: &Object) -> String {
    format!("{} went while it was looked at", object.id)
}

/// A whole object: as it is held, or read.
async fn whole(server: &Server, kind: &ApiKind, id: &ObjectId, held: Option<&Live>) -> Result<Option<Value>, String> {
    match held.and_then(Live::whole) {
        Some(whole) => Ok(Some(whole)),
        None => server.get(kind, id).await.map_err(|trouble| chain(&trouble)),
    }
}

/// Whether a resource was in sync when it was looked at last, and is asked for just as it was then.
fn is_as_before(site: &Site, scope: &Scope, wanted: &Wanted<'_>) -> bool {
    let memory = site.memory();
    let settled = memory.settled.get(&(scope.clone(), wanted.name.clone()));
    settled.is_some_and(|settled| wanted.resource == Some(&settled.resource))
}

/// How a resource was seen that was in sync, if none of its objects has changed since.
fn settled(site: &Site, scope: &Scope, world: &World, name: &ResourceName) -> Option<Observation> {
    let memory = site.memory();
    let settled = memory.settled.get(&(scope.clone(), name.clone()))?;
    let unchanged = || {
        let same = |(id, version): &(ObjectId, Box<str>)| world.version(id).as_ref() == Some(version);
        world.made_for(name).len() == settled.objects.len() && settled.objects.iter().all(same)
    };
    // What happens to objects that are watched is told.
    (world.kept || unchanged()).then(|| settled.observation.clone())
}

/// Remembers what is in sync, but for what holds secrets: those may change where no server tells.
fn settle(site: &Site, scope: &Scope, world: &World, labelled: BTreeSet<ObjectId>, resource: &Resource, observation: &Observation) {
    let key = (scope.clone(), resource.name.clone());
    if !observation.in_sync() || !resource.spec.secrets().is_empty() {
        site.memory().settled.remove(&key);
        return;
    }
    let mut objects = Vec::with_capacity(labelled.len());
    for id in labelled {
        let Some(version) = world.version(&id) else { continue };
        world.thin(&id, &version);
        objects.push((id, version));
    }
    let settled = Settled {
        resource: resource.clone(),
        objects,
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
fn remembered(labelled: &BTreeSet<ObjectId>, record: Option<Record>, sight: &Sight) -> Option<Record> {
    match record {
        Some(mut record) => {
            record.objects.extend(labelled.iter().cloned());
            record.sent = sight.sent.clone();
            Some(record)
        }
        None if labelled.is_empty() => None,
        None => {
            let mut record = Record::new().ok()?;
            record.objects.clone_from(labelled);
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
    for (name, ids) in world.others(wanted) {
        let first = ids.first().and_then(|id| world.held(id));
        let said = |text: fn(&Live) -> Option<&str>| first.as_ref().and_then(text);
        orphans.push(Orphan {
            name: name.clone(),
            kind: said(|live| live.kind.as_deref())
                .and_then(|kind| Kind::new(kind).ok())
                .unwrap_or_else(|| spec::kind("manifest")),
            external: match said(|live| live.origin.as_deref()) {
                Some(origin) => origin.to_owned(),
                None => Origin::of(&scope.channel, &name, None).to_string(),
            },
            on_retire: first.map(|live| live.on_retire).unwrap_or_default(),
        });
        let mut record = match site.record(scope, &name)? {
            Some(record) => record,
            None => Record::new()?,
        };
        record.objects.extend(ids);
        records.insert(name, record);
    }
    Ok((orphans, records))
}
