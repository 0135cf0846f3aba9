//! Runs of `ansible-playbook`: begun with what is written down first, told by their events, and taken in by whoever comes next.
//!
//! A run goes on when nobody waits for it any more, even when Charter ends. It is taken in once, by the task that waited for it in this
//! process, or by the next look of a later one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use state::canonical::{self, Digest};
use state::errors::chain;
use state::ids::{OutputName, SecretName};
use state::locked::Locked;
use state::resource::Outputs;

use providers::detached::{self, COMPLAINTS, OUTPUT, Run, RunError, now};
use providers::hold;
use providers::records::private;
use providers::secrets::masked;

use crate::check::{HOST_KEYS, is_host_key};
use crate::events::{Told, line};
use crate::record::{Begun, Clean, Failed, Purpose, Record, Retiring, Seen, Standing};
use crate::render::{CONNECTION, INVENTORY, KEYS, KNOWN_HOSTS, REQUIREMENTS, Rendered, SSH, VARIABLES, data};
use crate::{Hindrance, Site, galaxy, version};

/// How long one call waits for a run. It goes on afterwards.
const WAIT: Duration = Duration::from_secs(40);
/// The most of what Ansible complains of that is told.
const MAX_WORDS: usize = 1024;
/// What stays in a working directory from run to run.
const KEPT: [&str; 2] = [galaxy::FOLDER, "home"];
/// Secrets, while a run reads them; its variables among them.
const GIVEN: &str = "given";
const SECRETS: &str = "secrets.json";
const EVENTS: &str = "events";
const GUARD: &str = "guard.json";
const CONFIG: &str = "ansible.cfg";
/// The plugins that a run can't start without, by their paths.
const PLUGINS: [(&str, &str); 2] = [
    ("plugins/inventory/charter.py", include_str!("plugins/inventory/charter.py")),
    ("plugins/callback/charter.py", include_str!("plugins/callback/charter.py")),
];

/// Whether a path is one of what Charter writes into a working directory beside an order's files.
pub(crate) fn is_own(path: &str) -> bool {
    const OWN: &[&str] = &[
        INVENTORY,
        VARIABLES,
        CONNECTION,
        SSH,
        REQUIREMENTS,
        KNOWN_HOSTS,
        KEYS,
        GIVEN,
        EVENTS,
        GUARD,
        CONFIG,
        galaxy::FOLDER,
        "plugins",
        "home",
        "cp",
    ];
    let first = path.split('/').next().unwrap_or(path);
    OWN.iter().chain(&detached::NOTES).any(|own| *own == first)
}

/// What became of a run that was waited for.
#[derive(Debug)]
pub(crate) enum Waited {
    /// It was taken in.
    Done,
    /// It goes on; why nobody knows more.
    GoesOn(String),
}

/// The secrets' texts, by the names of variables and hosts.
pub(crate) struct Texts {
    variables: BTreeMap<String, String>,
    keys: BTreeMap<String, String>,
}

impl Texts {
    pub(crate) fn read(
        site: &Site,
        variables: &BTreeMap<String, SecretName>,
        keys: &BTreeMap<String, SecretName>,
    ) -> Result<Self, Hindrance> {
        let all = |names: &BTreeMap<String, SecretName>| -> Result<BTreeMap<String, String>, Hindrance> {
            let text = |(name, secret): (&String, &SecretName)| Ok((name.clone(), site.config.secret(secret)?));
            names.iter().map(text).collect()
        };
        Ok(Self {
            variables: all(variables)?,
            keys: all(keys)?,
        })
    }

    /// All of them, for what may not be told.
    fn all(&self) -> BTreeMap<String, String> {
        let keys = self.keys.iter().map(|(host, key)| (format!("key of {host}"), key.clone()));
        self.variables.clone().into_iter().chain(keys).collect()
    }
}

/// A digest of everything that a run is made from.
pub(crate) fn digest(rendered: &Rendered, texts: &Texts) -> Result<Digest, Hindrance> {
    let files: BTreeMap<&String, String> = rendered.files.iter().map(|(path, bytes)| (path, Digest::of(bytes).hex())).collect();
    let secret = |all: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        all.iter()
            .map(|(name, text)| (name.clone(), Digest::of(text.as_bytes()).hex()))
            .collect()
    };
    canonical::digest(&json!({
        "files": files,
        "playbook": rendered.playbook,
        "arguments": rendered.arguments,
        "variables": secret(&texts.variables),
        "keys": secret(&texts.keys),
        "host_keys": rendered.host_keys,
    }))
    .map_err(|error| Hindrance::Invalid(error.to_string()))
}

