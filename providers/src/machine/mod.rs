//! The member's own machine: directories, files and long-running processes below one folder.
//!
//! Nothing is made outside of the configured root, no symbolic link is followed, and no program runs that the member's own
//! configuration doesn't name. A durable record is written before anything is made; it is the owner label. Processes also carry
//! theirs in their environment, so that one whose record was not written yet is found again.

mod config;
mod files;
mod path;
mod process;
mod record;
mod render;
mod service;
mod spec;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use state::errors::chain;
use state::ids::{Kind, OutputName, ResourceName};
use state::observation::{FieldDrift, Observation};
use state::resource::{Origin, Resource};
use tokio::task::JoinSet;

pub use self::config::{Command, ConfigError, MachineConfig};
use self::process::Processes;
use self::record::{Left, Record, RecordError, Stage, Thing};
use self::service::Probe;
use self::spec::{DirectorySpec, FileSpec, ServiceSpec, Typed, typed};
use self::tree::Tree;
pub(crate) use crate::failed;
use crate::{Applied, Deleted, Invalid, Observed, Orphan, Provider, ProviderError, Scope, Script, Wanted};

/// How many readiness probes run at a time.
const PROBES: usize = 16;

/// Makes `machine/directory`, `machine/file` and `machine/service` below one root.
#[derive(Clone, Debug)]
pub struct Machine {
    site: Arc<Site>,
}

/// The machine as every call sees it.
#[derive(Debug)]
pub(crate) struct Site {
    config: MachineConfig,
    tree: Tree,
    /// One change at a time: ports are chosen and records written under it.
    turn: Mutex<()>,
}

impl Site {
    /// Waits for this caller's turn. It is held by the thread that works, so dropping a future can't end it early.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why something can't be done right now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Hindrance {
    #[error("the folder {0} is not there: order a machine/directory for it and refer to its path, or correct directory")]
    NoFolder(String),
    #[error("at {path} stands a {found}: remove it")]
    Occupied { path: String, found: String },
    #[error("{path} belongs to {other}")]
    Anothers { path: String, other: String },
    #[error("{path} holds {entry:?}, which Charter did not make: move it away, or order the directory with on_retire: retain")]
    Holds { path: String, entry: String },
    #[error("it was made as {0}: it has to be deleted first")]
    OtherKind(Kind),
    #[error("port {0} is taken by another process: stop that, or order another port")]
    PortTaken(u16),
    #[error("no port is free")]
    NoPort,
    #[error("it ended {times} times right after its start; the next try is in {seconds} s; what it said is in {log}")]
    Quick { times: u32, seconds: u64, log: String },
    #[error(
        "process {0} runs, and its environment doesn't show the owner label: run Charter as the user that started it, or stop it by hand"
    )]
    Closed(i32),
    #[error("its work was cut off")]
    CutOff,
}

/// Where a resource of a scope was ordered first: its place on this machine, its labels and its external name come from that.
pub(crate) fn origin(scope: &Scope, resource: &Resource) -> Origin {
    resource.origin(&scope.channel)
}

/// The same of something that only its record, or what the inventory says of it, still knows.
fn origin_of_gone(scope: &Scope, name: &ResourceName, record: Option<&Record>, external: &str) -> Origin {
    let external = record.map_or(external, |record| record.external.as_str());
    external.parse().unwrap_or_else(|_| Origin::of(&scope.channel, name, None))
}

/// One output. The names are literals of this crate.
pub(crate) fn output(name: &'static str, value: impl Into<Value>) -> (OutputName, Value) {
    (
        OutputName::new(name).expect("a literal output name of this crate is valid"),
        value.into(),
    )
}

