//! A workspace of an organization's on a server: Terraform Cloud (HCP Terraform), Terraform Enterprise, or what speaks their API.
//!
//! What is begun there is written down before it is asked for, under a mark that the server keeps too: when an answer is lost, what was
//! begun is found again by its mark, and nothing is begun twice.

mod client;
mod documents;
mod pack;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::canonical::Digest;
use state::event::Position;
use state::ids::SecretName;
use state::resource::Outputs;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, sleep};

use providers::detached::now;

use self::client::{Body, Request};
pub(crate) use self::client::{Client, CloudError};
use self::documents::{Run, Workspace as Document, id, outputs};
use crate::config::CloudConfig;
use crate::plan::EnginePlan;
use crate::record::Record;
use crate::render::{CONFIGURATION, Rendered, VARIABLES};
use crate::spec::EngineSpec;
use crate::words::Said;
use crate::workspace::{Aim, Outcome, Standing, Workspace};
use crate::{Hindrance, STALE, Site};

/// How long a run, or an upload, is waited for in one pass; the next pass goes on waiting.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is waited between two looks at it: at first, and at most.
const POLL: Duration = Duration::from_millis(100);
const SLOWEST_POLL: Duration = Duration::from_secs(2);
/// The most of a log that is read, and of one request for it, in bytes.
const MAX_LOG: usize = 1024 * 1024;
const LOG_PART: usize = 64 * 1024;
/// The most pages of a workspace's variables.
const MAX_PAGES: u32 = 50;
/// The longest name of a workspace, and what of a longer one stands before a digest of it.
const MAX_NAME: usize = 90;
const NAME_START: usize = 70;
/// How Charter's own variables say whose they are.
const OURS: &str = "Charter's";

/// What is remembered of a workspace on a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloudRecord {
    /// What the server knows it by before anybody knows its identity.
    mark: String,
    /// Its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    /// The configuration that was uploaded last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<Configuration>,
    /// The configuration that was applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    applied: Option<String>,
    /// The version of the engine that was chosen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// A digest of the secrets that were given last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secrets: Option<String>,
    /// The run that goes on, or whose plan is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<RunRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    digest: String,
    id: String,
}

/// What a run is for, and how far it was brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunRecord {
    mark: String,
    /// Its identity; none: the server's answer was not heard yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The digest of what it is to reach; none: that nothing is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aim: Option<String>,
    configuration: String,
    /// The digest of its plan, and when that was made, once it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    planned: Option<Planned>,
    /// Whether it was told to go ahead.
    #[serde(default)]
    confirmed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    digest: String,
    at: u64,
}

/// A server, and where on it workspaces are made.
pub(crate) struct Cloud {
    config: CloudConfig,
    client: Client,
}

impl Cloud {
    pub(crate) fn new(config: &CloudConfig) -> Result<Self, reqwest::Error> {
        Ok(Self {
            config: config.clone(),
            client: Client::new(config)?,
        })
    }
}

/// A workspace on it.
pub(crate) struct Remote<'a> {
    site: &'a Site,
    cloud: &'a Cloud,
    external: String,
    secrets: BTreeMap<String, SecretName>,
}

/// The name of a workspace on a server, where names hold no points.
pub(crate) fn name(external: &str) -> String {
    let plain = external.replace('.', "_");
    if plain.len() <= MAX_NAME {
        return plain;
    }
    let digest = Digest::of(external.as_bytes()).hex();
    format!("{}-{}", &plain[..NAME_START], &digest[..16])
}

/// Something that is not there twice.
fn mark(of: &str) -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let text = format!("{of}\0{}\0{}", time.map_or(0, |time| time.as_nanos()), std::process::id());
    Digest::of(text.as_bytes()).hex()[..16].to_owned()
}

impl CloudRecord {
    pub(crate) fn new(external: &str) -> Self {
        Self {
            mark: mark(external),
            ..Self::default()
        }
    }
}

