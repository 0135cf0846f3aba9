//! A working directory, and what the engine on this machine is asked for in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use state::canonical::Digest;
use state::event::Position;
use state::ids::SecretName;
use state::resource::Outputs;

use providers::detached::{self, OUTPUT, Run, going_on};
use providers::records::replace;

use crate::cli::{self, TERRAFORM, TOFU, Version};
use crate::plan::{self, EnginePlan};
use crate::record::Record;
use crate::render::{CONFIGURATION, Rendered, VARIABLES};
use crate::spec::{EngineName, EngineSpec};
use crate::words::Said;
use crate::workspace::{Aim, Outcome, Standing, Workspace};
use crate::{Hindrance, Site};

/// The file of a saved plan, and that with the digest of what it is a plan for.
const PLAN: &str = "saved.tfplan";
pub(crate) const PLANNED: &str = "saved.json";
/// The state, where it is kept beside the configuration.
const STATE: &str = "terraform.tfstate";

/// What was applied last, and the paths of the order's own files that are there, under names that the engine doesn't read.
pub(crate) const APPLIED: &str = "applied.kept";
pub(crate) const LAID: &str = "laid.kept";

/// A working directory.
pub(crate) struct Directory<'a> {
    site: &'a Site,
    program: &'a Path,
    folder: PathBuf,
    secrets: BTreeMap<String, SecretName>,
}

/// What came of asking the engine.
struct Ended {
    code: Option<i32>,
    said: Said,
}

impl Ended {
    fn failed(&self, what: &'static str) -> Hindrance {
        Hindrance::Engine {
            what,
            words: self.said.words(),
        }
    }
}

impl<'a> Directory<'a> {
    pub(crate) fn new(site: &'a Site, program: &'a Path, external: &str, secrets: &BTreeMap<String, SecretName>) -> Self {
        Self {
            site,
            program,
            folder: site.folder(external),
            secrets: secrets.clone(),
        }
    }

    /// Whether there is a state beside the configuration.
    fn has_state(&self) -> bool {
        self.folder.join(STATE).exists()
    }

