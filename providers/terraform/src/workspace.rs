//! A working directory, and what the engine is asked for in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use state::canonical::Digest;
use state::ids::SecretName;
use state::resource::Outputs;

use providers::records::private;

use crate::engine::{self, Ended, Run, going_on};
use crate::plan::{self, EnginePlan};
use crate::record::Record;
use crate::render::{CONFIGURATION, Rendered, VARIABLES};
use crate::{Hindrance, Site};

/// The file of a saved plan, and that with the digest of what it is a plan for.
const PLAN: &str = "saved.tfplan";
const PLANNED: &str = "saved.json";
/// The state, where it is kept beside the configuration.
const STATE: &str = "terraform.tfstate";

/// What was applied last, under names that the engine doesn't read.
const KEPT: [(&str, &str); 2] = [(CONFIGURATION, "applied.configuration"), (VARIABLES, "applied.variables")];
/// How long it is waited for somebody else in a working directory, and how long between two tries.
const WAIT: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(50);

/// A working directory.
pub(crate) struct Workspace<'a> {
    site: &'a Site,
    folder: PathBuf,
    secrets: BTreeMap<String, SecretName>,
}

/// The right to work in a directory, for as long as this is held. It goes with its process.
pub(crate) struct Hold(#[expect(dead_code, reason = "its lock is what counts")] fs::File);

/// What planning gave.
pub(crate) enum Outcome {
    /// Everything is as the configuration says.
    Same(EnginePlan),
    /// Something would be done.
    Changes(EnginePlan),
}

impl<'a> Workspace<'a> {
    pub(crate) fn new(site: &'a Site, external: &str, secrets: &BTreeMap<String, SecretName>) -> Self {
        Self {
            site,
            folder: site.folder(external),
            secrets: secrets.clone(),
        }
    }

    /// Whether anything is there.
    pub(crate) fn is_there(&self) -> bool {
        self.folder.join(CONFIGURATION).exists() || self.has_state()
    }

    /// Whether there is a state beside the configuration.
    pub(crate) fn has_state(&self) -> bool {
        self.folder.join(STATE).exists()
    }

    /// What an engine does there that an earlier Charter has left.
    pub(crate) fn going_on(&self) -> Option<String> {
        going_on(&self.folder)
    }

    /// Waits for a while until nobody works in the directory: no other Charter (a service, and a person's plan), and no engine that an
    /// earlier one has left. `Err`: who does.
    pub(crate) async fn hold(&self) -> Result<Result<Hold, String>, Hindrance> {
        // Nobody takes a lock's file away: another one of its name would be another lock.
        let locks = self.site.config.folder.join("locks");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&locks)?;
        let lock = locks.join(self.folder.file_name().unwrap_or_default());
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock)?;
        let end = Instant::now() + WAIT;
        loop {
            let why = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => match going_on(&self.folder) {
                    None => return Ok(Ok(Hold(file))),
                    Some(why) => why,
                },
                Err(Errno::WOULDBLOCK) => "another Charter of this member works on it".to_owned(),
                Err(error) => return Err(Hindrance::Folder(error.into())),
            };
            if Instant::now() > end {
                return Ok(Err(why));
            }
            let _ = flock(&file, FlockOperation::Unlock);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Keeps what was applied: what is only planned stands in the directory too.
    pub(crate) fn keep_applied(&self) -> io::Result<()> {
        for (name, kept) in KEPT {
            fs::copy(self.folder.join(name), self.folder.join(kept))?;
        }
        Ok(())
    }

    /// Puts what was applied last in the place of what was only planned.
    pub(crate) fn restore_applied(&self) -> io::Result<()> {
        for (name, kept) in KEPT {
            match fs::copy(self.folder.join(kept), self.folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What a plan depends on: the configuration, its variables, and the engine.
    pub(crate) fn inputs(&self, rendered: &Rendered) -> String {
        let secrets = serde_json::to_string(&rendered.secrets).unwrap_or_default();
        let parts = [
            &rendered.configuration,
            &rendered.variables,
            &secrets,
            &self.site.config.engine.display().to_string(),
        ];
        let text: Vec<String> = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
        Digest::of(text.join("\0").as_bytes()).hex()
    }

    /// Writes the configuration, and makes the directory ready for it.
    pub(crate) async fn prepare(&self, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.write(CONFIGURATION, &rendered.configuration)?;
        self.write(VARIABLES, &rendered.variables)?;
        let wanted = Digest::of(rendered.configuration.as_bytes()).hex();
        if record.ready_for.as_ref() == Some(&wanted) && self.folder.join(".terraform").is_dir() {
            return Ok(());
        }
        let ended = self.engine("the preparation", &["init", "-input=false", "-no-color"]).await?;
        match ended.code {
            Some(0) => {
                self.locked()?;
                record.ready_for = Some(wanted);
                Ok(())
            }
            _ => Err(Hindrance::Engine {
                what: "init",
                words: ended.words(),
            }),
        }
    }

    /// Holds every provider that the engine has chosen to those that orders may use: modules name their own.
    fn locked(&self) -> Result<(), Hindrance> {
        let text = match fs::read_to_string(self.folder.join(".terraform.lock.hcl")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let chosen = text.lines().filter_map(|line| line.strip_prefix("provider \"")?.split('"').next());
        for source in chosen {
            if !self.site.config.gives_provider(source) {
                return Err(Hindrance::Invalid(format!(
                    "the provider {source}, which a module needs, is none of terraform.providers in charter.toml: add it to allow it"
                )));
            }
        }
        Ok(())
    }

    /// Writes a file, if it is another one.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        let next = self.folder.join(format!("{name}.next"));
        let mut file = private(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&next, &path)
    }

    /// Plans, and keeps the plan for [`Workspace::apply`].
    pub(crate) async fn plan(&self, inputs: &str, destroy: bool) -> Result<Outcome, Hindrance> {
        self.forget_plan()?;
        let out = format!("-out={PLAN}");
        let mut arguments = vec!["plan", "-input=false", "-no-color", "-json", "-detailed-exitcode", &out];
        arguments.extend(destroy.then_some("-destroy"));
        let ended = self.engine("the plan", &arguments).await?;
        if !matches!(ended.code, Some(0 | 2)) {
            return Err(Hindrance::Engine {
                what: "plan",
                words: ended.words(),
            });
        }
        let shown = self.engine("the plan's reading", &["show", "-json", "-no-color", PLAN]).await?;
        if shown.code != Some(0) {
            return Err(Hindrance::Engine {
                what: "show",
                words: shown.words(),
            });
        }
        let plan = EnginePlan::read(&shown.output).map_err(Hindrance::Invalid)?;
        // It may hold secrets: nobody needs it any more.
        let _ = fs::remove_file(self.folder.join("output"));
        if ended.code == Some(0) {
            self.forget_plan()?;
            return Ok(Outcome::Same(plan));
        }
        self.write(PLANNED, &serde_json::to_string(inputs).map_err(io::Error::from)?)?;
        Ok(Outcome::Changes(plan))
    }

    /// Whether a plan for these inputs is kept.
    pub(crate) fn is_planned(&self, inputs: &str) -> bool {
        let planned = fs::read(self.folder.join(PLANNED)).ok();
        let planned: Option<String> = planned.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        planned.as_deref() == Some(inputs) && self.folder.join(PLAN).exists()
    }

    pub(crate) fn forget_plan(&self) -> io::Result<()> {
        for name in [PLANNED, PLAN] {
            match fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Applies the plan that is kept, and nothing else. `Some`: the engine has refused it as one of before.
    pub(crate) async fn apply(&self) -> Result<Option<String>, Hindrance> {
        let ended = self
            .engine("the application", &["apply", "-input=false", "-no-color", "-json", PLAN])
            .await;
        self.forget_plan()?;
        let ended = ended?;
        let _ = fs::remove_file(self.folder.join("output"));
        if ended.code == Some(0) {
            return Ok(None);
        }
        let words = ended.words();
        if words.contains("Saved plan is stale") {
            return Ok(Some(
                "its state has changed since it was planned: the next pass plans anew".to_owned(),
            ));
        }
        let made = done(&ended);
        let words = match made.is_empty() {
            true => words,
            false => format!("{words} (done before that: {})", made.join(", ")),
        };
        Err(Hindrance::Engine { what: "apply", words })
    }

    /// What it gives, without what is sensitive.
    pub(crate) async fn outputs(&self) -> Result<Outputs, Hindrance> {
        let ended = self.engine("the outputs", &["output", "-json", "-no-color"]).await?;
        let _ = fs::remove_file(self.folder.join("output"));
        match ended.code {
            Some(0) => plan::read_outputs(&ended.output).map_err(Hindrance::Invalid),
            _ => Err(Hindrance::Engine {
                what: "output",
                words: ended.words(),
            }),
        }
    }

    /// Takes the directory away.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn engine(&self, what: &str, arguments: &[&str]) -> Result<Ended, Hindrance> {
        let config = &self.site.config;
        let mut environment = BTreeMap::from([
            ("TF_IN_AUTOMATION".to_owned(), "1".to_owned()),
            ("TF_INPUT".to_owned(), "0".to_owned()),
            ("CHECKPOINT_DISABLE".to_owned(), "1".to_owned()),
            ("HOME".to_owned(), self.folder.display().to_string()),
            ("TF_CLI_CONFIG_FILE".to_owned(), self.site.engine_config()?.display().to_string()),
        ]);
        let mut secrets = BTreeMap::new();
        let variables = self.secrets.iter().map(|(name, secret)| (format!("TF_VAR_{name}"), secret));
        let own = config.environment.iter().map(|(name, secret)| (name.clone(), secret));
        for (name, secret) in own.chain(variables) {
            let value = config.secret(secret)?;
            secrets.insert(secret.to_string(), value.clone());
            environment.insert(name, value);
        }
        let _turn = self.site.turns.acquire().await;
        let run = Run {
            program: &config.engine,
            folder: &self.folder,
            what,
            arguments,
            environment: &environment,
            deadline: config.deadline(),
        };
        let ended = engine::run(&run).await?;
        Ok(Ended { secrets, ..ended })
    }
}

/// What an application that failed had done before.
fn done(ended: &Ended) -> Vec<String> {
    let lines = ended.output.split(|byte| *byte == b'\n');
    let all = lines.filter_map(|line| {
        let line: serde_json::Value = serde_json::from_slice(line).ok()?;
        let address = line["hook"]["resource"]["addr"]
            .as_str()
            .filter(|_| line["type"] == "apply_complete")?;
        Some(address.to_owned())
    });
    all.collect()
}

/// The engine's own configuration: where providers come from. Nothing of the user's who runs Charter counts.
pub(crate) fn engine_config(folder: &Path, mirror: Option<&Path>) -> io::Result<PathBuf> {
    let path = folder.join("engine.tfrc");
    let text = match mirror {
        None => "disable_checkpoint = true\n".to_owned(),
        Some(mirror) => {
            let mirror = serde_json::to_string(&mirror.display().to_string())?;
            format!("disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{\n    path = {mirror}\n  }}\n}}\n")
        }
    };
    if fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(path);
    }
    fs::create_dir_all(folder)?;
    let next = folder.join("engine.tfrc.next");
    fs::write(&next, text)?;
    fs::rename(&next, &path)?;
    Ok(path)
}
