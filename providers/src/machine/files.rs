//! `machine/directory` and `machine/file`.

use serde_json::Value;
use state::canonical::Digest;
use state::ids::ResourceName;
use state::observation::{FieldDrift, Observation};
use state::resource::{Outputs, Resource};

use super::path::{Below, OWN, PathError};
use super::record::{self, Record, Stage, Thing};
use super::spec::Typed;
use super::tree::{FOLDER_MODE, Found, TreeError};
use super::{Hindrance, Site, failed, output};
use crate::fields::{Text, literal};
use crate::{Applied, Deleted, Invalid, ProviderError, Scope};

/// The most of a changed file that is read to say what it is now.
const MAX_READ: u64 = 4 * 1024 * 1024;

/// What a specification asks for, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    path: Below,
    item: Item,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Directory { mode: u32 },
    File { content: String, mode: u32 },
}

impl Item {
    fn mode(&self) -> u32 {
        match self {
            Item::Directory { mode } | Item::File { mode, .. } => *mode,
        }
    }
}

/// Reads a folder that a specification names: the path that a directory gave, or one below the channel's folder.
pub(crate) fn folder(site: &Site, scope: &Scope, text: &str) -> Result<Below, PathError> {
    let channel = Below::channel(&scope.channel);
    if !text.starts_with('/') {
        let text = text.strip_suffix('/').unwrap_or(text);
        return text.split('/').try_fold(channel, |path, part| path.join(part));
    }
    let below = std::path::Path::new(text)
        .strip_prefix(site.tree.root())
        .map_err(|_| PathError::Outside)?;
    let path = Below::new(below.to_str().ok_or(PathError::Outside)?)?;
    if path.parts()[0] == scope.channel.as_str() || in_carried(site, scope, &path) {
        Ok(path)
    } else {
        Err(PathError::Outside)
    }
}

/// Whether a path lies in a directory that was carried to this channel.
fn in_carried(site: &Site, scope: &Scope, path: &Below) -> bool {
    let records = record::load_all(&site.tree, scope).unwrap_or_default();
    records.into_values().flatten().any(|record| match &record.thing {
        Thing::Directory { path: carried } => path.parts().starts_with(carried.parts()),
        Thing::File { .. } | Thing::Service(_) => false,
    })
}

/// Checks the directory that a specification names, as far as it is known before its channel is.
pub(crate) fn check(site: &Site, resource: &Resource, directory: Option<&Text>) -> Result<(), Invalid> {
    let Some(Text::Literal(text)) = directory else { return Ok(()) };
    let checked = match std::path::Path::new(text).strip_prefix(site.tree.root()) {
        Ok(below) => Below::new(&below.to_string_lossy()).map(drop),
        Err(_) if text.starts_with('/') => Err(PathError::Outside),
        Err(_) => Below::new(text.strip_suffix('/').unwrap_or(text)).map(drop),
    };
    checked.map_err(|error| Invalid::Spec {
        resource: resource.name.clone(),
        message: format!("directory: {error}"),
    })
}

/// Puts together what is to be made. All references have to be values by now.
pub(crate) fn target(site: &Site, scope: &Scope, resource: &Resource, typed: &Typed) -> Result<Target, Invalid> {
    let wrong = |message: String| Invalid::Spec {
        resource: resource.name.clone(),
        message,
    };
    let own = Below::resource(&super::origin(scope, resource));
    match typed {
        Typed::Directory(spec) => Ok(Target {
            path: own,
            item: Item::Directory { mode: spec.mode.0 },
        }),
        Typed::File(spec) => {
            let path = match &spec.directory {
                None => own,
                Some(directory) => {
                    let text = literal("directory", directory).map_err(wrong)?;
                    let name = spec.file_name.as_deref().unwrap_or(resource.name.as_str());
                    folder(site, scope, text)
                        .and_then(|folder| folder.join(name))
                        .map_err(|error| wrong(format!("directory: {error}")))?
                }
            };
            let content = literal("content", &spec.content).map_err(wrong)?.to_owned();
            let mode = spec.mode.0;
            Ok(Target {
                path,
                item: Item::File { content, mode },
            })
        }
        Typed::Service(_) => Err(wrong("a service is neither a file nor a directory".to_owned())),
    }
}

