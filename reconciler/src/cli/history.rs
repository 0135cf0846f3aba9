//! `history`, `diff` and `graph`: what a store says of the past and of the shape of what was ordered.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::dot::{Config as DotConfig, Dot};
use petgraph::graph::DiGraph;
use serde::Serialize;
use serde_json::Value;
use state::acts::imports::ImportRecord;
use state::desired::DesiredState;
use state::git::{CommitId, CommitInfo, Store};
use state::ids::{Channel, Kind, MemberId, ResourceName};
use state::paths;
use state::resource::Resource;
use state::spec::pointer_token;
use state::time::Timestamp;

use super::error::{CliError, Doing, Exit};
use super::{Format, Global, output, targets};
use crate::config::Config;
use crate::view;

/// The most commits of one reference that one call shows.
const LIMIT: usize = 10_000;

#[derive(Serialize)]
struct Entry {
    time: Timestamp,
    said_on: &'static str,
    block: Option<u64>,
    tx: Option<String>,
    member: String,
    what: String,
    commit: CommitId,
}

impl Entry {
    fn new(said_on: &'static str, info: &CommitInfo) -> Self {
        Self {
            time: Timestamp::clamped(info.author.seconds),
            said_on,
            block: block(info),
            tx: info.trailer("Ledger-Tx").map(str::to_owned),
            member: info.author.name.clone(),
            what: info.title().to_owned(),
            commit: info.id,
        }
    }
}

/// Shows who ordered what, when: on every channel that the options name.
pub(crate) fn run(global: &Global, resource: Option<&ResourceName>) -> Result<Exit, CliError> {
    let mut all: BTreeMap<Channel, Vec<Entry>> = BTreeMap::new();
    for (channel, configs) in targets::by_channel(global)? {
        let Some(first) = targets::newest(&configs, &channel) else {
            continue;
        };
        let entries = match resource {
            None => {
                let store = targets::store(first)?;
                output::note(&format!(
                    "{channel}, as {} has it; the same as: git -C {} log desired/{channel}",
                    first.member,
                    store.path().display()
                ));
                match head(&store, &paths::desired_ref(&channel))? {
                    Some(commit) => log(&store, "desired", commit, None)?,
                    None => Vec::new(),
                }
            }
            Some(name) => of_resource(&configs, &channel, name)?,
        };
        if !entries.is_empty() || resource.is_none() {
            all.insert(channel, entries);
        }
    }
    if let (Some(name), true) = (resource, all.is_empty()) {
        return Err(CliError::new(format!("there never was a resource {name}")).next("charter status"));
    }
    if global.output == Format::Json {
        output::json(&all)?;
        return Ok(Exit::Clean);
    }
    let rows = all
        .iter()
        .flat_map(|(channel, entries)| entries.iter().map(move |entry| (channel, entry)))
        .map(|(channel, entry)| {
            vec![
                entry.time.to_string(),
                channel.to_string(),
                entry.said_on.to_owned(),
                entry.block.map_or_else(|| "-".into(), |block| block.to_string()),
                entry.member.clone(),
                entry.what.clone(),
                entry.commit.to_string().chars().take(10).collect(),
            ]
        });
    output::table(&["time", "channel", "ref", "block", "member", "what", "commit"], rows.collect());
    Ok(Exit::Clean)
}

fn head(store: &Store, reference: &str) -> Result<Option<CommitId>, CliError> {
    store.head(reference).doing(format!("cannot read {reference}"))
}

fn log(store: &Store, said_on: &'static str, commit: CommitId, path: Option<&str>) -> Result<Vec<Entry>, CliError> {
    // One more than is shown tells whether there are more.
    let infos = store.log(commit, path, LIMIT + 1).doing("cannot read the history")?;
    if infos.len() > LIMIT {
        output::note(&format!(
            "only the newest {LIMIT} commits of {said_on}/ are shown; all of them: git -C {} log {commit}{}",
            store.path().display(),
            path.map_or_else(String::new, |path| format!(" -- {path}"))
        ));
    }
    Ok(infos.iter().take(LIMIT).map(|info| Entry::new(said_on, info)).collect())
}

/// Finds the newest commit that fits, however far back it is. The references of a ledger are a straight line.
fn find(store: &Store, newest: CommitId, fits: impl Fn(&CommitInfo) -> bool) -> Result<Option<CommitId>, CliError> {
    let mut next = Some(newest);
    while let Some(id) = next {
        let info = store.commit(id).doing("cannot read the history")?;
        if fits(&info) {
            return Ok(Some(id));
        }
        next = info.parents.first().copied();
    }
    Ok(None)
}

