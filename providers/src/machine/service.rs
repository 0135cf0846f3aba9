//! `machine/service`: what a specification asks to run, and how what runs differs from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use state::canonical::Digest;
use state::errors::chain;
use state::ids::{ResourceName, SecretName};
use state::observation::{FieldDrift, Observation};
use state::resource::{Origin, Outputs, Resource};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::{Denial, MachineConfig};
use super::path::Below;
use super::process::{self, Labelled, Processes, Standing, Start};
use super::record::{self, Given, Record, Stage, Started, Thing};
use super::spec::{Port, Ready, ServiceSpec};
use super::{Hindrance, Site, files, output};
use crate::fields::{Setting, Text, literal};
use crate::secrets::SecretError;
use crate::{Invalid, Scope};

mod run;

pub(crate) use run::{apply, delete, release};

/// How long a port may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// How long a readiness command may take.
const ANSWER: Duration = Duration::from_secs(3);
/// The longest value that a drift shows.
const SHOWN: usize = 200;

/// What a specification asks for, with this machine's own commands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The program and its arguments.
    command: Vec<String>,
    env: BTreeMap<String, Asked>,
    directory: Below,
    port: Option<Port>,
    ready: Option<Readiness>,
    grace: u64,
    /// A digest of what is started, without secrets.
    started_with: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Text(String),
    Secret(SecretName),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Readiness {
    Port,
    Command(Vec<String>),
}

fn denied(resource: &Resource) -> impl Fn(Denial) -> Invalid {
    let resource = resource.name.clone();
    move |denial| Invalid::Denied {
        resource: resource.clone(),
        message: denial.to_string(),
    }
}

/// Checks a specification against the member's own list of commands.
pub(crate) fn check(config: &MachineConfig, resource: &Resource, spec: &ServiceSpec) -> Result<(), Invalid> {
    let first = |words: &[Text]| match words.first() {
        Some(Text::Literal(name)) => name.clone(),
        _ => String::new(),
    };
    // The readiness command runs in the service's environment, so each variable has to be allowed for both.
    let ready = match &spec.ready {
        Some(Ready::Command(words)) => Some(first(words)),
        _ => None,
    };
    for name in std::iter::once(first(&spec.command)).chain(ready) {
        config.command(&name).map_err(denied(resource))?;
        for variable in spec.env.keys() {
            config.variable(&name, variable).map_err(denied(resource))?;
        }
    }
    Ok(())
}

/// Puts together what is to run. All references have to be values by now.
pub(crate) fn plan(site: &Site, scope: &Scope, resource: &Resource, spec: &ServiceSpec) -> Result<Plan, Invalid> {
    let wrong = |message: String| Invalid::Spec {
        resource: resource.name.clone(),
        message,
    };
    let command = words(site, resource, "command", &spec.command)?;
    let mut env = BTreeMap::new();
    for (key, setting) in &spec.env {
        let value = match setting {
            Setting::Secret(name) => Asked::Secret(name.clone()),
            Setting::Text(text) => Asked::Text(literal(&format!("env.{key}"), text).map_err(wrong)?.to_owned()),
        };
        env.insert(key.clone(), value);
    }
    let directory = match &spec.directory {
        None => Below::channel(&super::origin(scope, resource).channel),
        Some(text) => {
            let text = literal("directory", text).map_err(wrong)?;
            files::folder(site, scope, text).map_err(|error| wrong(format!("directory: {error}")))?
        }
    };
    let ready = match &spec.ready {
        None => None,
        Some(Ready::Port(_)) => Some(Readiness::Port),
        Some(Ready::Command(command)) => Some(Readiness::Command(words(site, resource, "ready.command", command)?)),
    };
    let shown: BTreeMap<&String, Value> = env
        .iter()
        .map(|(key, value)| match value {
            Asked::Text(text) => (key, json!(text)),
            Asked::Secret(name) => (key, json!({ "$secret": name })),
        })
        .collect();
    let port = match spec.port {
        None => Value::Null,
        Some(Port::Auto) => json!("auto"),
        Some(Port::Fixed(port)) => json!(port),
    };
    let whole = json!({ "command": command, "env": shown, "directory": directory, "port": port });
    Ok(Plan {
        command,
        env,
        directory,
        port: spec.port,
        ready,
        grace: spec.stop_grace_seconds,
        started_with: Digest::of(whole.to_string().as_bytes()).hex(),
    })
}