/// What a run has come to, as far as it was waited for.
enum Came {
    /// Nobody has to wait for it any more.
    To(Run),
    /// It goes on.
    Waits(Run),
}

impl<'a> Remote<'a> {
    pub(crate) fn new(site: &'a Site, cloud: &'a Cloud, external: &str, secrets: &BTreeMap<String, SecretName>) -> Self {
        Self {
            site,
            cloud,
            external: external.to_owned(),
            secrets: secrets.clone(),
        }
    }

    async fn ask(&self, request: &Request<'_>) -> Result<Value, Hindrance> {
        let token = self.site.config.secret(&self.cloud.config.token)?;
        Ok(self.cloud.client.ask(&token, request).await?)
    }

    async fn get(&self, path: &str, what: &str) -> Result<Value, Hindrance> {
        self.ask(&Request::get(path, what)).await
    }

    async fn post(&self, path: &str, body: &Value, what: &str) -> Result<Value, Hindrance> {
        self.ask(&Request::post(path, body, what)).await
    }

    /// An answer that isn't as the API has it.
    fn unread(&self, what: &str, why: &str) -> Hindrance {
        self.cloud.client.unread(what, why).into()
    }

    fn put(&self, record: &Record) -> Result<(), Hindrance> {
        Ok(self.site.records.put(&self.external, record)?)
    }

    /// Where people see it.
    fn page(&self, run: &str) -> String {
        let (address, organization) = (&self.cloud.client.address, &self.cloud.config.organization);
        format!("{address}/app/{organization}/workspaces/{}/runs/{run}", name(&self.external))
    }

