//! Processes: found through `/proc` by their owner label, started in a session of their own, and signalled only when they are surely ours.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;

use process_wrap::tokio::{CommandWrap, ProcessSession};
use procfs::ProcError;
use procfs::process::{Process, all_processes};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::record::ProcessId;
use crate::Scope;
use state::ids::ResourceName;
use state::resource::{OnRetire, Origin};

/// The environment variables of the owner label.
const ROOT: &str = "CHARTER_ROOT";
const OWNER: &str = "CHARTER_OWNER";
const START: &str = "CHARTER_START";
const STARTED_WITH: &str = "CHARTER_STARTED_WITH";
const ON_RETIRE: &str = "CHARTER_ON_RETIRE";
/// Where programs that a service starts itself are looked for.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The owner label in a process's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The root below which the service lives: two roots on one machine don't know each other.
    pub(crate) root: String,
    /// `<channel>/<member>/<resource>`, of where it was ordered first.
    pub(crate) owner: String,
    /// The random text of this start.
    pub(crate) start: String,
    /// A digest of what it was started with, without its secrets.
    pub(crate) started_with: String,
    /// What happens to it when it is retired.
    pub(crate) on_retire: OnRetire,
    /// The port that it was told.
    pub(crate) port: Option<u16>,
}

impl Label {
    /// The variables that carry the label.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let on_retire = match self.on_retire {
            OnRetire::Delete => "delete",
            OnRetire::Retain => "retain",
        };
        let mut all = vec![
            (ROOT, self.root.clone()),
            (OWNER, self.owner.clone()),
            (START, self.start.clone()),
            (STARTED_WITH, self.started_with.clone()),
            (ON_RETIRE, on_retire.to_owned()),
        ];
        all.extend(self.port.map(|port| ("PORT", port.to_string())));
        all
    }

    fn read(environ: &HashMap<OsString, OsString>) -> Option<Self> {
        let get = |name: &str| environ.get(&OsString::from(name)).and_then(|value| value.to_str());
        Some(Self {
            root: get(ROOT)?.to_owned(),
            owner: get(OWNER)?.to_owned(),
            start: get(START)?.to_owned(),
            started_with: get(STARTED_WITH).unwrap_or_default().to_owned(),
            on_retire: match get(ON_RETIRE) {
                Some("retain") => OnRetire::Retain,
                _ => OnRetire::Delete,
            },
            port: get("PORT").and_then(|port| port.parse().ok()),
        })
    }
}

/// The owner's part of a label.
pub(crate) fn owner(scope: &Scope, origin: &Origin) -> String {
    format!("{}/{}/{}", origin.channel, scope.member, origin.resource)
}

/// The resource that an owner's part names, if it is one of this scope.
pub(crate) fn owned_by(scope: &Scope, owner: &str) -> Option<ResourceName> {
    let rest = owner.strip_prefix(scope.channel.as_str())?.strip_prefix('/')?;
    let name = rest.strip_prefix(scope.member.as_str())?.strip_prefix('/')?;
    ResourceName::new(name).ok()
}

/// A live process that carries a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labelled {
    pub(crate) id: ProcessId,
    /// Whether it leads a session, as every process does that Charter starts.
    pub(crate) leads: bool,
    pub(crate) label: Label,
}

/// All live processes of the machine, seen once.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    labelled: Vec<Labelled>,
    /// All other live processes: number and start time.
    others: BTreeMap<i32, u64>,
}

/// How a recorded process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It runs and carries our label.
    Runs,
    /// It doesn't run; its number may be a stranger's by now.
    Gone,
    /// A process of that number and start time runs, and shows no label: its environment may not be read, was overwritten, or is just
    /// being replaced by an exec. It is neither signalled nor started a second time.
    Closed,
}

impl Processes {
    /// Looks at all processes of the machine.
    pub(crate) fn scan(root: &Path) -> Result<Self, ProcError> {
        let mut all = Self::default();
        for process in all_processes()? {
            // A process may end between any two looks at it.
            let Ok(process) = process else { continue };
            let Ok(stat) = process.stat() else { continue };
            // A zombie is dead, unless only its first thread ended.
            if matches!(stat.state, 'Z' | 'X' | 'x') && stat.num_threads <= 1 {
                continue;
            }
            let id = ProcessId {
                ticks: stat.starttime,
                pid: stat.pid,
            };
            let label = process.environ().ok().and_then(|environ| Label::read(&environ));
            match label.filter(|label| Path::new(&label.root) == root) {
                Some(label) => {
                    let leads = stat.session == stat.pid;
                    all.labelled.push(Labelled { id, leads, label });
                }
                None => {
                    all.others.insert(id.pid, id.ticks);
                }
            }
        }
        all.labelled.sort_by_key(|process| process.id);
        Ok(all)
    }

    /// The live processes of one owner, the oldest first.
    pub(crate) fn of<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a Labelled> {
        self.labelled.iter().filter(move |process| process.label.owner == owner)
    }