/// The program and all arguments of a command that the configuration allows.
fn words(site: &Site, resource: &Resource, field: &str, words: &[Text]) -> Result<Vec<String>, Invalid> {
    let mut texts = Vec::new();
    for word in words {
        let text = literal(field, word).map_err(|message| Invalid::Spec {
            resource: resource.name.clone(),
            message,
        })?;
        texts.push(text.to_owned());
    }
    let (name, given) = texts.split_first().map_or(("", &[][..]), |(name, given)| (name.as_str(), given));
    let command = site.config.command(name).map_err(denied(resource))?;
    let mut whole = vec![command.program.to_string_lossy().into_owned()];
    whole.extend(command.args.iter().cloned());
    whole.extend(given.iter().cloned());
    Ok(whole)
}

/// The program and fixed arguments that stand for the first word of a service's command.
pub(crate) fn prefix(site: &Site, resource: &Resource, spec: &ServiceSpec) -> Result<Vec<String>, Invalid> {
    words(site, resource, "command", spec.command.get(..1).unwrap_or_default())
}

/// A digest by which a changed secret is noticed, of no use without the private record that holds the salt.
fn salted(salt: &str, secret: &str) -> Digest {
    Digest::of(format!("{salt}\0{secret}").as_bytes())
}

impl Plan {
    /// The environment with the secrets in it. It goes to the process and nowhere else.
    fn environment(&self, config: &MachineConfig) -> Result<Vec<(String, String)>, SecretError> {
        let mut all = Vec::new();
        for (key, value) in &self.env {
            let value = match value {
                Asked::Text(text) => text.clone(),
                Asked::Secret(name) => config.secret(name)?,
            };
            all.push((key.clone(), value));
        }
        Ok(all)
    }

    /// The environment as it may be recorded.
    fn recorded(&self, config: &MachineConfig, salt: &str) -> Result<BTreeMap<String, Given>, SecretError> {
        let mut all = BTreeMap::new();
        for (key, value) in &self.env {
            let value = match value {
                Asked::Text(text) => Given::Text(text.clone()),
                Asked::Secret(name) => Given::Secret {
                    name: name.clone(),
                    digest: salted(salt, &config.secret(name)?),
                },
            };
            all.insert(key.clone(), value);
        }
        Ok(all)
    }

    /// The fields in which what was started differs from what is wanted.
    fn differences(&self, config: &MachineConfig, started: &Started) -> Result<Vec<FieldDrift>, SecretError> {
        let mut fields = Vec::new();
        if self.command != started.command {
            fields.push(field(
                "/command",
                Some(words_shown(&self.command)),
                Some(words_shown(&started.command)),
            ));
        }
        let wanted = self.recorded(config, &started.start)?;
        let keys: std::collections::BTreeSet<&String> = wanted.keys().chain(started.env.keys()).collect();
        for key in keys {
            let (now, then) = (wanted.get(key), started.env.get(key));
            if now != then {
                let path = format!("/env/{}", state::spec::pointer_token(key));
                fields.push(field(&path, now.and_then(given_shown), then.and_then(given_shown)));
            }
        }
        if self.directory != started.directory {
            let (wanted, found) = (self.directory.to_string(), started.directory.to_string());
            fields.push(field("/directory", Some(wanted.into()), Some(found.into())));
        }
        let port_differs = match (self.port, started.port) {
            (None, None) | (Some(Port::Auto), Some(_)) => false,
            (Some(Port::Fixed(wanted)), Some(found)) => wanted != found,
            _ => true,
        };
        if port_differs {
            let wanted = self.port.map(|port| match port {
                Port::Auto => json!("auto"),
                Port::Fixed(port) => json!(port),
            });
            fields.push(field("/port", wanted, started.port.map(Value::from)));
        }
        Ok(fields)
    }

