//! A world of its own for each test: a data directory, a home, the binary, and everything that was started in it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use msp::{CertificateAuthority, Enrolment, Issued, Role};
use serde_json::Value;

use crate::command::{self, Ended};
use crate::processes::{self, Service};
use crate::repository::Repository;
use crate::serving::Running;
use crate::standing::Members;
use crate::wait::{DEADLINE, until};

/// A folder of its own with a data directory in it, and commands that know nothing else.
pub struct World {
    folder: tempfile::TempDir,
    root: PathBuf,
    started: std::cell::Cell<usize>,
    given: RefCell<BTreeMap<String, OsString>>,
}

impl World {
    /// Makes an empty one.
    ///
    /// # Panics
    /// When there is no place for it.
    #[allow(clippy::new_without_default, reason = "making one has effects on the disk")]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("charter-test-")
            .tempdir()
            .expect("a temporary folder can be made");
        let root = folder.path().canonicalize().expect("the folder was just made");
        std::fs::create_dir(root.join("home")).expect("the folder was just made");
        Self {
            folder,
            root,
            started: std::cell::Cell::new(0),
            given: RefCell::default(),
        }
    }

    /// Makes one, and brings the smart city up in it once.
    pub fn smart_city() -> Self {
        let world = Self::new();
        world.up().exits(0);
        world
    }

    /// The world's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Gives every command from now on a variable in its environment.
    pub fn give(&self, name: &str, value: impl Into<OsString>) {
        self.given.borrow_mut().insert(name.to_owned(), value.into());
    }

    /// Issues a certificate with a new key for a member's Charter, as the authority of its organisation does.
    ///
    /// # Panics
    /// When the embedded ledger has no such member.
    pub fn issue(&self, member: &str) -> Issued {
        let folder = self.data().join("ledger/organisations").join(member).join("ca");
        let read = |name: &str| std::fs::read(folder.join(name)).expect("the embedded ledger keeps each member's authority");
        let authority = CertificateAuthority::from_pem(&read("ca.pem"), &read("ca.key")).expect("the embedded ledger made it");
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let charter = Enrolment::Member {
            name: &format!("client.{member}"),
            role: Role::Client,
        };
        let issued = authority.enrol(member, &charter, i64::try_from(now).unwrap_or(i64::MAX));
        issued.expect("the authority can issue")
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The folder of a member's Charter.
    pub fn member(&self, member: &str) -> PathBuf {
        self.data().join("members").join(member)
    }

    /// The configuration of a member's Charter.
    pub fn config(&self, member: &str) -> PathBuf {
        self.member(member).join("charter.toml")
    }

    /// Changes one setting of a member's configuration, by hand as its engineer would: the line `name = …` gets another value.
    ///
    /// # Panics
    /// When there is no such line.
    #[track_caller]
    pub fn set(&self, member: &str, name: &str, value: &str) {
        let path = self.config(member);
        let text = std::fs::read_to_string(&path).expect("a member has a configuration");
        let mut changed = 0;
        let line = |line: &str| match line.split_once(" = ") {
            Some((found, _)) if found == name => {
                changed += 1;
                format!("{name} = {value}\n")
            }
            _ => format!("{line}\n"),
        };
        let text: String = text.lines().map(line).collect();
        assert_eq!(changed, 1, "{name} in {}", path.display());
        std::fs::write(&path, text).expect("a member's configuration can be written");
    }

    /// A member's store.
    pub fn store(&self, member: &str) -> Repository {
        self.repository(&self.member(member).join("store.git"))
    }

    /// A repository anywhere.
    pub fn repository(&self, path: &Path) -> Repository {
        Repository::new(self.bare_command("git"), path)
    }

    /// Any program, with nothing of the user's environment but the path.
    pub fn bare_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root.join("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "1")
            .env(processes::WORLD, &self.root)
            .envs(self.given.borrow().iter());
        command
    }

    /// A `charter` command on this world's data directory.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.bare_command(binary());
        command.arg("--data-dir").arg(self.data()).args(words);
        command
    }

    /// Runs a `charter` command to its end.
    #[track_caller]
    pub fn charter(&self, words: &[&str]) -> Ended {
        command::run(self.command(words), DEADLINE)
    }

    /// Starts a `charter` command that goes on until it is told to stop.
    #[track_caller]
    pub fn start(&self, words: &[&str]) -> Running {
        let number = self.started.get();
        self.started.set(number + 1);
        let name = |end: &str| self.root.join(format!("{number}-{}.{end}", words.first().unwrap_or(&"charter")));
        Running::start(self.command(words), name("out"), name("err"))
    }

    /// Brings the smart city up once.
    #[track_caller]
    pub fn up(&self) -> Ended {
        self.charter(&["up", "--once", &smart_city().display().to_string()])
    }

    /// Starts the data directory's ledger by itself, and waits until it listens.
    #[track_caller]
    pub fn ledger(&self) -> Running {
        let mut ledger = self.start(&["ledger", "serve"]);
        ledger.says("listening on");
        ledger
    }

    /// Does what [`ledger`](Self::ledger) does, however often it takes while another command has the ledger open for itself.
    #[track_caller]
    pub fn ledger_in_turn(&self) -> Running {
        until("the ledger is free", || {
            let mut ledger = self.start(&["ledger", "serve"]);
            let listens = until("the ledger listens or ends", || {
                match (ledger.runs(), ledger.said("listening on")) {
                    (_, 1..) => Ok(true),
                    (false, 0) => Ok(false),
                    (true, 0) => Err("neither"),
                }
            });
            if listens {
                return Ok(ledger);
            }
            assert_eq!(ledger.said("is already open in another process"), 1, "{}", ledger.stderr());
            Err("another command has it open")
        })
    }

    /// Starts a member's Charter, and waits until it serves.
    #[track_caller]
    pub fn serve(&self, member: &str) -> Running {
        let mut serve = self.start(&["serve", "--config", &self.config(member).display().to_string()]);
        serve.says("/healthz");
        serve
    }

    /// Puts text into a file of the world.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.root.join(name);
        std::fs::write(&path, text).expect("the world's folder can be written");
        path.display().to_string()
    }

    /// Submits a document for a member on a channel.
    #[track_caller]
    pub fn submit(&self, member: &str, channel: &str, document: &Value) -> Ended {
        let number = self.started.get();
        self.started.set(number + 1);
        let file = self.file(&format!("{number}-document.yaml"), &document.to_string());
        self.charter(&["submit", &file, "--member", member, "--channel", channel])
    }

    /// How all members see their channels now.
    #[track_caller]
    pub fn status(&self) -> Members {
        Members::new(self.charter(&["status", "-o", "json"]).json())
    }

    /// Waits until every member has taken in a block of a channel, and everything that is ordered is as ordered.
    #[track_caller]
    pub fn converged_at(&self, channel: &str, block: u64) -> Members {
        until(&format!("{channel} has converged at block {block}"), || {
            self.status().converged_at(channel, block)
        })
    }

    /// Waits until everything that is ordered anywhere is as ordered.
    #[track_caller]
    pub fn converged(&self) -> Members {
        until("all channels have converged", || self.status().converged())
    }

    /// The services that run in this world.
    pub fn services(&self) -> Vec<Service> {
        processes::services(&self.root)
    }

    /// The one process of a service.
    ///
    /// # Panics
    /// When it doesn't run, or twice.
    #[track_caller]
    pub fn service(&self, owner: &str) -> Service {
        let mut found = self.services();
        found.retain(|service| service.owner == owner);
        assert_eq!(found.len(), 1, "processes of {owner}: {found:?}");
        found.remove(0)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        processes::kill_all(&self.root);
        if std::thread::panicking() {
            eprintln!("the world was {}", self.folder.path().display());
        }
    }
}

/// The folder of the example.
pub fn smart_city() -> PathBuf {
    workspace().join("examples/smart-city")
}

fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("this crate is a folder of the workspace").to_owned()
}

/// The binary under test: the one that `CHARTER` names, or the workspace's own, brought up to date.
///
/// # Panics
/// When there is none.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = std::env::var_os("CHARTER") {
            // As the process itself sees its path: without links.
            return std::fs::canonicalize(named).expect("CHARTER names a file");
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build
            .current_dir(workspace())
            .args(["build", "--quiet", "--locked", "-p", "reconciler"]);
        let built = build.status().expect("cargo can be run");
        assert!(built.success(), "the binary can't be built; build it, or name one with CHARTER");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
        target.join("debug/charter")
    })
}