fn drift(path: &str, wanted: impl Into<Value>, found: impl Into<Value>) -> FieldDrift {
    FieldDrift {
        path: path.to_owned(),
        wanted: Some(wanted.into()),
        found: Some(found.into()),
    }
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

fn outputs(site: &Site, path: &Below, digest: Option<&Digest>) -> Outputs {
    let mut all = Outputs::from([output("path", site.tree.absolute(path).display().to_string())]);
    all.extend(digest.map(|digest| output("digest", digest.to_string())));
    all
}

/// Sees one file or directory, against its record and against what is wanted.
pub(crate) fn observe(site: &Site, external: String, record: Option<&Record>, target: Option<&Target>) -> Observation {
    match look(site, external, record, target) {
        Ok(observation) => observation,
        Err(error) => Observation::Unknown {
            why: state::errors::chain(&error),
        },
    }
}

fn look(site: &Site, external: String, record: Option<&Record>, target: Option<&Target>) -> Result<Observation, TreeError> {
    // Before its references are known nothing of ours can be there but what is recorded.
    let Some(path) = record.and_then(Record::path).or(target.map(|target| &target.path)) else {
        return Ok(Observation::Absent);
    };
    let Some(found) = site.tree.look(path)? else {
        return Ok(Observation::Absent);
    };
    let content = match found {
        Found::File { .. } => Some(content(site, path)?),
        _ => None,
    };
    let owned = match record {
        None => false,
        Some(record) => owns(site, record, path, content.as_ref())?,
    };
    let mut fields = Vec::new();
    let mut replace = None;
    if owned && record.is_some_and(|record| record.stage == Stage::Intended) {
        // Ours for as long as nobody touches it: applying makes that sure.
        fields.push(drift("/record", "made", "intended"));
    }
    if let Some(target) = target {
        if target.path != *path {
            fields.push(drift("/directory", target.path.to_string(), path.to_string()));
        }
        match differs(target, found, content.as_ref()) {
            Ok(more) => fields.extend(more),
            Err(kind) => {
                fields.push(kind);
                replace = (!owned).then(|| "something of another kind stands there".to_owned());
            }
        }
    }
    let digest = match record.map(|record| &record.thing) {
        Some(Thing::File { digest, .. }) => Some(digest),
        _ => content.as_ref().and_then(|content| content.as_ref().ok()),
    };
    Ok(Observation::Present {
        external,
        owned,
        outputs: outputs(site, path, digest),
        drift: fields,
        replace,
        blocked: None,
    })
}

/// The digest of a file, or its size in words when it is too large.
fn content(site: &Site, path: &Below) -> Result<Result<Digest, String>, TreeError> {
    let bytes = site.tree.read(path, MAX_READ)?;
    Ok(bytes
        .map(|bytes| Digest::of(&bytes))
        .ok_or_else(|| format!("more than {MAX_READ} bytes")))
}

/// Whether what stands at a recorded path is what the record is about. Before the first making was finished a stranger may have come first.
fn owns(site: &Site, record: &Record, path: &Below, content: Option<&Result<Digest, String>>) -> Result<bool, TreeError> {
    Ok(match (&record.thing, record.stage) {
        (_, Stage::Made) => true,
        (Thing::File { digest, .. }, _) => content.is_some_and(|found| found.as_ref() == Ok(digest)),
        (Thing::Directory { .. }, _) => content.is_none() && site.tree.list(path.parts())?.is_empty(),
        (Thing::Service(_), _) => false,
    })
}

/// The fields that differ; `Err` when it is something else altogether.
fn differs(target: &Target, found: Found, content: Option<&Result<Digest, String>>) -> Result<Vec<FieldDrift>, FieldDrift> {
    let kind = |found: &str| match &target.item {
        Item::Directory { .. } => drift("/type", "directory", found),
        Item::File { .. } => drift("/type", "file", found),
    };
    let mut fields = Vec::new();
    let mode = match (&target.item, found) {
        (Item::Directory { .. }, Found::Directory { mode }) => mode,
        (Item::File { content: wanted, .. }, Found::File { mode, .. }) => {
            let wanted = Digest::of(wanted.as_bytes());
            match content {
                Some(Ok(found)) if *found == wanted => {}
                Some(Ok(found)) => fields.push(drift("/content", wanted.to_string(), found.to_string())),
                Some(Err(size)) => fields.push(drift("/content", wanted.to_string(), size.as_str())),
                None => {}
            }
            mode
        }
        (_, Found::File { .. }) => return Err(kind("file")),
        (_, Found::Directory { .. }) => return Err(kind("directory")),
        (_, Found::Other) => return Err(kind("neither file nor directory")),
    };
    if mode != target.item.mode() {
        fields.push(drift("/mode", octal(target.item.mode()), octal(mode)));
    }
    Ok(fields)
}

fn temporary(name: &ResourceName) -> String {
    format!("{OWN}-{name}")
}

/// Makes or changes a file or a directory.
pub(crate) fn apply(
    site: &Site,
    scope: &Scope,
    resource: &Resource,
    record: Option<Record>,
    target: &Target,
) -> Result<Applied, ProviderError> {
    let external = super::origin(scope, resource).to_string();
    let tree = &site.tree;
    let record = match record {
        Some(record) if record.path() != Some(&target.path) => {
            // It moves: what was made at the old place goes first. The record still names the old place if this is cut off.
            match remove(site, scope, &record)? {
                Deleted::Gone => None,
                Deleted::Pending { why } => return Ok(Applied::Pending { external, why }),
            }
        }
        record => record,
    };
    let changed = |error: TreeError| failed("make", &external, error);
    tree.make_dirs(&target.path.parts()[..1], FOLDER_MODE).map_err(changed)?;
    match tree.dir(target.path.parent()) {
        Ok(_) => {}
        Err(error) if error.is_missing() => {
            let folder = target.path.parent().join("/");
            return Err(failed("make", &external, Hindrance::NoFolder(folder)));
        }
        Err(error) => return Err(changed(error)),
    }
    let found = tree.look(&target.path).map_err(changed)?;
    let content = match found {
        Some(Found::File { .. }) => Some(content(site, &target.path).map_err(changed)?),
        _ => None,
    };
    let owned = match &record {
        Some(record) => owns(site, record, &target.path, content.as_ref()).map_err(changed)?,
        None => false,
    };
    if let Some(found) = found {
        if !owned {
            if !crate::adopts(resource) {
                return Err(ProviderError::NotOwned {
                    external: target.path.to_string(),
                });
            }
            refuse_anothers(site, scope, resource, target)?;
        }
        if let Err(kind) = differs(target, found, content.as_ref()) {
            // Only the name of a file of ours can be taken back from a link, and never by following it.
            let replaceable = owned && found == Found::Other && matches!(target.item, Item::File { .. });
            if !replaceable {
                let found = kind.found.as_ref().and_then(Value::as_str).unwrap_or("something else").to_owned();
                let path = target.path.to_string();
                return Err(failed("make", &external, Hindrance::Occupied { path, found }));
            }
        }
    }
    let (thing, digest) = match &target.item {
        Item::Directory { .. } => (Thing::Directory { path: target.path.clone() }, None),
        Item::File { content, .. } => {
            let digest = Digest::of(content.as_bytes());
            let path = target.path.clone();
            (Thing::File { path, digest }, Some(digest))
        }
    };
    let mut intent = Record::intended(&resource.name, &resource.kind, external.clone(), resource.on_retire, thing);
    if owned && let Some(record) = &record {
        intent.stage = record.stage;
    }
    let saved = |error| failed("record", &external, error);
    if record.as_ref() != Some(&intent) {
        record::save(tree, scope, &intent).map_err(saved)?;
    }
    match (&target.item, found) {
        (Item::Directory { mode }, None) => tree.mkdir(&target.path, *mode),
        (item, Some(found)) if differs(target, found, content.as_ref()).is_ok_and(|fields| fields.iter().all(|f| f.path == "/mode")) => {
            match found {
                Found::File { mode, .. } | Found::Directory { mode } if mode != item.mode() => tree.chmod(&target.path, item.mode()),
                _ => Ok(()),
            }
        }
        (Item::File { content, mode }, _) => tree.write(&target.path, &temporary(&resource.name), content.as_bytes(), *mode),
        (Item::Directory { .. }, Some(_)) => Ok(()),
    }
    .map_err(changed)?;
    if intent.stage != Stage::Made {
        intent.stage = Stage::Made;
        record::save(tree, scope, &intent).map_err(saved)?;
    }
    Ok(Applied::Done {
        external,
        outputs: outputs(site, &target.path, digest.as_ref()),
    })
}

/// Refuses to adopt what another resource's record names.
fn refuse_anothers(site: &Site, scope: &Scope, resource: &Resource, target: &Target) -> Result<(), ProviderError> {
    let external = super::origin(scope, resource).to_string();
    let all = record::load_everywhere(&site.tree).map_err(|error| failed("adopt", &external, error))?;
    let other = all
        .into_iter()
        .find(|(holder, record)| record.path() == Some(&target.path) && (holder, &record.name) != (scope, &resource.name));
    match other {
        Some((_, record)) => {
            let (path, other) = (target.path.to_string(), record.external);
            Err(failed("adopt", &external, Hindrance::Anothers { path, other }))
        }
        None => Ok(()),
    }
}

/// Removes what a record is about, and the record.
pub(crate) fn remove(site: &Site, scope: &Scope, record: &Record) -> Result<Deleted, ProviderError> {
    let external = record.external.as_str();
    let tree = &site.tree;
    let trouble = |error: TreeError| failed("delete", external, error);
    let gone = match &record.thing {
        Thing::File { path, .. } => {
            let ours = match tree.look(path).map_err(trouble)? {
                Some(Found::File { .. }) => {
                    let found = content(site, path).map_err(trouble)?;
                    owns(site, record, path, Some(&found)).map_err(trouble)?
                }
                Some(Found::Directory { .. }) if record.stage == Stage::Made => {
                    let (path, found) = (path.to_string(), "directory".to_owned());
                    return Err(failed("delete", external, Hindrance::Occupied { path, found }));
                }
                Some(_) => false,
                None => true,
            };
            if ours {
                tree.remove_file(path, &temporary(&record.name)).map_err(trouble)?;
            }
            Deleted::Gone
        }
        Thing::Directory { path } => remove_directory(site, record, path)?,
        Thing::Service(_) => Deleted::Gone,
    };
    if gone == Deleted::Gone {
        record::forget(tree, scope, &record.name).map_err(trouble)?;
    }
    Ok(gone)
}

fn remove_directory(site: &Site, record: &Record, path: &Below) -> Result<Deleted, ProviderError> {
    let external = record.external.as_str();
    let trouble = |error: TreeError| failed("delete", external, error);
    match site.tree.look(path).map_err(trouble)? {
        None => return Ok(Deleted::Gone),
        Some(Found::Directory { .. }) => {}
        // Somebody put something else in its place: the directory is gone, and the rest is not ours.
        Some(_) => return Ok(Deleted::Gone),
    }
    match site.tree.remove_dir(path) {
        Ok(()) => return Ok(Deleted::Gone),
        Err(error) if error.is_not_empty() => {}
        Err(error) => return Err(trouble(error)),
    }
    if record.stage != Stage::Made {
        return Ok(Deleted::Gone);
    }
    let all = record::load_everywhere(&site.tree).map_err(trouble)?;
    let mut ours = None;
    for entry in site.tree.list(path.parts()).map_err(trouble)? {
        let here = path.parts().len();
        let holder = all.iter().find(|(_, other)| {
            other
                .path()
                .is_some_and(|other| other.parts().starts_with(path.parts()) && other.parts().get(here) == Some(&entry))
        });
        match holder {
            Some((_, other)) => ours = Some(other.external.clone()),
            None => {
                let path = path.to_string();
                return Err(failed("delete", external, Hindrance::Holds { path, entry }));
            }
        }
    }
    Ok(Deleted::Pending {
        why: match ours {
            Some(other) => format!("it still holds {other}"),
            None => "it was not empty a moment ago".to_owned(),
        },
    })
}