impl Machine {
    /// Takes a configuration. Nothing is made yet: a root that isn't there is an observation that can't be made, not an empty machine.
    pub fn new(config: MachineConfig) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        let tree = Tree::new(config.root.clone());
        let turn = Mutex::new(());
        Ok(Self {
            site: Arc::new(Site { config, tree, turn }),
        })
    }

    /// Makes the root. Only a person's word or an empty inventory is a reason: a root that vanished may be a disk that is not mounted.
    pub fn init_root(&self) -> Result<(), ConfigError> {
        self.site.tree.init().map_err(|source| ConfigError::Init {
            root: self.site.config.root.clone(),
            source: Box::new(source),
        })
    }

    /// Whether the root is there and was made for Charter.
    pub fn has_root(&self) -> bool {
        self.site.tree.check().is_ok()
    }

    /// The JSON schemas of the kinds' specifications.
    pub fn schemas() -> BTreeMap<Kind, Value> {
        BTreeMap::from([
            (kind("directory"), schemars::schema_for!(DirectorySpec).to_value()),
            (kind("file"), schemars::schema_for!(FileSpec).to_value()),
            (kind("service"), schemars::schema_for!(ServiceSpec).to_value()),
        ])
    }

    async fn change<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: String,
        work: impl FnOnce(&Site) -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let site = Arc::clone(&self.site);
        let external = name.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = site.turn();
            site.tree.check().map_err(|error| failed(operation, &name, error))?;
            work(&site)
        });
        done.await.unwrap_or_else(|_| Err(failed(operation, &external, Hindrance::CutOff)))
    }
}

fn kind(name: &str) -> Kind {
    Kind::new(format!("machine/{name}")).expect("a literal kind of this crate is valid")
}

/// A wanted resource, taken along to another thread.
struct Asked {
    name: ResourceName,
    kind: Kind,
    origin: Origin,
    /// Whether it was carried to this channel.
    carried: bool,
    resource: Option<Resource>,
}

/// What looking once at everything gave: some services still have to be asked whether they are ready.
#[derive(Default)]
struct Seen {
    observed: Observed,
    probes: Vec<(ResourceName, Probe)>,
}

/// Looks at everything once: one pass over the records, one over the processes.
fn look(site: &Site, scope: &Scope, asked: &[Asked]) -> Seen {
    let unknown = |why: &str| Seen {
        observed: Observed::unknown(asked.iter().map(|asked| asked.name.clone()), why),
        probes: Vec::new(),
    };
    if let Err(error) = site.tree.check() {
        return unknown(&chain(&error));
    }
    let records = match record::load_all(&site.tree, scope) {
        Ok(records) => records,
        Err(error) => return unknown(&chain(&error)),
    };
    let arriving = |asked: &&Asked| asked.carried && !records.contains_key(&asked.name);
    let everywhere = match asked.iter().find(arriving) {
        Some(_) => record::load_everywhere(&site.tree),
        None => Ok(Vec::new()),
    };
    let everywhere = match everywhere {
        Ok(everywhere) => everywhere,
        Err(error) => return unknown(&chain(&error)),
    };
    let processes = Processes::scan(site.tree.root()).map_err(|error| format!("the processes can't be listed: {error}"));
    let mut seen = Seen::default();
    for asked in asked {
        let observation = match records.get(&asked.name) {
            Some(Err(error)) => Observation::Unknown { why: chain(error) },
            Some(Ok(record)) => see(site, scope, asked, Some(record), processes.as_ref(), &mut seen.probes),
            None if asked.carried => match record::left(&everywhere, scope, &asked.name, &asked.origin) {
                Left::Held(by) => Observation::Pending {
                    external: asked.origin.to_string(),
                    why: crate::still_held(&by),
                },
                Left::Released(record) => see(site, scope, asked, record, processes.as_ref(), &mut seen.probes),
            },
            None => see(site, scope, asked, None, processes.as_ref(), &mut seen.probes),
        };
        seen.observed.resources.insert(asked.name.clone(), observation);
    }
    let wanted: BTreeSet<&ResourceName> = asked.iter().map(|asked| &asked.name).collect();
    seen.observed.orphans = orphans(site, scope, &records, processes.as_ref().ok(), &wanted);
    seen
}

