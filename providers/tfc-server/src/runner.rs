//! Making runs: each in a folder of its own, by the engine, from the workspace's configuration, variables and state.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use providers::detached::{self, Ended, Run as Process, RunError, going_on};
use providers::records::{private, replace};

use terraform::cli;

use crate::Shared;
use crate::api::states;
use crate::model::{Counts, Lock, Phase, Run, Status, Variable, Workspace};
use crate::store::{Store, now};

/// What a log begins and ends with.
const BEGIN: &[u8] = b"\x02";
const END: &[u8] = b"\x03";
/// The longest that one call of an engine may take.
const DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);
/// The most that a configuration unpacks to, in bytes and in files.
const MAX_UNPACKED: u64 = 256 * 1024 * 1024;
const MAX_FILES: usize = 10_000;
/// The file of a plan that is kept for its application, and that of the state.
const PLAN: &str = "charter.tfplan";
const STATE: &str = "terraform.tfstate";
/// How long an engine that an earlier server has left is waited for before it is looked at again.
const PAUSE: Duration = Duration::from_millis(200);

/// The files of a run.
pub(crate) struct Files {
    /// What was unpacked, where the engine works.
    work: PathBuf,
    /// What says that it works. Not there: a configuration may have files of any name.
    notes: PathBuf,
    pub(crate) plan_log: PathBuf,
    pub(crate) apply_log: PathBuf,
    pub(crate) plan_json: PathBuf,
}

pub(crate) fn files(shared: &Shared, run: &Run) -> Files {
    let folder = shared.path(&["runs", &run.id]);
    Files {
        work: folder.join("work"),
        notes: folder.join("notes"),
        plan_log: folder.join("plan.log"),
        apply_log: folder.join("apply.log"),
        plan_json: folder.join("plan.json"),
    }
}

impl Files {
    fn log(&self, phase: Phase) -> &Path {
        match phase {
            Phase::Plan => &self.plan_log,
            Phase::Apply => &self.apply_log,
        }
    }
}

/// Brings a run to a status. A workspace is locked by the run that may change it, until that has come to its end.
pub(crate) fn to(store: &mut Store, id: &str, status: Status) -> io::Result<()> {
    store.runs.change(id, |run| {
        run.status = status;
        run.times.insert(format!("{}-at", status.text().replace('_', "-")), now());
        if status.waits() || status == Status::PlannedAndFinished {
            run.times.entry("planned-at".to_owned()).or_insert_with(now);
        }
    })?;
    let Some(run) = store.runs.get(id).cloned() else { return Ok(()) };
    let own = Lock::Run(run.id.clone());
    store.workspaces.change(&run.workspace, |workspace| match status {
        _ if status.is_final() && workspace.lock.as_ref() == Some(&own) => workspace.lock = None,
        Status::Planning if !run.plan_only() && !run.save_plan() => hold(workspace, &run, own),
        Status::Applying => hold(workspace, &run, own),
        _ => {}
    })
}

fn hold(workspace: &mut Workspace, run: &Run, lock: Lock) {
    workspace.current_run = Some(run.id.clone());
    if workspace.lock.is_none() {
        workspace.lock = Some(lock);
    }
}

/// Asks the engine of a run to stop, or ends it.
pub(crate) fn interrupt(shared: &Shared, id: &str, at_once: bool) {
    detached::interrupt(&shared.path(&["runs", id, "notes"]), at_once);
}

/// Makes runs, for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let left: Vec<String> = {
        let store = shared.store();
        let works = store
            .runs
            .all()
            .filter(|run| matches!(run.status, Status::Planning | Status::Applying));
        works.map(|run| run.id.clone()).collect()
    };
    for id in left {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            recover(&shared, &id).await;
            shared.changed.notify_one();
        });
    }
    loop {
        while let Some((id, phase)) = next(&shared) {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                begin(&shared, &id, phase).await;
                shared.changed.notify_one();
            });
        }
        shared.changed.notified().await;
    }
}