/// What goes on, or what had ended is taken in; none: nothing goes on any more.
pub(crate) fn settle(site: &Site, external: &str) -> Result<Option<String>, Hindrance> {
    let begun = |record: &Record| record.begun.as_ref().map(|begun| begun.purpose);
    let Some(purpose) = site.records.get(external)?.as_ref().and_then(begun) else {
        // Who died between taking a run in and clearing up after it, or before it began, has left what it was given.
        if site.folder(external).join(GIVEN).exists()
            && let Some(_held) = hold::try_hold(&site.locks(), external)?
        {
            clear(&site.folder(external))?;
        }
        return Ok(None);
    };
    // Whoever has begun it has the lock until it is taken in; what has outlived him goes on without.
    let held = hold::try_hold(&site.locks(), external)?;
    if held.is_none() || detached::going_on(&site.folder(external)).is_some() {
        return Ok(Some(progress(site, external, purpose)?));
    }
    if let Some(mut record) = site.records.get(external)? {
        take(site, external, &mut record, None)?;
    }
    Ok(None)
}

/// How far a run is that goes on.
pub(crate) fn progress(site: &Site, external: &str, purpose: Purpose) -> io::Result<String> {
    let told = Told::read(&site.folder(external).join(EVENTS))?;
    Ok(format!("{} goes on: {}", purpose.words(), told.progress()))
}

/// Waits until nobody works on a playbook. `Err`: who does.
pub(crate) async fn turn(site: &Site, external: &str) -> Result<Result<Locked, String>, Hindrance> {
    let folder = site.folder(external);
    Ok(hold::hold(&site.locks(), external, || detached::going_on(&folder)).await?)
}

/// Which plays are run.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    /// Those of an order, in a working directory that is made for it.
    Ordered(&'a Rendered),
    /// Those that undo it, in the working directory as it is.
    Retiring(&'a Retiring),
}

/// What is run.
pub(crate) struct Start<'a> {
    pub(crate) purpose: Purpose,
    pub(crate) digest: Digest,
    pub(crate) what: What<'a>,
    pub(crate) texts: Texts,
    pub(crate) unknown: BTreeSet<String>,
    pub(crate) outputs: BTreeSet<OutputName>,
    /// What has to be installed.
    pub(crate) wanted: Option<galaxy::Wanted>,
}

/// Begins a run, and waits for it for a while.
pub(crate) async fn run(
    site: &Arc<Site>,
    external: &str,
    hold: Locked,
    start: Start<'_>,
    record: &mut Record,
) -> Result<Waited, Hindrance> {
    version::suits(site).await?;
    let folder = site.folder(external);
    prepare(&folder, &start, record)?;
    // What goes on stands before it does.
    record.begun = Some(Begun {
        purpose: start.purpose,
        digest: start.digest,
        unknown: start.unknown,
        outputs: start.outputs,
    });
    // What another run has failed at is told before it is forgotten.
    record.failed.take_if(|failed| failed.purpose == start.purpose);
    site.records.put(external, record)?;
    let mut all = vec!["-i".to_owned(), INVENTORY.to_owned()];
    for file in [VARIABLES.to_owned(), format!("{GIVEN}/{VARIABLES}"), CONNECTION.to_owned()] {
        all.extend(["-e".to_owned(), format!("@{file}")]);
    }
    let (playbook, arguments) = match start.what {
        What::Ordered(rendered) => (&rendered.playbook, &rendered.arguments),
        What::Retiring(retiring) => (&retiring.playbook, &retiring.arguments),
    };
    all.extend(arguments.iter().cloned());
    all.push("--diff".to_owned());
    if start.purpose == Purpose::Check {
        all.push("--check".to_owned());
    }
    all.push(playbook.clone());
    let (owned, name, purpose, wanted) = (Arc::clone(site), external.to_owned(), start.purpose, start.wanted);
    let left = Arc::new(AtomicBool::new(false));
    let was_left = Arc::clone(&left);
    let task = tokio::spawn(async move {
        // Held until it is taken in: another Charter of this member's waits.
        let held = hold;
        let _turn = owned.turns.acquire().await;
        let done = carried_out(&owned, &name, &all, purpose, wanted).await;
        let taken = owned.records.get(&name).map_err(Hindrance::from).and_then(|record| match record {
            Some(mut record) => take(&owned, &name, &mut record, done.err()),
            None => Ok(()),
        });
        if let Err(error) = taken {
            tracing::warn!(name, error = chain(&error), "a run can't be taken in; the next look tries it again");
        }
        drop(held);
        if was_left.load(Ordering::SeqCst) {
            owned.ended.send_modify(|count| *count += 1);
        }
    });
    match tokio::time::timeout(WAIT, task).await {
        Ok(_) => {
            *record = site.records.get(external)?.ok_or_else(|| Hindrance::Lost(external.to_owned()))?;
            Ok(Waited::Done)
        }
        Err(_) => {
            left.store(true, Ordering::SeqCst);
            Ok(Waited::GoesOn(progress(site, external, purpose)?))
        }
    }
}