    /// The workspace of its name, if there is one that the token may see.
    async fn named(&self) -> Result<Option<Document>, Hindrance> {
        let path = format!(
            "/organizations/{}/workspaces/{}",
            self.cloud.config.organization,
            name(&self.external)
        );
        match self.get(&path, "the workspace").await {
            Ok(value) => Document::read(&value["data"])
                .map(Some)
                .map_err(|why| self.unread("the workspace", &why)),
            Err(Hindrance::Cloud(CloudError::Unseen { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The workspace of an identity, and its current run.
    async fn there(&self, workspace: &str) -> Result<(Document, Option<Run>), Hindrance> {
        let what = "the workspace";
        let value = self.get(&format!("/workspaces/{workspace}?include=current_run"), what).await?;
        let there = Document::read(&value["data"]).map_err(|why| self.unread(what, &why))?;
        let included = value["included"].as_array().into_iter().flatten();
        let mut runs = included.filter_map(|one| Run::read(one).ok());
        let current = runs.find(|run| Some(&run.id) == there.current_run.as_ref());
        Ok((there, current))
    }

    /// The identity of the workspace, which is made where it is not there.
    async fn ensured(&self, record: &mut Record) -> Result<String, Hindrance> {
        if let Some(id) = &record.cloud.workspace {
            return Ok(id.clone());
        }
        // An answer that was not heard has made one already, and who adopts finds one.
        let found = self.named().await?;
        let found = match found {
            Some(found) if record.adopts || found.description.contains(&record.cloud.mark) => found.id,
            Some(_) => return Err(Hindrance::NotOwned),
            None => self.made(record).await?,
        };
        record.cloud.workspace = Some(found.clone());
        self.put(record)?;
        Ok(found)
    }

    async fn made(&self, record: &Record) -> Result<String, Hindrance> {
        let config = &self.cloud.config;
        let attributes = json!({
            "name": name(&self.external), "execution-mode": "remote", "auto-apply": false, "queue-all-runs": false,
            "description": format!("{} of Charter's: what is changed here is changed back ({})", record.made.owner(), record.cloud.mark),
            "source-name": "Charter",
        });
        let mut data = json!({ "type": "workspaces", "attributes": attributes });
        if let Some(project) = &config.project {
            data["relationships"] = json!({ "project": { "data": { "type": "projects", "id": project } } });
        }
        let path = format!("/organizations/{}/workspaces", config.organization);
        match self.post(&path, &json!({ "data": data }), "making the workspace").await {
            Ok(value) => id(&value["data"]).map_err(|why| self.unread("making the workspace", &why)),
            // It was not to be seen, and it is there.
            Err(Hindrance::Cloud(error)) if error.is(StatusCode::UNPROCESSABLE_ENTITY) && error.to_string().contains("taken") => {
                Err(Hindrance::NotOwned)
            }
            Err(error) => Err(error),
        }
    }

    /// Has the workspace's plans made by the version of the engine that is asked for.
    async fn give_version(&self, workspace: &str, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
        let wanted = rendered.version.as_ref().or(self.cloud.config.terraform_version.as_ref());
        let Some(wanted) = wanted.filter(|wanted| record.cloud.version.as_ref() != Some(wanted)) else {
            return Ok(());
        };
        let body = json!({ "data": { "type": "workspaces", "attributes": { "terraform-version": wanted } } });
        let path = format!("/workspaces/{workspace}");
        let request = Request {
            method: Method::PATCH,
            path: &path,
            body: Some(Body::Json(&body)),
            what: "choosing the engine's version",
        };
        self.ask(&request).await?;
        record.cloud.version = Some(wanted.clone());
        self.put(record)
    }

    /// Gives the workspace its secrets, where they are others than before. They are never given back, so who they are is remembered as
    /// a digest.
    async fn give_secrets(&self, workspace: &str, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
        let config = &self.site.config;
        let variables = rendered.secrets.iter().map(|(name, secret)| (("terraform", name.clone()), secret));
        let own = config.environment.iter().map(|(name, secret)| (("env", name.clone()), secret));
        let mut wanted = BTreeMap::new();
        for (key, secret) in variables.chain(own) {
            wanted.insert(key, config.secret(secret)?);
        }
        let salted = serde_json::to_vec(&(workspace, wanted.iter().collect::<Vec<_>>())).map_err(std::io::Error::from)?;
        let digest = Digest::of(&salted).hex();
        if record.cloud.secrets.as_ref() == Some(&digest) {
            return Ok(());
        }
        let base = format!("/workspaces/{workspace}/vars");
        let mut there: BTreeMap<(String, String), (String, bool)> = BTreeMap::new();
        for number in 1..=MAX_PAGES {
            let path = format!("{base}?page%5Bsize%5D=100&page%5Bnumber%5D={number}");
            let page = self.get(&path, "the variables").await?;
            for one in page["data"].as_array().into_iter().flatten() {
                let text = |name: &str| one["attributes"][name].as_str().unwrap_or_default().to_owned();
                let id = id(one).map_err(|why| self.unread("the variables", &why))?;
                there.insert((text("category"), text("key")), (id, text("description") == OURS));
            }
            if page["meta"]["pagination"]["next-page"].is_null() {
                break;
            }
        }
        for ((category, key), value) in &wanted {
            let attributes = json!({
                "key": key, "value": value, "category": category, "hcl": false, "sensitive": true, "description": OURS,
            });
            let body = json!({ "data": { "type": "vars", "attributes": attributes } });
            let (method, path) = match there.get(&((*category).to_owned(), key.clone())) {
                Some((id, _)) => (Method::PATCH, format!("{base}/{id}")),
                None => (Method::POST, base.clone()),
            };
            let request = Request {
                method,
                path: &path,
                body: Some(Body::Json(&body)),
                what: "giving a secret",
            };
            self.ask(&request).await?;
        }
        for ((category, key), (id, ours)) in &there {
            if *ours && !wanted.contains_key(&(category.as_str(), key.clone())) {
                let path = format!("{base}/{id}");
                let request = Request {
                    method: Method::DELETE,
                    path: &path,
                    body: None,
                    what: "taking a secret back",
                };
                self.ask(&request).await?;
            }
        }
        record.cloud.secrets = Some(digest);
        self.put(record)
    }

    /// Uploads a configuration, where it is another one than before.
    async fn upload(&self, workspace: &str, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
        let mut files = vec![
            (CONFIGURATION, rendered.configuration.as_str()),
            (VARIABLES, rendered.variables.as_str()),
        ];
        files.extend(rendered.files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
        let packed = pack::pack(&files)?;
        let digest = Digest::of(&serde_json::to_vec(&files).map_err(std::io::Error::from)?).hex();
        if record.cloud.configuration.as_ref().is_some_and(|one| one.digest == digest) {
            return Ok(());
        }
        let what = "uploading the configuration";
        let attributes = json!({ "auto-queue-runs": false, "provisional": true });
        let body = json!({ "data": { "type": "configuration-versions", "attributes": attributes } });
        let made = self
            .post(&format!("/workspaces/{workspace}/configuration-versions"), &body, what)
            .await?;
        let id = id(&made["data"]).map_err(|why| self.unread(what, &why))?;
        let address = made["data"]["attributes"]["upload-url"].as_str();
        let address = address.ok_or_else(|| self.unread(what, "it gives no address"))?;
        let upload = Request {
            method: Method::PUT,
            path: address,
            body: Some(Body::Bytes(&packed)),
            what,
        };
        self.cloud.client.blob(&upload).await?;
        let end = Instant::now() + PATIENCE;
        let mut pause = POLL;
        loop {
            let value = self.get(&format!("/configuration-versions/{id}"), what).await?;
            let attributes = &value["data"]["attributes"];
            match attributes["status"].as_str().unwrap_or_default() {
                "uploaded" => break,
                "errored" => {
                    let why = attributes["error-message"].as_str().or(attributes["error"].as_str());
                    return Err(self.unread(what, why.unwrap_or("it can't be used")));
                }
                _ if Instant::now() > end => return Err(self.unread(what, "it is not there yet")),
                _ => sleep(pause).await,
            }
            pause = (pause * 3 / 2).min(SLOWEST_POLL);
        }
        record.cloud.configuration = Some(Configuration { digest, id });
        self.put(record)
    }

    async fn run(&self, id: &str) -> Result<Run, Hindrance> {
        let value = self.get(&format!("/runs/{id}"), "the run").await?;
        Run::read(&value["data"]).map_err(|why| self.unread("the run", &why))
    }

    /// Waits for a run, for a while.
    async fn waited(&self, id: &str, done: impl Fn(&Run) -> bool) -> Result<Came, Hindrance> {
        let end = Instant::now() + PATIENCE;
        let mut pause = POLL;
        loop {
            let run = self.run(id).await?;
            if done(&run) {
                return Ok(Came::To(run));
            }
            if Instant::now() + pause > end {
                return Ok(Came::Waits(run));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(SLOWEST_POLL);
        }
    }

    /// The run that is recorded, by its identity: that of one whose answer was lost is found by its mark, and only what isn't there is
    /// begun.
    async fn begun(&self, workspace: &str, record: &mut Record) -> Result<String, Hindrance> {
        let Some(run) = record.cloud.run.clone() else {
            return Err(self.unread("the run", "none was asked for"));
        };
        if let Some(id) = run.id {
            return Ok(id);
        }
        let path = format!("/workspaces/{workspace}/runs?page%5Bsize%5D=50");
        let listed = self.get(&path, "the runs").await?;
        let all = listed["data"].as_array().into_iter().flatten();
        let found = all
            .filter_map(|one| Run::read(one).ok())
            .find(|one| one.message.contains(&run.mark));
        let id = match found {
            Some(found) => found.id,
            None => self.queue(workspace, &run, record).await?,
        };
        if let Some(run) = &mut record.cloud.run {
            run.id = Some(id.clone());
        }
        self.put(record)?;
        Ok(id)
    }

    async fn queue(&self, workspace: &str, run: &RunRecord, record: &Record) -> Result<String, Hindrance> {
        let attributes = json!({
            "message": format!("Charter: {} ({})", record.made.owner(), run.mark),
            "save-plan": true, "auto-apply": false, "is-destroy": run.aim.is_none(),
        });
        let relationships = json!({
            "workspace": { "data": { "type": "workspaces", "id": workspace } },
            "configuration-version": { "data": { "type": "configuration-versions", "id": run.configuration } },
        });
        let body = json!({ "data": { "type": "runs", "attributes": attributes, "relationships": relationships } });
        let value = self.post("/runs", &body, "asking for a run").await?;
        id(&value["data"]).map_err(|why| self.unread("asking for a run", &why))
    }

    /// Puts aside the run that is recorded: its plan is not needed any more.
    async fn put_aside(&self, record: &mut Record) -> Result<(), Hindrance> {
        let Some(run) = record.cloud.run.take() else { return Ok(()) };
        if let Some(id) = run.id {
            let there = match self.run(&id).await {
                Ok(run) => run,
                // Nobody can confirm what nobody sees any more.
                Err(Hindrance::Cloud(CloudError::Unseen { .. })) => return self.put(record),
                Err(error) => return Err(error),
            };
            let action = match (there.discardable, there.cancelable) {
                (true, _) => Some("discard"),
                (false, true) => Some("cancel"),
                (false, false) => None,
            };
            if let Some(action) = action {
                let body = json!({ "comment": "Charter has another plan by now" });
                match self
                    .post(&format!("/runs/{id}/actions/{action}"), &body, "putting a plan aside")
                    .await
                {
                    // Somebody was faster.
                    Err(Hindrance::Cloud(error)) if error.is(StatusCode::CONFLICT) => {}
                    other => drop(other?),
                }
            }
        }
        self.put(record)
    }

    /// What the log of a phase says, as far as it can be read: it is for words only.
    async fn log(&self, path: &str) -> Said {
        let mut output = Vec::new();
        if let Ok(value) = self.get(path, "the log").await
            && let Some(address) = value["data"]["attributes"]["log-read-url"].as_str()
        {
            let joined = if address.contains('?') { '&' } else { '?' };
            while output.len() < MAX_LOG {
                let part = format!("{address}{joined}limit={LOG_PART}&offset={}", output.len());
                match self.cloud.client.blob(&Request::get(&part, "the log")).await {
                    Ok(bytes) if !bytes.is_empty() => output.extend(bytes),
                    _ => break,
                }
            }
        }
        // The marks of its beginning and its end are no part of it.
        output.retain(|byte| !matches!(byte, 2 | 3));
        let mut secrets = BTreeMap::new();
        for secret in self.secrets.values().chain(self.site.config.environment.values()) {
            if let Ok(value) = self.site.config.secret(secret) {
                secrets.insert(secret.to_string(), value);
            }
        }
        Said {
            output,
            complaints: String::new(),
            secrets,
        }
    }

    /// What a failed run says, and where more is to be read.
    fn failed(&self, what: &'static str, run: &Run, said: &Said) -> Hindrance {
        let words = match Hindrance::applying(said) {
            Hindrance::Engine { words, .. } if !words.is_empty() => format!("{words} ({})", self.page(&run.id)),
            _ => format!("its log says nothing that can be read: {}", self.page(&run.id)),
        };
        Hindrance::Engine { what, words }
    }

    /// Reads the plan of a run that has one.
    async fn read_plan(&self, run: &Run) -> Result<Option<EnginePlan>, Hindrance> {
        let path = run.plan().map_err(|why| self.unread("the run", &why))?;
        let token = self.site.config.secret(&self.cloud.config.token)?;
        let path = format!("{path}/json-output");
        let bytes = self.cloud.client.bytes(&token, &Request::get(&path, "the plan")).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let plan = EnginePlan::read(&bytes).map_err(Hindrance::Invalid)?;
        let stranger = plan.providers().into_iter().find(|source| !self.site.config.gives_provider(source));
        match stranger {
            Some(source) => Err(Hindrance::provider(source)),
            None => Ok(Some(plan)),
        }
    }

    /// Says of a run that has gone ahead what came of it.
    async fn settle(&self, run: &Run, state: Option<String>, record: &mut Record) -> Result<Standing, Hindrance> {
        let Some(own) = record.cloud.run.take() else {
            return Ok(Standing::There(state));
        };
        if run.status == "applied" {
            match own.aim {
                Some(aim) => {
                    record.cloud.applied = Some(own.configuration);
                    record.outputs = self.outputs(record).await?;
                    record.applied = Some(aim);
                    record.checked = Some(now());
                }
                None => record.applied = None,
            }
            self.put(record)?;
            return Ok(match record.applied {
                Some(_) => Standing::There(record.version.clone()),
                None => Standing::Nothing,
            });
        }
        record.checked = None;
        self.put(record)?;
        if run.was_ended() {
            return Ok(Standing::There(state));
        }
        let said = self.log(&run.apply().map_err(|why| self.unread("the run", &why))?).await;
        Err(self.failed("apply", run, &said))
    }
}

fn waits(run: &Run) -> String {
    format!("the run {} is {}", run.id, run.status)
}

#[async_trait]
impl Workspace for Remote<'_> {
    fn engine(&self) -> String {
        let config = &self.cloud.config;
        format!("{} {}", self.cloud.client.address, config.organization)
    }

    async fn suits(&self, wanted: &EngineSpec) -> Result<(), Hindrance> {
        match wanted.name {
            None => Ok(()),
            Some(_) => Err(Hindrance::Invalid(
                "it names an engine, and a server doesn't tell which one it has: name its version only".to_owned(),
            )),
        }
    }

    async fn is_there(&self) -> Result<bool, Hindrance> {
        Ok(self.named().await?.is_some())
    }

    fn going_on(&self) -> Option<String> {
        None
    }

    async fn standing(&self, record: &mut Record) -> Result<Standing, Hindrance> {
        let Some(workspace) = record.cloud.workspace.clone() else {
            return Ok(Standing::Nothing);
        };
        let (there, current) = self.there(&workspace).await?;
        let own = record.cloud.run.as_ref().and_then(|run| run.id.clone());
        if let Some(id) = own.as_ref().filter(|_| record.cloud.run.as_ref().is_some_and(|run| run.confirmed)) {
            let run = self.run(id).await?;
            if run.confirmable {
                // It was told to go ahead, and has not heard it.
                if let Some(own) = &mut record.cloud.run {
                    own.confirmed = false;
                }
                self.put(record)?;
                return Ok(Standing::There(there.state));
            }
            return match run.is_over() {
                true => self.settle(&run, there.state, record).await,
                false => Ok(Standing::Busy(waits(&run))),
            };
        }
        if let Some(run) = current.filter(|run| own.as_ref() != Some(&run.id) && !run.is_over()) {
            let (id, status) = (&run.id, &run.status);
            return Ok(Standing::Busy(format!(
                "the run {id}, which is not Charter's, is {status}: {}",
                self.page(id)
            )));
        }
        Ok(match (&record.applied, &there.state) {
            (None, None) => Standing::Nothing,
            _ => Standing::There(there.state),
        })
    }

    async fn assessed(&self, record: &Record) -> Result<bool, Hindrance> {
        let Some(workspace) = &record.cloud.workspace else {
            return Ok(false);
        };
        let path = format!("/workspaces/{workspace}/current-assessment-result");
        let value = match self.get(&path, "the assessment").await {
            Ok(value) => value,
            // It is not switched on.
            Err(Hindrance::Cloud(CloudError::Unseen { .. })) => return Ok(false),
            Err(error) => return Err(error),
        };
        let result = &value["data"]["attributes"];
        let time = result["created-at"]
            .as_str()
            .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        let age = time
            .and_then(|time| u64::try_from(time.unix_timestamp()).ok())
            .map(|time| now().saturating_sub(time));
        let fresh = age.is_some_and(|age| Duration::from_secs(age) < self.site.config.recheck());
        Ok(fresh && result["succeeded"] == true && result["drifted"] == false)
    }

    async fn prepare(&self, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
        let workspace = self.ensured(record).await?;
        self.give_version(&workspace, rendered, record).await?;
        self.give_secrets(&workspace, rendered, record).await?;
        self.upload(&workspace, rendered, record).await
    }

    async fn plan(&self, aim: Aim<'_>, record: &mut Record) -> Result<Outcome, Hindrance> {
        let workspace = self.ensured(record).await?;
        let aim = match aim {
            Aim::Make(inputs) => Some(inputs.to_owned()),
            Aim::Destroy => None,
        };
        // A plan that was seen is shown for as long as what was seen counts; one that comes is waited for.
        let goes_on = |run: &RunRecord| {
            let fresh = run.planned.as_ref().is_none_or(|planned| {
                let age = Duration::from_secs(now().saturating_sub(planned.at));
                age < self.site.config.recheck()
            });
            run.aim == aim && fresh
        };
        if !record.cloud.run.as_ref().is_some_and(goes_on) {
            self.put_aside(record).await?;
        }
        if record.cloud.run.is_none() {
            let latest = record.cloud.configuration.as_ref().map(|one| one.id.clone());
            let configuration = match aim {
                Some(_) => latest,
                None => record.cloud.applied.clone().or(latest),
            };
            record.cloud.run = Some(RunRecord {
                mark: mark(&self.external),
                id: None,
                aim,
                configuration: configuration.ok_or_else(|| self.unread("the run", "nothing was uploaded for it"))?,
                planned: None,
                confirmed: false,
            });
            self.put(record)?;
        }
        let id = self.begun(&workspace, record).await?;
        let run = match self.waited(&id, |run| run.confirmable || run.is_over()).await? {
            Came::To(run) => run,
            Came::Waits(run) => return Ok(Outcome::Waits(waits(&run))),
        };
        if run.status == "errored" {
            record.cloud.run = None;
            self.put(record)?;
            let said = self.log(&run.plan().map_err(|why| self.unread("the run", &why))?).await;
            return Err(self.failed("plan", &run, &said));
        }
        if run.was_ended() {
            record.cloud.run = None;
            self.put(record)?;
            return Ok(Outcome::Waits(format!("{}: the next pass plans anew", waits(&run))));
        }
        let plan = match self.read_plan(&run).await {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(Outcome::Waits(format!("the run {} gives no plan yet", run.id))),
            Err(error) => {
                // What may not be done is not left to be confirmed by anybody.
                if matches!(error, Hindrance::Invalid(_)) {
                    self.put_aside(record).await?;
                }
                return Err(error);
            }
        };
        if !run.confirmable {
            record.cloud.run = None;
            self.put(record)?;
            return Ok(Outcome::Same(plan));
        }
        if let Some(own) = &mut record.cloud.run
            && own.planned.is_none()
        {
            own.planned = Some(Planned {
                digest: plan.digest(),
                at: now(),
            });
            self.put(record)?;
        }
        Ok(Outcome::Changes(plan))
    }

    async fn is_planned(&self, inputs: &str, record: &Record) -> Result<bool, Hindrance> {
        let own = record.cloud.run.as_ref();
        let Some(run) = own.filter(|run| run.planned.is_some() && run.aim.as_deref() == Some(inputs)) else {
            return Ok(false);
        };
        match &run.id {
            Some(id) => Ok(self.run(id).await?.confirmable),
            None => Ok(false),
        }
    }

    async fn apply(&self, order: Option<Position>, record: &mut Record) -> Result<Option<String>, Hindrance> {
        let Some(RunRecord {
            id: Some(id),
            planned: Some(planned),
            ..
        }) = record.cloud.run.clone()
        else {
            return Ok(Some(STALE.to_owned()));
        };
        // A lock is somebody's, and a run that waits for it would go ahead when nobody looks.
        let workspace = self.ensured(record).await?;
        let (there, _) = self.there(&workspace).await?;
        if let Some(by) = there.locked.filter(|by| *by != id) {
            return Ok(Some(format!("its workspace is locked by {by}")));
        }
        let confirmed = |record: &mut Record, is: bool| {
            if let Some(run) = &mut record.cloud.run {
                run.confirmed = is;
            }
        };
        // From here on the run may go ahead, whatever is heard of it.
        confirmed(record, true);
        self.put(record)?;
        let ordered = order.map(|order| format!(", as transaction {order} of channel {} has ordered", record.made.channel));
        let comment = format!(
            "Charter: {}, plan {}{}",
            record.made.owner(),
            planned.digest,
            ordered.unwrap_or_default()
        );
        let path = format!("/runs/{id}/actions/apply");
        match self.post(&path, &json!({ "comment": comment }), "going ahead with the plan").await {
            Ok(_) => {}
            Err(Hindrance::Cloud(error)) if error.is(StatusCode::CONFLICT) => {
                let run = self.run(&id).await?;
                if run.was_ended() {
                    record.cloud.run = None;
                    self.put(record)?;
                    return Ok(Some(STALE.to_owned()));
                }
                if run.confirmable {
                    confirmed(record, false);
                    self.put(record)?;
                    return Ok(Some(error.to_string()));
                }
            }
            Err(error) => return Err(error),
        }
        let run = match self.waited(&id, Run::is_over).await? {
            Came::To(run) => run,
            Came::Waits(run) => return Ok(Some(waits(&run))),
        };
        if run.was_ended() {
            record.cloud.run = None;
            self.put(record)?;
            return Ok(Some(STALE.to_owned()));
        }
        self.settle(&run, None, record).await.map(|_| None)
    }

    fn keep_applied(&self, _rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
        // What was planned and found to be there already is what is applied.
        record.cloud.applied = record.cloud.configuration.as_ref().map(|one| one.id.clone());
        Ok(())
    }

    async fn outputs(&self, record: &mut Record) -> Result<Outputs, Hindrance> {
        let workspace = self.ensured(record).await?;
        let path = format!("/workspaces/{workspace}/current-state-version?include=outputs");
        let end = Instant::now() + PATIENCE;
        let mut pause = POLL;
        loop {
            let value = self.get(&path, "the state's outputs").await?;
            // Until they are read from the state there are none.
            if value["data"]["attributes"]["resources-processed"] != false {
                record.version = Some(id(&value["data"]).map_err(|why| self.unread("the state's outputs", &why))?);
                return Ok(outputs(&value["included"]));
            }
            if Instant::now() + pause > end {
                return Err(self.unread("the state's outputs", "they are not there yet"));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(SLOWEST_POLL);
        }
    }

    async fn remove(&self, record: &Record) -> Result<Option<String>, Hindrance> {
        let workspace = match &record.cloud.workspace {
            Some(id) => id.clone(),
            None => match self.named().await? {
                Some(found) if found.description.contains(&record.cloud.mark) => found.id,
                _ => return Ok(None),
            },
        };
        let path = format!("/workspaces/{workspace}/actions/safe-delete");
        match self.post(&path, &Value::Null, "taking the workspace away").await {
            Ok(_) => Ok(None),
            Err(Hindrance::Cloud(error)) if error.is(StatusCode::CONFLICT) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_server_takes_and_no_two_are_alike() {
        assert_eq!(name("smart-city-1.net"), "smart-city-1_net");
        assert_ne!(name("a.b.c"), name("a-b.c"));
        let long = format!("{}.{}", "c".repeat(200), "n".repeat(63));
        let other = format!("{}.{}", "c".repeat(201), "n".repeat(62));
        assert_eq!(name(&long).len(), 87);
        assert_ne!(name(&long), name(&other));
    }

    #[test]
    fn marks_differ() {
        assert_ne!(mark("a"), mark("b"));
        assert_eq!(mark("a").len(), 16);
    }
}