/// The oldest run that can go on, brought to its next status.
fn next(shared: &Shared) -> Option<(String, Phase)> {
    let mut store = shared.store();
    let mut waiting: Vec<Run> = store
        .runs
        .all()
        .filter(|run| matches!(run.status, Status::Pending | Status::Confirmed))
        .cloned()
        .collect();
    waiting.sort_by_key(|run| run.number);
    for run in waiting {
        let Some(workspace) = store.workspaces.get(&run.workspace) else {
            continue;
        };
        let own = Lock::Run(run.id.clone());
        let free = workspace.lock.as_ref().is_none_or(|lock| *lock == own);
        let beside = run.status == Status::Pending && (run.plan_only() || run.save_plan());
        if !free && !beside {
            continue;
        }
        let phase = match run.status {
            Status::Pending => Phase::Plan,
            _ => Phase::Apply,
        };
        let status = match phase {
            Phase::Apply if run.save_plan() && workspace.state != run.base => Status::Discarded,
            Phase::Apply => Status::Applying,
            Phase::Plan => Status::Planning,
        };
        let moved = to(&mut store, &run.id, status);
        if let Err(error) = moved {
            tracing::error!(run = run.id, %error, "a run can't be written down");
            return None;
        }
        if status != Status::Discarded {
            return Some((run.id, phase));
        }
    }
    None
}

/// Why a run has come to nothing. Its log says so.
enum Failed {
    /// The engine, or the configuration.
    Engine(String),
    Run(RunError),
    Folder(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Folder(error)
    }
}

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        Self::Run(error)
    }
}

impl Failed {
    fn words(&self) -> String {
        match self {
            Self::Engine(words) => words.clone(),
            Self::Run(error) => state::errors::chain(error),
            Self::Folder(error) => format!("the server's folder can't be used: {error}"),
        }
    }
}

async fn begin(shared: &Shared, id: &str, phase: Phase) {
    let Some(run) = shared.store().runs.get(id).cloned() else { return };
    let _turn = shared.turns.acquire().await;
    let done = match (wanted(shared, &run), phase) {
        (Err(failed), _) => open_log(files(shared, &run).log(phase)).map_err(Failed::from).and(Err(failed)),
        (Ok(()), Phase::Plan) => plan(shared, &run).await,
        (Ok(()), Phase::Apply) => apply(shared, &run).await,
    };
    end(shared, &run, phase, done);
}

/// Whether a run still has to go on: nobody has asked it to stop, and its workspace is there. What signals reach is only what runs.
fn wanted(shared: &Shared, run: &Run) -> Result<(), Failed> {
    let stopped = |run: &Run| run.times.contains_key("cancel-requested-at");
    match shared.store().runs.get(&run.id) {
        Some(run) if !stopped(run) => Ok(()),
        _ => Err(Failed::Engine(String::new())),
    }
}

/// Writes down what came of a phase, and closes its log.
fn end(shared: &Shared, run: &Run, phase: Phase, done: Result<Status, Failed>) {
    let files = files(shared, run);
    let asked = |time: &str| shared.store().runs.get(&run.id).is_some_and(|run| run.times.contains_key(time));
    let status = match done {
        Ok(status) => status,
        Err(_) if asked("force-cancel-requested-at") => Status::ForceCanceled,
        Err(_) if asked("cancel-requested-at") => Status::Canceled,
        Err(failed) => {
            let words = failed.words();
            if !words.is_empty() {
                let _ = say(files.log(phase), format!("\nError: {words}\n").as_bytes());
            }
            Status::Errored
        }
    };
    let _ = say(files.log(phase), END);
    if status.is_final() {
        for folder in [&files.work, &files.notes] {
            let _ = fs::remove_dir_all(folder);
        }
    }
    if let Err(error) = to(&mut shared.store(), &run.id, status) {
        tracing::error!(run = run.id, %error, "a run can't be written down");
    }
    if status == Status::Planned && run.options.auto_apply == Some(true) {
        let mut store = shared.store();
        let _ = to(&mut store, &run.id, Status::Confirmed);
    }
}