/// Installs what is missing, and runs the playbook to its end.
async fn carried_out(
    site: &Site,
    external: &str,
    arguments: &[String],
    purpose: Purpose,
    wanted: Option<galaxy::Wanted>,
) -> Result<(), Hindrance> {
    let folder = site.folder(external);
    if let Some(wanted) = wanted {
        galaxy::install(site, external, &folder, &wanted).await?;
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let environment = environment(site, &folder);
    let ended = detached::run(&Run {
        program: &site.config.playbook,
        folder: &folder,
        notes: &folder,
        what: purpose.words(),
        arguments: &arguments,
        environment: &environment,
        deadline: site.config.deadline(),
        log: None,
    })
    .await;
    match ended {
        Ok(_) | Err(RunError::Long { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What Ansible is started with: nothing of the user's who runs Charter.
pub(crate) fn environment(site: &Site, folder: &Path) -> BTreeMap<String, String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut all: BTreeMap<String, String> = [
        ("ANSIBLE_CONFIG", path(CONFIG)),
        ("HOME", path("home")),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("CHARTER_GUARD", path(GUARD)),
        ("CHARTER_EVENTS", path(EVENTS)),
        ("CHARTER_GIVEN", path(GIVEN)),
        ("CHARTER_KEYS", path(KEYS)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(agent) = std::env::var("SSH_AUTH_SOCK").ok().filter(|_| site.config.agent) {
        all.insert("SSH_AUTH_SOCK".to_owned(), agent);
    }
    all
}

/// Makes a working directory ready.
fn prepare(folder: &Path, start: &Start<'_>, record: &mut Record) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if let What::Ordered(rendered) = start.what {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if !KEPT.iter().any(|name| entry.file_name() == *name) {
                remove(&entry.path())?;
            }
        }
        for (path, bytes) in &rendered.files {
            write(&folder.join(path), bytes)?;
        }
        record.host_keys.retain(|host, _| rendered.host_keys.contains_key(host));
        let pinned = rendered
            .host_keys
            .iter()
            .filter_map(|(host, key)| Some((host.clone(), key.clone()?)));
        record.host_keys.extend(pinned);
        write(&folder.join(GUARD), rendered.guard.to_string().as_bytes())?;
    }
    for (path, text) in PLUGINS {
        write(&folder.join(path), text.as_bytes())?;
    }
    write(&folder.join(CONFIG), config(folder).as_bytes())?;
    // One line for each host; those without one are seen for the first time.
    let known = record.host_keys.iter().map(|(host, key)| format!("{host} {key}\n"));
    write(&folder.join(KNOWN_HOSTS), known.collect::<String>().as_bytes())?;
    clear(folder)?;
    for name in [GIVEN, KEYS, "cp", "home"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join(name))?;
    }
    private(&folder.join(EVENTS))?;
    let given = folder.join(GIVEN);
    write(&given.join(VARIABLES), data(&json!(start.texts.variables)).as_bytes())?;
    write(&given.join(SECRETS), json!(start.texts.all()).to_string().as_bytes())?;
    for (host, key) in &start.texts.keys {
        write(&folder.join(KEYS).join(host), format!("{}\n", key.trim_end()).as_bytes())?;
    }
    Ok(())
}

/// Ansible's own configuration: whatever else would look for one finds this.
fn config(folder: &Path) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    format!(
        "[defaults]\n\
         stdout_callback = charter\n\
         callback_plugins = {}\n\
         inventory_plugins = {}\n\
         roles_path = {}:{}\n\
         collections_path = {}\n\
         local_tmp = {}\n\
         host_key_checking = True\n\
         retry_files_enabled = False\n\
         interpreter_python = auto_silent\n\
         localhost_warning = False\n\
         nocows = True\n\
         [inventory]\n\
         enable_plugins = charter\n\
         unparsed_is_failed = True\n\
         [ssh_connection]\n\
         pipelining = True\n",
        at("plugins/callback"),
        at("plugins/inventory"),
        at("roles"),
        at(&format!("{}/roles", galaxy::FOLDER)),
        at(&format!("{}/collections", galaxy::FOLDER)),
        at("home/tmp"),
    )
}

/// Writes a file that its owner only can read, in folders that he only can enter.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    private(path)?.write_all(bytes)
}