    /// How to ask a running service whether it is ready.
    fn probe(&self, site: &Site, started: &Started) -> Result<Option<Probe>, SecretError> {
        Ok(match (&self.ready, started.port) {
            (None, _) | (Some(Readiness::Port), None) => None,
            (Some(Readiness::Port), Some(port)) => Some(Probe::Port(port)),
            (Some(Readiness::Command(command)), port) => {
                let mut env = self.environment(&site.config)?;
                env.extend(port.map(|port| ("PORT".to_owned(), port.to_string())));
                Some(Probe::Command {
                    command: command.clone(),
                    env,
                    directory: site.tree.absolute(&self.directory),
                })
            }
        })
    }
}

fn field(path: &str, wanted: Option<Value>, found: Option<Value>) -> FieldDrift {
    FieldDrift {
        path: path.to_owned(),
        wanted,
        found,
    }
}

fn words_shown(words: &[String]) -> Value {
    cut(&words.join(" "))
}

fn given_shown(given: &Given) -> Option<Value> {
    match given {
        Given::Text(text) => Some(cut(text)),
        Given::Secret { name, .. } => Some(json!({ "$secret": name })),
    }
}

fn cut(text: &str) -> Value {
    match text.char_indices().nth(SHOWN) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// How a service is asked whether it is ready. It may hold secrets, so it is never shown.
pub(crate) enum Probe {
    /// By a connection to its port.
    Port(u16),
    /// By a command.
    Command {
        command: Vec<String>,
        env: Vec<(String, String)>,
        directory: PathBuf,
    },
}

impl Probe {
    /// Asks once; `Err` says what it waits for.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        match self {
            Probe::Port(port) => match timeout(CONNECT, TcpStream::connect(("127.0.0.1", *port))).await {
                Ok(Ok(_)) => Ok(()),
                _ => Err(format!("it does not take connections on port {port} yet")),
            },
            Probe::Command { command, env, directory } => {
                let mut asking = Start {
                    command,
                    env: env.clone(),
                    directory,
                }
                .command();
                asking
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .kill_on_drop(true);
                match timeout(ANSWER, asking.status()).await {
                    Ok(Ok(status)) if status.success() => Ok(()),
                    Ok(Ok(status)) => Err(format!("its readiness command says no ({status})")),
                    Ok(Err(error)) => Err(format!("its readiness command can't run: {error}")),
                    Err(_) => Err("its readiness command did not answer in time".to_owned()),
                }
            }
        }
    }
}

/// A service's record against the processes that carry its label.
struct View<'a> {
    /// The recorded process, or the oldest of the recorded start when the number was not written down yet.
    main: Option<&'a Labelled>,
    /// All others of the recorded start: its children.
    kin: Vec<&'a Labelled>,
    /// Processes of other starts: leftovers of a crash.
    strays: Vec<&'a Labelled>,
    /// The recorded process runs and doesn't show its label.
    closed: Option<i32>,
}

impl<'a> View<'a> {
    fn new(processes: &'a Processes, owner: &'a str, started: Option<&Started>) -> Self {
        let (same, strays): (Vec<_>, Vec<_>) = processes
            .of(owner)
            .partition(|process| started.is_some_and(|started| started.start == process.label.start));
        let recorded = started.and_then(|started| started.process);
        let main = match recorded {
            Some(id) => same.iter().find(|process| process.id == id).copied(),
            None => same.iter().find(|process| process.leads).copied(),
        };
        let kin = same
            .into_iter()
            .filter(|process| main.is_none_or(|main| main.id != process.id))
            .collect();
        let closed = recorded
            .filter(|id| processes.standing(owner, *id) == Standing::Closed)
            .map(|id| id.pid);
        Self { main, kin, strays, closed }
    }