/// Everything that the refs of a channel say of one resource, newest first: what was done is in its owner's store only.
fn of_resource(configs: &[Config], channel: &Channel, name: &ResourceName) -> Result<Vec<Entry>, CliError> {
    let Some(first) = targets::newest(configs, channel) else {
        return Ok(Vec::new());
    };
    let store = targets::store(first)?;
    let Some(desired_commit) = head(&store, &paths::desired_ref(channel))? else {
        return Ok(Vec::new());
    };
    let desired = view::desired(&store, channel, desired_commit).doing("cannot read the desired state")?;
    let Some(ordered) = desired.resources().get(name).or_else(|| desired.retired().get(name)) else {
        return Ok(Vec::new());
    };
    let kind: &Kind = &ordered.resource.kind;
    let owner: &MemberId = &ordered.resource.owner;
    let mut entries = log(&store, "desired", desired_commit, Some(&paths::resource("resources", kind, name)))?;
    if let Some(commit) = head(&store, &paths::reported_ref(channel))? {
        entries.extend(log(
            &store,
            "reported",
            commit,
            Some(&paths::named(&format!("members/{owner}/resources"), name)),
        )?);
    }
    if let Some(config) = configs.iter().find(|config| config.member == *owner) {
        let store = targets::store(config)?;
        if let Some(commit) = head(&store, &paths::actual_ref(channel))? {
            entries.extend(log(&store, "actual", commit, Some(&paths::named("inventory", name)))?);
        }
    }
    // Stable: what stands at one second keeps the order of cause and effect.
    let rank = |entry: &Entry| match entry.said_on {
        "desired" => 0,
        "actual" => 1,
        _ => 2,
    };
    entries.sort_by(|a, b| b.time.cmp(&a.time).then(rank(b).cmp(&rank(a))));
    Ok(entries)
}

/// A version to compare: a channel, a channel at a block, or a commit.
fn resolve(global: &Global, word: &str) -> Result<(String, DesiredState), CliError> {
    let (name, block) = match word.split_once('@') {
        Some((name, block)) => {
            let block: u64 = block
                .parse()
                .map_err(|_| CliError::new(format!("{word}: what follows '@' is not a block number")))?;
            (name, Some(block))
        }
        None => (word, None),
    };
    for (channel, configs) in &targets::by_channel(global)? {
        // Of several members' stores the one that has most: an older one would answer for what it doesn't know yet.
        let Some(config) = targets::newest(configs, channel) else {
            continue;
        };
        let store = targets::store(config)?;
        let Some(newest) = head(&store, &paths::desired_ref(channel))? else {
            continue;
        };
        let commit = if channel.as_str() == name {
            match block {
                None => Some(newest),
                Some(block) => at_block(&store, newest, block)?,
            }
        } else if block.is_none() && name.len() >= 7 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let start = name.to_ascii_lowercase();
            find(&store, newest, |info| info.id.to_string().starts_with(&start))?
        } else {
            None
        };
        if let Some(commit) = commit {
            let desired = view::desired(&store, channel, commit).doing(format!("cannot read {word}"))?;
            return Ok((word.to_owned(), desired));
        }
    }
    Err(CliError::new(format!("{word} is not known here"))
        .next("name a channel (smart-city-1), a channel at a block (smart-city-1@7), or a commit of a desired ref"))
}

/// The number of the block that a commit comes from.
pub(crate) fn block(info: &CommitInfo) -> Option<u64> {
    info.trailer("Ledger-Block")?.parse().ok()
}

fn at_block(store: &Store, newest: CommitId, block: u64) -> Result<Option<CommitId>, CliError> {
    find(store, newest, |info| self::block(info).is_some_and(|number| number <= block))
}

#[derive(Serialize)]
struct Difference {
    resource: String,
    change: &'static str,
    path: String,
    from: Option<Value>,
    to: Option<Value>,
}

/// Compares two versions.
pub(crate) fn diff(global: &Global, from: &str, to: &str) -> Result<Exit, CliError> {
    let (from, old) = resolve(global, from)?;
    let (to, new) = resolve(global, to)?;
    let mut found = Vec::new();
    let agreement = |state: &DesiredState| {
        state
            .agreement()
            .map(|record| serde_json::to_value(&record.agreement))
            .transpose()
            .doing("cannot compare the agreements")
    };
    compare("agreement", agreement(&old)?, agreement(&new)?, &mut found);
    let names: BTreeSet<&ResourceName> = old.resources().keys().chain(new.resources().keys()).collect();
    for name in names {
        let resource = |state: &DesiredState| {
            let present: Option<&Resource> = state.resources().get(name).map(|ordered| &ordered.resource);
            present.map(serde_json::to_value).transpose().doing("cannot compare the resources")
        };
        compare(name.as_str(), resource(&old)?, resource(&new)?, &mut found);
    }
    if global.output == Format::Json {
        output::json(&found)?;
    } else {
        for difference in &found {
            let value = |value: &Option<Value>| value.as_ref().map_or_else(|| "(none)".to_owned(), short);
            output::line(&match difference.change {
                "added" => format!("+ {}", difference.resource),
                "removed" => format!("- {}", difference.resource),
                _ => format!(
                    "~ {} {}: {} -> {}",
                    difference.resource,
                    output::plain(&difference.path),
                    value(&difference.from),
                    value(&difference.to)
                ),
            });
        }
        output::note(&format!("{} differences between {from} and {to}", found.len()));
    }
    Ok(if found.is_empty() { Exit::Clean } else { Exit::Difference })
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 {
        text
    } else {
        text.chars().take(77).chain("...".chars()).collect()
    }
}