    /// Puts what was applied last in the place of what was only planned.
    fn restore_applied(&self) -> io::Result<()> {
        match fs::read(self.folder.join(APPLIED)) {
            Ok(bytes) => self.lay(&serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes a configuration, and takes away the files of another one.
    fn lay(&self, rendered: &Rendered) -> io::Result<()> {
        let before: BTreeSet<String> = match fs::read(self.folder.join(LAID)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        let now: BTreeSet<String> = rendered.files.keys().cloned().collect();
        // What may be there stands before it is: whoever comes after a death takes it away.
        let both: BTreeSet<&String> = before.union(&now).collect();
        self.write(LAID, &serde_json::to_string(&both)?)?;
        for gone in before.difference(&now) {
            match fs::remove_file(self.folder.join(gone)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        for (path, text) in &rendered.files {
            if let Some(folder) = self.folder.join(path).parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            self.write(path, text)?;
        }
        self.write(LAID, &serde_json::to_string(&now)?)?;
        self.write(CONFIGURATION, &rendered.configuration)?;
        self.write(VARIABLES, &rendered.variables)
    }

    /// Asks the engine what it is.
    async fn asked(&self) -> Result<Version, Hindrance> {
        // Another Charter of this member's may ask, too.
        let folder = self.site.config.folder.join(format!("engine.{}", std::process::id()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let environment = BTreeMap::from([("CHECKPOINT_DISABLE".to_owned(), "1".to_owned())]);
        let run = Run {
            program: self.program,
            folder: &folder,
            notes: &folder,
            what: "the engine's version",
            arguments: &["version"],
            environment: &environment,
            deadline: self.site.config.deadline(),
            log: None,
        };
        let ended = detached::run(&run).await;
        let _ = fs::remove_dir_all(&folder);
        let ended = ended?;
        let said = Version::read(&ended.output).filter(|_| ended.code == Some(0));
        said.ok_or_else(|| Hindrance::Invalid("the engine doesn't say which one it is".to_owned()))
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
                return Err(Hindrance::provider(source));
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
        replace(&path, text.as_bytes())
    }

    fn forget_plan(&self) -> io::Result<()> {
        for name in [PLANNED, PLAN] {
            match fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn run(&self, what: &str, arguments: &[&str]) -> Result<Ended, Hindrance> {
        let config = &self.site.config;
        let mut environment = cli::environment(&self.folder, &self.site.engine_config()?);
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
            program: self.program,
            folder: &self.folder,
            notes: &self.folder,
            what,
            arguments,
            environment: &environment,
            deadline: config.deadline(),
            log: None,
        };
        let ended = detached::run(&run).await?;
        let (output, complaints) = (ended.output, ended.complaints);
        Ok(Ended {
            code: ended.code,
            said: Said {
                output,
                complaints,
                secrets,
            },
        })
    }
}

#[async_trait]
impl Workspace for Directory<'_> {
    fn engine(&self) -> String {
        self.program.display().to_string()
    }

    async fn suits(&self, wanted: &EngineSpec) -> Result<(), Hindrance> {
        if *wanted == EngineSpec::default() {
            return Ok(());
        }
        let engine = self.site.engine.get_or_try_init(|| self.asked()).await?;
        let name = wanted.name.map(|name| match name {
            EngineName::Tofu => TOFU,
            EngineName::Terraform => TERRAFORM,
        });
        let fits = name.is_none_or(|name| name == engine.name) && wanted.version.as_ref().is_none_or(|one| *one == engine.version);
        match fits {
            true => Ok(()),
            false => Err(Hindrance::Invalid(format!(
                "it has to be made by {}{}, and terraform.engine in charter.toml is {} {}",
                name.unwrap_or("version"),
                wanted.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default(),
                engine.name,
                engine.version
            ))),
        }
    }

    async fn is_there(&self) -> Result<bool, Hindrance> {
        Ok(self.folder.join(CONFIGURATION).exists() || self.has_state())
    }

    fn going_on(&self) -> Option<String> {
        going_on(&self.folder)
    }

    async fn standing(&self, record: &mut Record) -> Result<Standing, Hindrance> {
        if self.site.config.backend.is_some() || self.has_state() {
            return Ok(Standing::There(None));
        }
        match (self.going_on(), &record.applied) {
            (Some(why), _) => Ok(Standing::Busy(why)),
            (None, None) => Ok(Standing::Nothing),
            (None, Some(_)) => Err(Hindrance::StateGone(self.folder.clone())),
        }
    }

    async fn assessed(&self, _record: &Record) -> Result<bool, Hindrance> {
        Ok(false)
    }

    async fn prepare(&self, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.lay(rendered)?;
        let files = serde_json::to_string(&rendered.files).map_err(io::Error::from)?;
        let wanted = Digest::of(format!("{}\0{files}", rendered.configuration).as_bytes()).hex();
        if record.ready_for.as_ref() == Some(&wanted) && self.folder.join(".terraform").is_dir() {
            return Ok(());
        }
        let ended = self.run("the preparation", &["init", "-input=false", "-no-color"]).await?;
        if ended.code != Some(0) {
            return Err(ended.failed("init"));
        }
        self.locked()?;
        record.ready_for = Some(wanted);
        Ok(())
    }

    async fn plan(&self, aim: Aim<'_>, _record: &mut Record) -> Result<Outcome, Hindrance> {
        self.forget_plan()?;
        let out = format!("-out={PLAN}");
        let mut arguments = vec!["plan", "-input=false", "-no-color", "-json", "-detailed-exitcode", &out];
        let inputs = match aim {
            Aim::Make(inputs) => inputs,
            Aim::Destroy => {
                self.restore_applied()?;
                arguments.push("-destroy");
                "destroy"
            }
        };
        let ended = self.run("the plan", &arguments).await?;
        if !matches!(ended.code, Some(0 | 2)) {
            return Err(ended.failed("plan"));
        }
        let shown = self.run("the plan's reading", &["show", "-json", "-no-color", PLAN]).await?;
        if shown.code != Some(0) {
            return Err(shown.failed("show"));
        }
        let plan = EnginePlan::read(&shown.said.output).map_err(Hindrance::Invalid)?;
        // It may hold secrets: nobody needs it any more.
        let _ = fs::remove_file(self.folder.join(OUTPUT));
        if ended.code == Some(0) {
            self.forget_plan()?;
            return Ok(Outcome::Same(plan));
        }
        self.write(PLANNED, &serde_json::to_string(inputs).map_err(io::Error::from)?)?;
        Ok(Outcome::Changes(plan))
    }

    async fn is_planned(&self, inputs: &str, _record: &Record) -> Result<bool, Hindrance> {
        let planned = fs::read(self.folder.join(PLANNED)).ok();
        let planned: Option<String> = planned.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(planned.as_deref() == Some(inputs) && self.folder.join(PLAN).exists())
    }

    async fn apply(&self, _order: Option<Position>, _record: &mut Record) -> Result<Option<String>, Hindrance> {
        let arguments = ["apply", "-input=false", "-no-color", "-json", PLAN];
        let ended = self.run("the application", &arguments).await;
        self.forget_plan()?;
        let ended = ended?;
        let _ = fs::remove_file(self.folder.join(OUTPUT));
        match ended.code {
            Some(0) => Ok(None),
            _ if ended.said.words().contains("Saved plan is stale") => Ok(Some(crate::STALE.to_owned())),
            _ => Err(Hindrance::applying(&ended.said)),
        }
    }

    fn keep_applied(&self, rendered: &Rendered, _record: &mut Record) -> Result<(), Hindrance> {
        Ok(self.write(APPLIED, &serde_json::to_string(rendered).map_err(io::Error::from)?)?)
    }

    async fn outputs(&self, _record: &mut Record) -> Result<Outputs, Hindrance> {
        let ended = self.run("the outputs", &["output", "-json", "-no-color"]).await?;
        let _ = fs::remove_file(self.folder.join(OUTPUT));
        match ended.code {
            Some(0) => plan::read_outputs(&ended.said.output).map_err(Hindrance::Invalid),
            _ => Err(ended.failed("output")),
        }
    }

    async fn remove(&self, _record: &Record) -> Result<Option<String>, Hindrance> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(None),
        }
    }
}
