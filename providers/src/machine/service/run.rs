//! Starting, stopping and letting go of a service.

use std::net::TcpListener;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use state::canonical::Digest;
use state::ids::ResourceName;
use state::resource::{OnRetire, Origin, Resource};

use super::super::process::{self, End, Label, Labelled, Processes, Start};
use super::super::record::{self, Left, Record, RecordError, Stage, Started, Thing};
use super::super::spec::Port;
use super::super::tree::{FOLDER_MODE, TreeError};
use super::super::{Hindrance, Made, Site, failed};
use super::{Plan, View, log_name, log_path, outputs};
use crate::{Applied, Deleted, ProviderError, Scope};

/// A service that ends sooner than this after its start counts as one that can't run.
const QUICK: Duration = Duration::from_secs(10);
/// How often it is started again at once all the same.
const FREE_TRIES: u32 = 2;
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A log larger than this is put aside at the next start.
const MAX_LOG: u64 = 16 * 1024 * 1024;
/// Where free ports are looked for: below what the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One service, with what every operation on it needs.
struct Case<'a> {
    site: &'a Site,
    scope: &'a Scope,
    name: &'a ResourceName,
    origin: &'a Origin,
    owner: String,
    external: String,
}

impl<'a> Case<'a> {
    fn new(site: &'a Site, scope: &'a Scope, name: &'a ResourceName, origin: &'a Origin) -> Self {
        Self {
            site,
            scope,
            name,
            origin,
            owner: process::owner(scope, origin),
            external: origin.to_string(),
        }
    }

    fn scan(&self) -> Result<Processes, ProviderError> {
        Processes::scan(self.site.tree.root()).map_err(|error| failed("look for the processes of", &self.external, error))
    }

    fn save(&self, record: &Record) -> Result<(), ProviderError> {
        record::save(&self.site.tree, self.scope, record).map_err(|error: RecordError| failed("record", &self.external, error))
    }

    fn forget(&self) -> Result<(), ProviderError> {
        let gone = |error: TreeError| failed("delete", &self.external, error);
        record::forget(&self.site.tree, self.scope, self.name).map_err(gone)
    }

    /// Whether what carries this label is what another resource has, under the name that it had first.
    fn is_anothers(&self) -> Result<bool, ProviderError> {
        let all = record::load_everywhere(&self.site.tree).map_err(|error| failed("look for", &self.external, error))?;
        Ok(match record::left(&all, self.scope, self.name, self.origin) {
            Left::Held(_) => true,
            Left::Released(record) => record.is_some(),
        })
    }

    fn refuse_closed(&self, view: &View<'_>) -> Result<(), ProviderError> {
        match view.closed {
            Some(pid) => Err(failed("look at", &self.external, Hindrance::Closed(pid))),
            None => Ok(()),
        }
    }

    fn end(&self, processes: &[&Labelled], how: End) -> Result<(), ProviderError> {
        processes
            .iter()
            .try_for_each(|process| process::end(process, how).map_err(|error| failed("stop", &self.external, error)))
    }

    /// Tells processes to stop, gently at first and surely once the grace is over. The moment of the first word is recorded.
    fn stop(&self, record: &mut Record, which: Which, processes: &[&Labelled]) -> Result<String, ProviderError> {
        let Thing::Service(started) = &mut record.thing else {
            return Ok("it is no service".to_owned());
        };
        let grace = started.grace.saturating_mul(1000);
        let since = match which {
            Which::All => &mut started.stopping,
            Which::Leftovers => &mut started.clearing,
        };
        let now = now();
        // A moment in the future is a clock that was set back: the grace starts again.
        match *since {
            Some(then) if then <= now && now - then >= grace => {
                self.end(processes, End::Surely)?;
                Ok(format!(
                    "{} of its processes did not stop in time and are being killed",
                    processes.len()
                ))
            }
            Some(then) if then <= now => Ok(format!("{} of its processes are stopping", processes.len())),
            _ => {
                // The word comes first: a crash in between repeats it, and never lets the grace pass without it.
                self.end(processes, End::Gently)?;
                *since = Some(now);
                self.save(record)?;
                Ok(format!("{} of its processes were told to stop", processes.len()))
            }
        }
    }