/// Removes a file or a folder. What isn't there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes in what a run has told.
fn take(site: &Site, external: &str, record: &mut Record, hindrance: Option<Hindrance>) -> Result<(), Hindrance> {
    let Some(begun) = record.begun.take() else { return Ok(()) };
    let folder = site.folder(external);
    let told = Told::read(&folder.join(EVENTS))?;
    let hosts = told.ended();
    let why = match hindrance {
        Some(hindrance) => Some(format!("{} ({})", chain(&hindrance), told.progress())),
        None if hosts.is_none() && told.is_empty() => Some(complaints(&folder)),
        None => told.failure(),
    };
    learn(&folder, record)?;
    let at = now();
    match begun.purpose {
        // What fails in a check is unknown, and no failure.
        Purpose::Check if hosts.is_some_and(|hosts| hosts > 0) => {
            let look = told.look(&begun.unknown);
            if record.standing == Standing::Seen || look.is_clean() {
                record.outputs = outputs(&told, &begun, record);
            }
            record.seen = Some(Seen {
                digest: begun.digest,
                at,
                look,
            });
        }
        Purpose::Apply | Purpose::Retire if why.is_none() => {
            record.seen = None;
            record.clean = Some(Clean { digest: begun.digest, at });
            if begun.purpose == Purpose::Retire {
                record.standing = Standing::Undone;
            } else {
                record.outputs = outputs(&told, &begun, record);
            }
        }
        purpose => {
            record.seen = None;
            record.failed = Some(Failed {
                purpose,
                why: why.unwrap_or_else(|| "none of its hosts is one that its plays name".to_owned()),
            });
            if purpose == Purpose::Apply {
                record.clean = None;
            }
        }
    }
    if begun.purpose == Purpose::Apply {
        record.hosts = told
            .well()
            .into_iter()
            .map(|host| (host, Clean { digest: begun.digest, at }))
            .collect();
    }
    site.records.put(external, record)?;
    Ok(clear(&folder)?)
}

/// Removes what a run was given and what it has told: it is of no use any more. What says that there is some goes last.
fn clear(folder: &Path) -> io::Result<()> {
    [KEYS, EVENTS, "cp", OUTPUT, COMPLAINTS, GIVEN]
        .iter()
        .try_for_each(|name| remove(&folder.join(name)))
}

/// What it gives: what plays have set, and the host keys that were not pinned or are known by now.
fn outputs(told: &Told, begun: &Begun, record: &Record) -> Outputs {
    let mut outputs = told.outputs(&begun.outputs);
    if !record.host_keys.is_empty()
        && let Ok(name) = OutputName::new(HOST_KEYS)
    {
        outputs.insert(name, json!(record.host_keys));
    }
    outputs
}

/// Learns the keys of hosts that were seen for the first time: SSH has added them to those that it was given.
fn learn(folder: &Path, record: &mut Record) -> io::Result<()> {
    let text = match fs::read_to_string(folder.join(KNOWN_HOSTS)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for (host, key) in text.lines().filter_map(|line| line.split_once(' ')) {
        if is_host_key(key) && !record.host_keys.contains_key(host) {
            record.host_keys.insert(host.to_owned(), key.to_owned());
        }
    }
    Ok(())
}

/// What Ansible complains of when it can't even begin.
fn complaints(folder: &Path) -> String {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let secrets: BTreeMap<String, String> = serde_json::from_str(&read(&format!("{GIVEN}/{SECRETS}"))).unwrap_or_default();
    let text: String = [read(COMPLAINTS), read(OUTPUT)].join(" ");
    let text: String = text.chars().take(64 * 1024).collect();
    let short = line(&masked(&text, &secrets), MAX_WORDS);
    match short.is_empty() {
        true => "it was ended before it told anything".to_owned(),
        false => format!("Ansible can't begin: {short}"),
    }
}