    fn alive(&self) -> Vec<&'a Labelled> {
        let all = self.main.iter().chain(&self.kin).chain(&self.strays);
        all.copied().collect()
    }
}

fn log_name(name: &ResourceName) -> String {
    format!("{name}.log")
}

fn log_path(site: &Site, scope: &Scope, origin: &Origin) -> String {
    let folder = record::log_folder(scope, origin)
        .iter()
        .fold(site.tree.root().to_owned(), |all, part| all.join(part));
    folder.join(log_name(&origin.resource)).display().to_string()
}

fn outputs(site: &Site, scope: &Scope, origin: &Origin, port: Option<u16>) -> Outputs {
    let mut all = Outputs::from([output("log", log_path(site, scope, origin))]);
    if let Some(port) = port {
        all.extend([output("address", format!("127.0.0.1:{port}")), output("port", port)]);
    }
    all
}

fn state(found: &str) -> FieldDrift {
    field("/state", Some("running".into()), Some(found.into()))
}

/// Sees one service; a probe is given when only its readiness is left to ask.
pub(crate) fn observe(
    site: &Site,
    scope: &Scope,
    origin: &Origin,
    record: Option<&Record>,
    processes: &Processes,
    plan: Option<&Plan>,
) -> (Observation, Option<Probe>) {
    let owner = process::owner(scope, origin);
    let external = origin.to_string();
    let started = record.and_then(|record| match &record.thing {
        Thing::Service(started) => Some(started),
        _ => None,
    });
    let view = View::new(processes, &owner, started);
    let there = |owned: bool, port: Option<u16>, drift: Vec<FieldDrift>| Observation::Present {
        external: external.clone(),
        owned,
        outputs: outputs(site, scope, origin, port),
        drift,
        replace: None,
        blocked: None,
    };
    if let Some(pid) = view.closed {
        let why = chain(&Hindrance::Closed(pid));
        return (Observation::Unknown { why }, None);
    }
    let alive = view.alive();
    let (Some(record), Some(started)) = (record, started) else {
        let Some(first) = alive.first() else {
            return (Observation::Absent, None);
        };
        let lost = field("/record", Some("there".into()), Some("lost".into()));
        return (there(true, first.label.port, vec![lost]), None);
    };
    let port = started.port;
    if alive.is_empty() && record.stage != Stage::Made {
        return (Observation::Absent, None);
    }
    if record.stage == Stage::Released {
        let drift = plan.and_then(|plan| plan.differences(&site.config, started).ok());
        return (there(false, port, drift.unwrap_or_default()), None);
    }
    if started.stopping.is_some() && !alive.is_empty() {
        return (there(true, port, vec![state("stopping")]), None);
    }
    let Some(plan) = plan else {
        let drift = if view.main.is_some() { Vec::new() } else { vec![state("stopped")] };
        return (there(true, port, drift), None);
    };
    let mut drift = match plan.differences(&site.config, started) {
        Ok(drift) => drift,
        Err(error) => return (Observation::Unknown { why: chain(&error) }, None),
    };
    if view.main.is_none() {
        drift.insert(0, state("stopped"));
    }
    if view.main.is_some() && started.process.is_none() {
        drift.push(field("/record", Some("made".into()), Some("intended".into())));
    }
    if !view.strays.is_empty() {
        drift.push(field("/leftovers", Some(0.into()), Some(view.strays.len().into())));
    }
    let probe = match plan.probe(site, started) {
        Ok(probe) => probe.filter(|_| drift.is_empty()),
        Err(error) => return (Observation::Unknown { why: chain(&error) }, None),
    };
    (there(true, port, drift), probe)
}