    /// A record for processes that have lost theirs.
    fn remnant(&self, first: &Labelled, grace: u64) -> Record {
        let started = Started {
            start: first.label.start.clone(),
            command: Vec::new(),
            env: Default::default(),
            directory: super::Below::channel(&self.origin.channel),
            port: first.label.port,
            grace,
            process: Some(first.id),
            started: now(),
            quick_ends: 0,
            stopping: None,
            clearing: None,
        };
        let kind = super::super::kind("service");
        let thing = Thing::Service(started);
        let mut record = Record::intended(self.name, &kind, self.external.clone(), first.label.on_retire, thing);
        record.stage = Stage::Made;
        record
    }
}

#[derive(Clone, Copy)]
enum Which {
    All,
    Leftovers,
}

/// The grace of processes whose specification is lost with their record, in seconds.
const LOST_GRACE: u64 = 10;

/// Starts a service, keeps it, or stops it to start it anew.
pub(crate) fn apply(site: &Site, scope: &Scope, resource: &Resource, record: Option<Record>, plan: &Plan) -> Result<Made, ProviderError> {
    let origin = super::super::origin(scope, resource);
    let case = Case::new(site, scope, &resource.name, &origin);
    let processes = case.scan()?;
    let mut record = record;
    if let Some(found) = &mut record
        && found.stage == Stage::Released
    {
        let lives = processes.of(&case.owner).next().is_some();
        if lives && !crate::adopts(resource) {
            return Err(ProviderError::NotOwned { external: case.external });
        }
        if lives {
            found.stage = Stage::Made;
            found.on_retire = resource.on_retire;
            case.save(found)?;
        } else {
            record = None;
        }
    }
    if record.is_none() {
        record = found_again(&case, plan, &processes)?;
    }
    let Some(mut record) = record else {
        return start(&case, resource, plan, None);
    };
    let Thing::Service(started) = &record.thing else {
        return Err(failed("start", &case.external, Hindrance::OtherKind(record.kind)));
    };
    let view = View::new(&processes, &case.owner, Some(started));
    case.refuse_closed(&view)?;
    let differs = plan
        .differences(&site.config, started)
        .map_err(|error| failed("start", &case.external, error))?;
    let pending = |why| {
        Made::Applied(Applied::Pending {
            external: case.external.clone(),
            why,
        })
    };
    if let Some(main) = view.main
        && differs.is_empty()
        && started.stopping.is_none()
    {
        if !view.strays.is_empty() {
            let why = case.stop(&mut record, Which::Leftovers, &view.strays)?;
            return Ok(pending(why));
        }
        return keep(&case, resource, plan, record, main);
    }
    let alive = view.alive();
    if !alive.is_empty() {
        let why = case.stop(&mut record, Which::All, &alive)?;
        return Ok(pending(why));
    }
    start(&case, resource, plan, Some(record))
}

/// Makes a record anew from the labels of processes whose record is lost. What is as it should be is kept, the rest is going to be stopped.
fn found_again(case: &Case<'_>, plan: &Plan, processes: &Processes) -> Result<Option<Record>, ProviderError> {
    let mut leaders = processes.of(&case.owner).filter(|process| process.leads);
    let same = leaders.find(|process| process.label.started_with == plan.started_with);
    let Some(first) = same.or_else(|| processes.of(&case.owner).next()) else {
        return Ok(None);
    };
    let mut record = case.remnant(first, plan.grace);
    if same.is_some()
        && let Thing::Service(started) = &mut record.thing
    {
        started.command = plan.command.clone();
        started.directory = plan.directory.clone();
        // A secret that changed since can't be seen any more: the record starts from today's.
        started.env = plan
            .recorded(&case.site.config, &started.start)
            .map_err(|error| failed("take back", &case.external, error))?;
    }
    case.save(&record)?;
    Ok(Some(record))
}

fn keep(case: &Case<'_>, resource: &Resource, plan: &Plan, record: Record, main: &Labelled) -> Result<Made, ProviderError> {
    let Thing::Service(started) = &record.thing else {
        return Err(failed("keep", &case.external, Hindrance::OtherKind(record.kind)));
    };
    let mut started = started.clone();
    started.process = Some(main.id);
    started.grace = plan.grace;
    started.clearing = None;
    let made = running(case, plan, &started)?;
    let mut now = record.clone();
    now.stage = Stage::Made;
    now.on_retire = resource.on_retire;
    now.thing = Thing::Service(started);
    if now != record {
        case.save(&now)?;
    }
    Ok(made)
}