fn see(
    site: &Site,
    scope: &Scope,
    asked: &Asked,
    record: Option<&Record>,
    processes: Result<&Processes, &String>,
    probes: &mut Vec<(ResourceName, Probe)>,
) -> Observation {
    let external = asked.origin.to_string();
    if let Some(record) = record
        && record.kind != asked.kind
        && record.stage != Stage::Released
    {
        return Observation::Present {
            external,
            owned: true,
            outputs: state::resource::Outputs::new(),
            drift: vec![FieldDrift {
                path: "/kind".to_owned(),
                wanted: Some(asked.kind.as_str().into()),
                found: Some(record.kind.as_str().into()),
            }],
            replace: Some(format!("it was made as {}", record.kind)),
            blocked: None,
        };
    }
    // What the kind or the configuration doesn't allow is refused by `validate`; whether it is there can be seen all the same.
    let typed = asked.resource.as_ref().and_then(|resource| Some((resource, typed(resource).ok()?)));
    if asked.kind.name() != "service" {
        let target = typed.and_then(|(resource, typed)| files::target(site, scope, resource, &typed).ok());
        return files::observe(site, external, record, target.as_ref());
    }
    let plan = match typed {
        Some((resource, Typed::Service(spec))) => service::plan(site, scope, resource, &spec).ok(),
        _ => None,
    };
    match processes {
        Err(why) => Observation::Unknown { why: why.clone() },
        Ok(processes) => {
            let (observation, probe) = service::observe(site, scope, &asked.origin, record, processes, plan.as_ref());
            probes.extend(probe.map(|probe| (asked.name.clone(), probe)));
            observation
        }
    }
}