/// Adds to a log.
fn say(log: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().append(true).open(log)?.write_all(bytes)
}

fn open_log(log: &Path) -> io::Result<()> {
    private(log)?.write_all(BEGIN)
}

/// What a workspace's variables are to an engine.
struct Given {
    environment: BTreeMap<String, String>,
    /// The files of variables, the last one counting most.
    files: Vec<String>,
}

async fn plan(shared: &Shared, run: &Run) -> Result<Status, Failed> {
    let files = files(shared, run);
    let _ = fs::remove_dir_all(&files.work);
    fs::create_dir_all(&files.work)?;
    open_log(&files.plan_log)?;
    let (workspace, configuration, state, variables) = {
        let store = shared.store();
        let workspace = store.workspaces.get(&run.workspace).cloned();
        let configuration = store.configurations.get(&run.configuration).cloned();
        let (Some(workspace), Some(configuration)) = (workspace, configuration) else {
            return Err(Failed::Engine("its workspace or its configuration is gone".to_owned()));
        };
        let state = workspace
            .state
            .as_ref()
            .and_then(|id| store.states.get(id))
            .map(|state| state.key.clone());
        let variables = store.given_to(&run.workspace);
        (workspace, configuration, state, variables)
    };
    let base = workspace.state.clone();
    shared.store().runs.change(&run.id, |run| run.base = base)?;
    let packed = fs::read(shared.path(&["configurations", &configuration.key]))?;
    unpack(&packed, &files.work).map_err(|error| Failed::Engine(format!("its configuration can't be unpacked: {error}")))?;
    let folder = working_directory(&files.work, &workspace)?;
    if let Some(key) = state {
        replace(&folder.join(STATE), &fs::read(shared.path(&["states", &key]))?)?;
    }
    // Where the configuration says that its state is elsewhere, this is heard instead.
    let here = json!({ "terraform": { "backend": { "local": {} } } });
    replace(&folder.join("charter_override.tf.json"), here.to_string().as_bytes())?;
    let given = give(shared, &folder, run, &variables)?;
    let log = &files.plan_log;
    suits(shared, &files, &given, run, &workspace).await?;
    let said = engine(shared, &files, &folder, &given, &["init", "-input=false", "-no-color"], Some(log)).await?;
    if said.code != Some(0) {
        return Err(Failed::Engine(String::new()));
    }
    wanted(shared, run)?;
    let options = &run.options;
    let mut arguments: Vec<String> = ["plan", "-input=false", "-no-color", "-detailed-exitcode"]
        .map(str::to_owned)
        .into();
    arguments.push(format!("-out={PLAN}"));
    arguments.extend(given.files.iter().map(|file| format!("-var-file={file}")));
    for (set, word) in [
        (options.is_destroy, "-destroy"),
        (options.refresh_only, "-refresh-only"),
        (options.refresh == Some(false), "-refresh=false"),
    ] {
        if set {
            arguments.push(word.to_owned());
        }
    }
    arguments.extend(options.target_addrs.iter().flatten().map(|address| format!("-target={address}")));
    arguments.extend(options.replace_addrs.iter().flatten().map(|address| format!("-replace={address}")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = engine(shared, &files, &folder, &given, &arguments, Some(log)).await?;
    let has_changes = match said.code {
        Some(0) => false,
        Some(2) => true,
        _ => return Err(Failed::Engine(String::new())),
    };
    let shown = engine(shared, &files, &folder, &given, &["show", "-json", "-no-color", PLAN], None).await?;
    if shown.code != Some(0) {
        return Err(Failed::Engine(shown.complaints));
    }
    let counts = count(&shown.output);
    replace(&files.plan_json, &shown.output)?;
    shared.store().runs.change(&run.id, |run| {
        run.has_changes = has_changes;
        run.counts = counts;
    })?;
    Ok(
        match (
            has_changes || options.allow_empty_apply == Some(true),
            run.plan_only(),
            run.save_plan(),
        ) {
            (false, _, _) | (_, true, _) => Status::PlannedAndFinished,
            (true, false, true) => Status::PlannedAndSaved,
            (true, false, false) => Status::Planned,
        },
    )
}

/// Holds the server's engine to the version that a run, or its workspace, asks for.
async fn suits(shared: &Shared, files: &Files, given: &Given, run: &Run, workspace: &Workspace) -> Result<(), Failed> {
    let of_workspace = workspace.settings.get("terraform-version").and_then(Value::as_str);
    let wanted = run.options.terraform_version.as_deref().or(of_workspace);
    // «latest» and constraints leave the choice to the server.
    let exact = |version: &&str| version.starts_with(|c: char| c.is_ascii_digit()) && !version.contains([' ', ',', '*']);
    let Some(wanted) = wanted.filter(exact) else { return Ok(()) };
    let asked = || async {
        let said = engine(shared, files, &files.work, given, &["version"], None).await?;
        Ok::<_, RunError>(cli::Version::read(&said.output))
    };
    let is = shared.engine.get_or_try_init(asked).await?;
    match is {
        Some(is) if is.version == wanted => Ok(()),
        Some(is) => Err(Failed::Engine(format!(
            "version {wanted} is asked for, and this server's engine is {is}"
        ))),
        None => Err(Failed::Engine(format!(
            "version {wanted} is asked for, and this server's engine is one that doesn't say which it is"
        ))),
    }
}

async fn apply(shared: &Shared, run: &Run) -> Result<Status, Failed> {
    let files = files(shared, run);
    open_log(&files.apply_log)?;
    let (workspace, variables) = {
        let store = shared.store();
        let Some(workspace) = store.workspaces.get(&run.workspace).cloned() else {
            return Err(Failed::Engine("its workspace is gone".to_owned()));
        };
        let variables = store.given_to(&run.workspace);
        (workspace, variables)
    };
    let folder = working_directory(&files.work, &workspace)?;
    let given = give(shared, &folder, run, &variables)?;
    let arguments = ["apply", "-input=false", "-no-color", PLAN];
    let said = engine(shared, &files, &folder, &given, &arguments, Some(&files.apply_log)).await;
    // Whatever came of it: what it has made is in its state.
    keep_state(shared, run, &folder)?;
    match said?.code {
        Some(0) => Ok(Status::Applied),
        _ => Err(Failed::Engine(String::new())),
    }
}

/// Keeps the state that an engine has left, if it is another one than the workspace's.
fn keep_state(shared: &Shared, run: &Run, folder: &Path) -> Result<(), Failed> {
    let text = match fs::read(folder.join(STATE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let present = {
        let store = shared.store();
        let id = store.workspaces.get(&run.workspace).and_then(|one| one.state.clone());
        id.and_then(|id| store.states.get(&id)).map(|state| state.key.clone())
    };
    if let Some(key) = present
        && fs::read(shared.path(&["states", &key]))? == text
    {
        return Ok(());
    }
    let kept = states::keep(shared, &run.workspace, Some(&run.id), &text);
    kept.map(drop).map_err(|refusal| Failed::Engine(refusal.words().to_owned()))
}

/// Brings a run to its end that an earlier server has left in the middle.
async fn recover(shared: &Shared, id: &str) {
    let Some(run) = shared.store().runs.get(id).cloned() else { return };
    let files = files(shared, &run);
    while going_on(&files.notes).is_some() {
        tokio::time::sleep(PAUSE).await;
    }
    let phase = if run.status == Status::Applying {
        Phase::Apply
    } else {
        Phase::Plan
    };
    let workspace = shared.store().workspaces.get(&run.workspace).cloned();
    let kept = match (phase, workspace) {
        (Phase::Apply, Some(workspace)) => match working_directory(&files.work, &workspace) {
            Ok(folder) => keep_state(shared, &run, &folder),
            Err(error) => Err(error.into()),
        },
        _ => Ok(()),
    };
    let why = Failed::Engine("the server was stopped while this went on".to_owned());
    end(shared, &run, phase, Err(kept.err().unwrap_or(why)));
}

/// The folder below what was unpacked that the workspace works in.
fn working_directory(work: &Path, workspace: &Workspace) -> io::Result<PathBuf> {
    let named = workspace
        .settings
        .get("working-directory")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let inside = Path::new(named).components().all(|part| {
        use std::path::Component::{CurDir, Normal};
        matches!(part, Normal(_) | CurDir)
    });
    match inside {
        true => Ok(work.join(named)),
        false => Err(io::Error::other("its working directory lies outside its configuration")),
    }
}

/// Unpacks a configuration: files and folders, and links among them, below a folder.
fn unpack(packed: &[u8], work: &Path) -> io::Result<()> {
    let unpacked = io::Read::take(GzDecoder::new(packed), MAX_UNPACKED);
    let mut archive = tar::Archive::new(unpacked);
    archive.set_preserve_permissions(false);
    archive.set_overwrite(true);
    for (index, entry) in archive.entries()?.enumerate() {
        if index >= MAX_FILES {
            return Err(io::Error::other(format!("it has more than {MAX_FILES} files")));
        }
        let mut entry = entry?;
        if !entry.unpack_in(work)? {
            return Err(io::Error::other(format!("{} lies outside", entry.path()?.display())));
        }
    }
    Ok(())
}

/// Writes the variables of a workspace and of a run for the engine.
fn give(shared: &Shared, folder: &Path, run: &Run, variables: &[Variable]) -> io::Result<Given> {
    let mut environment = cli::environment(folder, &engine_config(shared)?);
    let mut plain = Map::new();
    let mut expressions = String::new();
    for variable in variables {
        match (variable.category.as_str(), variable.hcl) {
            ("env", _) => {
                environment.insert(variable.key.clone(), variable.value.clone());
            }
            (_, false) => {
                plain.insert(variable.key.clone(), Value::String(variable.value.clone()));
            }
            (_, true) => expressions.push_str(&format!("{} = {}\n", variable.key, variable.value)),
        }
    }
    let mut of_run = String::new();
    for variable in run.options.variables.iter().flatten() {
        of_run.push_str(&format!("{} = {}\n", variable.key, variable.value));
    }
    let mut files = Vec::new();
    for (name, text) in [
        ("charter.workspace.tfvars.json", Value::Object(plain).to_string()),
        ("charter.workspace.tfvars", expressions),
        ("charter.run.tfvars", of_run),
    ] {
        replace(&folder.join(name), text.as_bytes())?;
        files.push(name.to_owned());
    }
    Ok(Given { environment, files })
}

/// The engine's own configuration.
fn engine_config(shared: &Shared) -> io::Result<PathBuf> {
    let path = shared.path(&["engine.tfrc"]);
    cli::write(&path, shared.settings.mirror.as_deref())?;
    Ok(path)
}

async fn engine(
    shared: &Shared,
    files: &Files,
    folder: &Path,
    given: &Given,
    arguments: &[&str],
    log: Option<&Path>,
) -> Result<Ended, RunError> {
    let change = format!("-chdir={}", folder.display());
    let mut all = vec![change.as_str()];
    all.extend(arguments);
    fs::create_dir_all(&files.notes)?;
    let process = Process {
        program: &shared.settings.engine,
        folder: &files.work,
        notes: &files.notes,
        what: "a run",
        arguments: &all,
        environment: &given.environment,
        deadline: DEADLINE,
        log,
    };
    detached::run(&process).await
}

/// What a plan does, in numbers.
fn count(plan: &[u8]) -> Counts {
    let plan: Value = serde_json::from_slice(plan).unwrap_or_default();
    let mut counts = Counts::default();
    for change in plan["resource_changes"].as_array().into_iter().flatten() {
        if change["mode"] == "data" {
            continue;
        }
        let actions = change["change"]["actions"].as_array();
        let has = |name: &str| actions.is_some_and(|all| all.iter().any(|action| action == name));
        counts.additions += usize::from(has("create"));
        counts.changes += usize::from(has("update"));
        counts.destructions += usize::from(has("delete"));
    }
    counts
}