fn running(case: &Case<'_>, plan: &Plan, started: &Started) -> Result<Made, ProviderError> {
    Ok(Made::Running {
        external: case.external.clone(),
        outputs: outputs(case.site, case.scope, case.origin, started.port),
        probe: plan
            .probe(case.site, started)
            .map_err(|error| failed("ask", &case.external, error))?,
    })
}

fn start(case: &Case<'_>, resource: &Resource, plan: &Plan, last: Option<Record>) -> Result<Made, ProviderError> {
    let trouble = |error: TreeError| failed("start", &case.external, error);
    let tree = &case.site.tree;
    let stage = last.as_ref().map_or(Stage::Intended, |record| record.stage);
    let last = match last {
        Some(record) => pause(case, record)?,
        None => None,
    };
    let secret = |error| failed("start", &case.external, error);
    let mut env = plan.environment(&case.site.config).map_err(secret)?;
    tree.make_dirs(&plan.directory.parts()[..1], FOLDER_MODE).map_err(trouble)?;
    match tree.dir(plan.directory.parts()) {
        Ok(_) => {}
        Err(error) if error.is_missing() => {
            return Err(failed("start", &case.external, Hindrance::NoFolder(plan.directory.to_string())));
        }
        Err(error) => return Err(trouble(error)),
    }
    let port = port(case, plan, last.as_ref().and_then(|started| started.port))?;
    let start = process::random().map_err(|error| failed("start", &case.external, error))?;
    let started = Started {
        command: plan.command.clone(),
        env: plan.recorded(&case.site.config, &start).map_err(secret)?,
        directory: plan.directory.clone(),
        port,
        grace: plan.grace,
        process: None,
        started: now(),
        quick_ends: last.as_ref().map_or(0, |started| started.quick_ends),
        stopping: None,
        clearing: None,
        start: start.clone(),
    };
    let label = label(case, plan, resource.on_retire, start, port);
    let thing = Thing::Service(started.clone());
    let mut record = Record::intended(&resource.name, &resource.kind, case.external.clone(), resource.on_retire, thing);
    record.stage = stage;
    case.save(&record)?;
    env.extend(label.variables().into_iter().map(|(key, value)| (key.to_owned(), value)));
    let log = tree
        .append_own(
            &record::log_folder(case.scope, case.origin),
            &log_name(&case.origin.resource),
            MAX_LOG,
        )
        .map_err(trouble)?;
    let directory = tree.absolute(&plan.directory);
    let what = Start {
        command: &plan.command,
        env,
        directory: &directory,
    };
    let process = process::spawn(&what, log).map_err(|error| failed("start", &case.external, error))?;
    let started = Started { process, ..started };
    let made = running(case, plan, &started)?;
    record.stage = Stage::Made;
    record.thing = Thing::Service(started);
    case.save(&record)?;
    Ok(made)
}

fn label(case: &Case<'_>, plan: &Plan, on_retire: OnRetire, start: String, port: Option<u16>) -> Label {
    Label {
        root: case.site.tree.root().display().to_string(),
        owner: case.owner.clone(),
        start,
        started_with: plan.started_with.clone(),
        on_retire,
        port,
    }
}