fn orphans(
    site: &Site,
    scope: &Scope,
    records: &BTreeMap<ResourceName, Result<Record, RecordError>>,
    processes: Option<&Processes>,
    wanted: &BTreeSet<&ResourceName>,
) -> Vec<Orphan> {
    let mut all = BTreeMap::new();
    for (name, record) in records {
        match record {
            Ok(record) if record.stage != Stage::Released && !wanted.contains(name) => {
                let orphan = Orphan {
                    name: name.clone(),
                    kind: record.kind.clone(),
                    external: record.external.clone(),
                    on_retire: record.on_retire,
                };
                all.insert(name.clone(), orphan);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(resource = %name, error = chain(error), "a record can't be read"),
        }
    }
    for process in processes.map_or(&[][..], Processes::labelled) {
        let Some(name) = process::owned_by(scope, &process.label.owner) else {
            continue;
        };
        if wanted.contains(&name) || records.contains_key(&name) {
            continue;
        }
        // What was carried from here is another channel's, whatever its label says; what can't be told is left alone.
        let origin = Origin::of(&scope.channel, &name, None);
        let held = record::load_everywhere(&site.tree).map(|all| matches!(record::left(&all, scope, &name, &origin), Left::Held(_)));
        if held.unwrap_or(true) {
            continue;
        }
        let orphan = Orphan {
            external: origin.to_string(),
            kind: kind("service"),
            on_retire: process.label.on_retire,
            name: name.clone(),
        };
        all.insert(name, orphan);
    }
    all.into_values().collect()
}

#[async_trait]
impl Provider for Machine {
    fn kinds(&self) -> Vec<Kind> {
        ["directory", "file", "service"].map(kind).to_vec()
    }

    fn validate(&self, resource: &Resource) -> Result<(), Invalid> {
        match typed(resource)? {
            Typed::Directory(_) => Ok(()),
            Typed::File(spec) => files::check(&self.site, resource, spec.directory.as_ref()),
            Typed::Service(spec) => {
                service::check(&self.site.config, resource, &spec)?;
                files::check(&self.site, resource, spec.directory.as_ref())
            }
        }
    }

    fn external(&self, scope: &Scope, resource: &Resource) -> String {
        origin(scope, resource).to_string()
    }

    fn render(&self, scope: &Scope, resource: &Resource) -> Result<Vec<Script>, Invalid> {
        self.validate(resource)?;
        let typed = typed(resource)?;
        Ok(vec![render::script(&self.site, scope, resource, &typed)?])
    }

    async fn observe(&self, scope: &Scope, wanted: &[Wanted<'_>]) -> Observed {
        let asked: Vec<Asked> = wanted
            .iter()
            .map(|wanted| Asked {
                name: wanted.name.clone(),
                kind: wanted.kind.clone(),
                origin: Origin::of(&scope.channel, wanted.name, wanted.origin),
                carried: wanted.origin.is_some(),
                resource: wanted.resource.cloned(),
            })
            .collect();
        let names: BTreeMap<ResourceName, Origin> = asked.iter().map(|asked| (asked.name.clone(), asked.origin.clone())).collect();
        let (site, for_scope) = (Arc::clone(&self.site), scope.clone());
        let Ok(mut seen) = tokio::task::spawn_blocking(move || look(&site, &for_scope, &asked)).await else {
            return Observed::unknown(names.into_keys(), &chain(&Hindrance::CutOff));
        };
        let mut running = JoinSet::new();
        let mut probes = seen.probes.into_iter();
        loop {
            while running.len() < PROBES
                && let Some((name, probe)) = probes.next()
            {
                running.spawn(async move { (name, probe.ask().await) });
            }
            match running.join_next().await {
                None => break,
                Some(Ok((name, Err(why)))) => {
                    let external = names.get(&name).map(ToString::to_string).unwrap_or_default();
                    seen.observed.resources.insert(name, Observation::Pending { external, why });
                }
                Some(_) => {}
            }
        }
        seen.observed
    }

    async fn apply(&self, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
        let (for_scope, of) = (scope.clone(), resource.clone());
        let made = self
            .change("make", origin(scope, resource).to_string(), move |site| make(site, &for_scope, &of))
            .await?;
        match made {
            Made::Applied(applied) => Ok(applied),
            Made::Running { external, outputs, probe } => match probe {
                None => Ok(Applied::Done { external, outputs }),
                Some(probe) => Ok(match probe.ask().await {
                    Ok(()) => Applied::Done { external, outputs },
                    Err(why) => Applied::Pending { external, why },
                }),
            },
        }
    }

    async fn delete(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
        let (for_scope, of, was) = (scope.clone(), name.clone(), external.to_owned());
        let work = move |site: &Site| {
            let record = record::load(&site.tree, &for_scope, &of).map_err(|error| failed("delete", &was, error))?;
            match record {
                Some(record) if !matches!(record.thing, Thing::Service(_)) => files::remove(site, &for_scope, &record),
                record => {
                    let origin = origin_of_gone(&for_scope, &of, record.as_ref(), &was);
                    service::delete(site, &for_scope, &of, &origin, record)
                }
            }
        };
        self.change("delete", external.to_owned(), work).await
    }

    async fn release(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
        let (for_scope, of, was) = (scope.clone(), name.clone(), external.to_owned());
        let work = move |site: &Site| {
            let record = record::load(&site.tree, &for_scope, &of).map_err(|error| failed("release", &was, error))?;
            match record {
                Some(record) if !matches!(record.thing, Thing::Service(_)) => {
                    record::forget(&site.tree, &for_scope, &of).map_err(|error| failed("release", &was, error))
                }
                record => {
                    let origin = origin_of_gone(&for_scope, &of, record.as_ref(), &was);
                    service::release(site, &for_scope, &of, &origin, record)
                }
            }
        };
        self.change("release", external.to_owned(), work).await
    }
}

/// What making gave.
pub(crate) enum Made {
    /// It is finished for this pass.
    Applied(Applied),
    /// A process runs, and may have to be asked whether it is ready.
    Running {
        external: String,
        outputs: state::resource::Outputs,
        probe: Option<Probe>,
    },
}

fn make(site: &Site, scope: &Scope, resource: &Resource) -> Result<Made, ProviderError> {
    let origin = origin(scope, resource);
    let external = origin.to_string();
    let typed = typed(resource)?;
    let mut record = record::load(&site.tree, scope, &resource.name).map_err(|error| failed("make", &external, error))?;
    if record.as_ref().is_none_or(|record| record.stage == Stage::Released) && crate::adopts(resource) {
        let all = record::load_everywhere(&site.tree).map_err(|error| failed("make", &external, error))?;
        match record::left(&all, scope, &resource.name, &origin) {
            Left::Held(other) => {
                let path = external.clone();
                return Err(failed("make", &external, Hindrance::Anothers { path, other }));
            }
            Left::Released(left) => {
                record = record.or_else(|| {
                    left.map(|left| Record {
                        name: resource.name.clone(),
                        ..left.clone()
                    })
                });
            }
        }
    }
    if let Some(record) = &record
        && record.kind != resource.kind
        && record.stage != Stage::Released
    {
        return Err(failed("make", &external, Hindrance::OtherKind(record.kind.clone())));
    }
    match &typed {
        Typed::Service(spec) => {
            service::check(&site.config, resource, spec)?;
            let plan = service::plan(site, scope, resource, spec)?;
            service::apply(site, scope, resource, record, &plan)
        }
        _ => {
            let target = files::target(site, scope, resource, &typed)?;
            // A released process of the same name is a stranger to a file.
            let record = record.filter(|record| !matches!(record.thing, Thing::Service(_)));
            files::apply(site, scope, resource, record, &target).map(Made::Applied)
        }
    }
}