fn compare(resource: &str, old: Option<Value>, new: Option<Value>, found: &mut Vec<Difference>) {
    let mut note = |change, path: String, from, to| {
        found.push(Difference {
            resource: resource.to_owned(),
            change,
            path,
            from,
            to,
        })
    };
    match (old, new) {
        (None, None) => {}
        (None, to @ Some(_)) => note("added", String::new(), None, to),
        (from @ Some(_), None) => note("removed", String::new(), from, None),
        (Some(old), Some(new)) => fields(String::new(), Some(&old), Some(&new), &mut |path, from, to| {
            note("changed", path, from.cloned(), to.cloned());
        }),
    }
}

/// Takes a field's path and what it was and is.
type Note<'a> = dyn FnMut(String, Option<&Value>, Option<&Value>) + 'a;

/// Names each field that differs, as a JSON pointer; lists are compared whole.
fn fields(path: String, old: Option<&Value>, new: Option<&Value>, note: &mut Note<'_>) {
    match (old, new) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                fields(format!("{path}/{}", pointer_token(key)), before.get(key), after.get(key), note);
            }
        }
        (before, after) if before != after => note(path, before, after),
        _ => {}
    }
}

/// What was imported, and stands in the graph.
fn imports(desired: &DesiredState) -> impl Iterator<Item = &ImportRecord> {
    let all = desired.records().all::<ImportRecord>();
    all.filter(|record| record.dropped.is_none())
}

/// Prints the dependency graph in DOT: an arrow from each resource to what it needs.
pub(crate) fn graph(global: &Global) -> Result<Exit, CliError> {
    let (config, channel) = targets::readable(global)?;
    let store = targets::store(&config)?;
    let commit = head(&store, &paths::desired_ref(&channel))?
        .ok_or_else(|| CliError::new(format!("nothing was ordered on {channel} yet")).next("charter submit FILE"))?;
    let desired = view::desired(&store, &channel, commit).doing("cannot read the desired state")?;
    if global.output == Format::Json {
        let imports = imports(&desired)
            .map(|record| serde_json::json!({ "resource": record.import.name, "kind": "import", "owner": record.voucher(), "needs": [] }));
        let edges: Vec<Value> = desired
            .resources()
            .values()
            .map(|ordered| serde_json::json!({ "resource": ordered.resource.name, "kind": ordered.resource.kind, "owner": ordered.resource.owner, "needs": ordered.resource.dependencies() }))
            .chain(imports)
            .collect();
        output::json(&edges)?;
        return Ok(Exit::Clean);
    }
    let mut graph: DiGraph<String, ()> = DiGraph::new();
    let mut nodes: BTreeMap<&ResourceName, _> = desired
        .resources()
        .values()
        .map(|ordered| {
            let resource = &ordered.resource;
            (
                &resource.name,
                graph.add_node(format!("{}\n{}\n{}", resource.name, resource.kind, resource.owner)),
            )
        })
        .collect();
    for record in imports(&desired) {
        let (import, from) = (&record.import, &record.import.from);
        let node = graph.add_node(format!(
            "{}\nfrom {}/{}\n{}",
            import.name,
            from.channel,
            from.resource,
            record.voucher()
        ));
        nodes.entry(&import.name).or_insert(node);
    }
    for ordered in desired.resources().values() {
        for on in ordered.resource.dependencies() {
            if let (Some(from), Some(to)) = (nodes.get(&ordered.resource.name), nodes.get(&on)) {
                graph.add_edge(*from, *to, ());
            }
        }
    }
    let dot = Dot::with_attr_getters(
        &graph,
        &[DotConfig::EdgeNoLabel, DotConfig::NodeNoLabel],
        &|_, _| String::new(),
        &|_, (_, label)| format!("shape=box label={label:?}"),
    );
    output::text(&format!("{dot:?}"));
    Ok(Exit::Clean)
}