/// Counts an end that came right after the start, and refuses the next start while it should wait.
fn pause(case: &Case<'_>, record: Record) -> Result<Option<Started>, ProviderError> {
    let mut record = record;
    let Thing::Service(started) = &mut record.thing else {
        return Ok(None);
    };
    let since = Duration::from_millis(now().saturating_sub(started.started));
    if started.stopping.is_some() {
        // Charter stopped it itself.
        started.quick_ends = 0;
        return Ok(Some(started.clone()));
    }
    if started.process.take().is_some() {
        started.quick_ends = if since < QUICK { started.quick_ends.saturating_add(1) } else { 0 };
        case.save(&record)?;
    }
    let Thing::Service(started) = record.thing else { return Ok(None) };
    let over = started.quick_ends.saturating_sub(FREE_TRIES);
    if over > 0 {
        let pause = Duration::from_secs(1 << over.min(16)).min(LONGEST_PAUSE);
        if let Some(left) = pause.checked_sub(since).filter(|left| !left.is_zero()) {
            let hindrance = Hindrance::Quick {
                times: started.quick_ends,
                seconds: left.as_secs() + 1,
                log: log_path(case.site, case.scope, case.origin),
            };
            return Err(failed("start", &case.external, hindrance));
        }
    }
    Ok(Some(started))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Chooses the port: the one that is ordered, the one of the last start, or the first free one from a place that depends on the name.
fn port(case: &Case<'_>, plan: &Plan, last: Option<u16>) -> Result<Option<u16>, ProviderError> {
    match plan.port {
        None => Ok(None),
        Some(Port::Fixed(port)) if is_free(port) => Ok(Some(port)),
        Some(Port::Fixed(port)) => Err(failed("start", &case.external, Hindrance::PortTaken(port))),
        Some(Port::Auto) => {
            let all = record::load_everywhere(&case.site.tree).map_err(|error| failed("start", &case.external, error))?;
            let others: std::collections::BTreeSet<u16> = all
                .iter()
                .filter(|(_, record)| record.external != case.external)
                .filter_map(|(_, record)| match &record.thing {
                    Thing::Service(started) => started.port,
                    _ => None,
                })
                .collect();
            let seed = Digest::of(format!("{}\0{}", case.site.tree.root().display(), case.owner).as_bytes());
            let [first, second, ..] = seed.as_bytes();
            let count = PORTS.end - PORTS.start;
            let offset = u16::from_be_bytes([*first, *second]) % count;
            let around =
                (0..count).map(|step| PORTS.start + u16::try_from((u32::from(offset) + u32::from(step)) % u32::from(count)).unwrap_or(0));
            last.into_iter()
                .chain(around)
                .find(|port| !others.contains(port) && is_free(*port))
                .map(Some)
                .ok_or_else(|| failed("start", &case.external, Hindrance::NoPort))
        }
    }
}

/// Stops a service, and forgets it when all its processes are gone.
pub(crate) fn delete(
    site: &Site,
    scope: &Scope,
    name: &ResourceName,
    origin: &Origin,
    record: Option<Record>,
) -> Result<Deleted, ProviderError> {
    let case = Case::new(site, scope, name, origin);
    let processes = case.scan()?;
    let record = match record {
        Some(record) if record.stage == Stage::Released => return Ok(Deleted::Gone),
        Some(record) => record,
        None => match processes.of(&case.owner).next() {
            Some(first) if !case.is_anothers()? => case.remnant(first, LOST_GRACE),
            _ => return Ok(Deleted::Gone),
        },
    };
    let mut record = record;
    let started = match &record.thing {
        Thing::Service(started) => Some(started),
        _ => None,
    };
    let view = View::new(&processes, &case.owner, started);
    case.refuse_closed(&view)?;
    let alive = view.alive();
    if !alive.is_empty() {
        let why = case.stop(&mut record, Which::All, &alive)?;
        return Ok(Deleted::Pending { why });
    }
    let folder = record::log_folder(scope, origin);
    let log = log_name(&origin.resource);
    for log in [format!("{log}.1"), log] {
        site.tree
            .remove_own(&folder, &log)
            .map_err(|error| failed("delete", &case.external, error))?;
    }
    case.forget()?;
    Ok(Deleted::Gone)
}

/// Lets a service run on as nobody's.
pub(crate) fn release(
    site: &Site,
    scope: &Scope,
    name: &ResourceName,
    origin: &Origin,
    record: Option<Record>,
) -> Result<(), ProviderError> {
    let case = Case::new(site, scope, name, origin);
    let processes = case.scan()?;
    match (processes.of(&case.owner).next(), record) {
        (None, None) => Ok(()),
        (None, Some(_)) => case.forget(),
        (Some(_), None) if case.is_anothers()? => Ok(()),
        (Some(first), record) => {
            let mut record = record.unwrap_or_else(|| case.remnant(first, LOST_GRACE));
            record.stage = Stage::Released;
            case.save(&record)
        }
    }
}