    /// All live processes that carry a label of this root.
    pub(crate) fn labelled(&self) -> &[Labelled] {
        &self.labelled
    }

    /// How a recorded process stands: number, start time and label have to agree.
    pub(crate) fn standing(&self, owner: &str, id: ProcessId) -> Standing {
        if self.of(owner).any(|process| process.id == id) {
            return Standing::Runs;
        }
        match self.others.get(&id.pid) {
            Some(ticks) if *ticks == id.ticks => Standing::Closed,
            _ => Standing::Gone,
        }
    }
}

/// How a process is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With SIGTERM.
    Gently,
    /// With SIGKILL.
    Surely,
}

/// Ends a process, if it is still the one that was seen. One that is gone is fine.
pub(crate) fn end(process: &Labelled, how: End) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(process.id.pid) else { return Ok(()) };
    // The descriptor holds on to this very process, so nothing can take its number between the check and the signal.
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let Ok(now) = Process::new(process.id.pid) else { return Ok(()) };
    let same_start = now.stat().is_ok_and(|stat| stat.starttime == process.id.ticks);
    let same_label = now
        .environ()
        .is_ok_and(|environ| Label::read(&environ).as_ref() == Some(&process.label));
    if !(same_start && same_label) {
        return Ok(());
    }
    let signal = match how {
        End::Gently => Signal::TERM,
        End::Surely => Signal::KILL,
    };
    match pidfd_send_signal(&handle, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What a process is started with. It holds secrets: it is never recorded or shown.
pub(crate) struct Start<'a> {
    pub(crate) command: &'a [String],
    pub(crate) env: Vec<(String, String)>,
    pub(crate) directory: &'a Path,
}

impl Start<'_> {
    /// The command as the operating system takes it. The environment of Charter itself is not passed on.
    pub(crate) fn command(&self) -> tokio::process::Command {
        let (program, args) = self.command.split_first().map_or(("", &[][..]), |(program, args)| (program, args));
        let mut command = tokio::process::Command::new(program);
        command.args(args).current_dir(self.directory).env_clear().env("PATH", PATH);
        command.envs(self.env.iter().map(|(key, value)| (key, value))).stdin(Stdio::null());
        command
    }
}

/// Starts a process that outlives Charter: in a session of its own, with its output in a file. Needs a tokio runtime around it.
pub(crate) fn spawn(start: &Start<'_>, log: File) -> io::Result<Option<ProcessId>> {
    let mut command = start.command();
    command.stdout(log.try_clone()?).stderr(log);
    // The session's wrapper would wait for every process of the group; only the first one is Charter's child.
    let mut child = CommandWrap::from(command).wrap(ProcessSession).spawn()?.into_inner();
    let id = child.id().and_then(|pid| i32::try_from(pid).ok());
    // Seen before it is waited for: a child that ended keeps its number and start time until then.
    let process = id.and_then(|pid| Process::new(pid).ok()?.stat().ok()).map(|stat| ProcessId {
        ticks: stat.starttime,
        pid: stat.pid,
    });
    // While Charter runs it is the parent, and so has to take the end of its children.
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) => tracing::debug!(?id, %status, "a service ended"),
            Err(error) => tracing::debug!(?id, %error, "a service could not be waited for"),
        }
    });
    Ok(process)
}

/// A random text of 32 hexadecimal digits.
pub(crate) fn random() -> io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use state::ids::{Channel, MemberId};

    #[test]
    fn an_owner_names_its_scope_whole() {
        let scope = Scope::new(Channel::new("ch-1").unwrap(), MemberId::new("city").unwrap());
        let name = ResourceName::new("air").unwrap();
        let origin = Origin::of(&scope.channel, &name, None);
        assert_eq!(owned_by(&scope, &owner(&scope, &origin)), Some(name));
        for other in [
            "ch-1/citya/air",
            "ch-1/city2/air",
            "ch-12/city/air",
            "ch-1/city/../air",
            "ch-1/city/",
        ] {
            assert_eq!(owned_by(&scope, other), None, "{other}");
        }
    }

    #[test]
    fn a_stranger_with_a_recorded_number_is_never_signalled() {
        let mut stranger = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(stranger.id()).unwrap();
        let ticks = Process::new(pid).unwrap().stat().unwrap().starttime;
        let label = Label {
            root: "/r".to_owned(),
            owner: "c/m/x".to_owned(),
            start: "s".to_owned(),
            started_with: String::new(),
            on_retire: OnRetire::Delete,
            port: None,
        };
        for (ticks, standing) in [(ticks, Standing::Closed), (ticks + 1, Standing::Gone)] {
            let id = ProcessId { ticks, pid };
            let process = Labelled {
                id,
                leads: true,
                label: label.clone(),
            };
            end(&process, End::Surely).unwrap();
            assert_eq!(Processes::scan(Path::new("/r")).unwrap().standing("c/m/x", id), standing);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
