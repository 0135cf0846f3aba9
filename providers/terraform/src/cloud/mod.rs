//! A workspace of an organization's on a server: Terraform Cloud (HCP Terraform), Terraform Enterprise, or what speaks their API.
//!
//! What is begun there is written down before it is asked for, under a mark that the server keeps too: when an answer is lost, what was
//! begun is found again by its mark, and nothing is begun twice.

mod client;
mod documents;
mod making;
mod pack;
mod record;
mod runs;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use serde_json::{Value, json};
use state::canonical::Digest;
use state::event::Position;
use state::ids::SecretName;
use state::resource::Outputs;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, sleep};

use providers::detached::now;

use self::client::Request;
pub(crate) use self::client::{Client, CloudError};
use self::documents::{Run, id, outputs};
pub(crate) use self::record::CloudRecord;
use self::record::{Planned, RunRecord, mark};
use self::runs::{Came, waits};
use crate::config::CloudConfig;
use crate::record::Record;
use crate::render::Rendered;
use crate::spec::EngineSpec;
use crate::workspace::{Aim, Outcome, Standing, Workspace};
use crate::{Hindrance, STALE, Site};

/// How long a run, or an upload, is waited for in one pass; the next pass goes on waiting.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is waited between two looks at it: at first, and at most.
const POLL: Duration = Duration::from_millis(100);
const SLOWEST_POLL: Duration = Duration::from_secs(2);
/// The longest name of a workspace, and what of a longer one stands before a digest of it.
const MAX_NAME: usize = 90;
const NAME_START: usize = 70;

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

/// What is waited for in one pass: a while, with pauses that grow.
struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self {
            end: Instant::now() + PATIENCE,
            pause: POLL,
        }
    }

    /// Waits a little. No: it has waited long enough.
    async fn lasts(&mut self) -> bool {
        if Instant::now() + self.pause > self.end {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 3 / 2).min(SLOWEST_POLL);
        true
    }
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
        let seconds = time.and_then(|time| u64::try_from(time.unix_timestamp()).ok());
        let fresh = seconds.is_some_and(|seconds| self.site.is_fresh(seconds));
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
            let fresh = run.planned.as_ref().is_none_or(|planned| self.site.is_fresh(planned.at));
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
        if run.is_applied() {
            // What it gives is asked for by who told it to go ahead; until that is written down the record on the disk leads here again.
            record.cloud.run = None;
            return Ok(None);
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
        let mut patience = Patience::new();
        loop {
            let value = self.get(&path, "the state's outputs").await?;
            // Until they are read from the state there are none.
            if value["data"]["attributes"]["resources-processed"] != false {
                record.version = Some(id(&value["data"]).map_err(|why| self.unread("the state's outputs", &why))?);
                return Ok(outputs(&value["included"]));
            }
            if !patience.lasts().await {
                return Err(self.unread("the state's outputs", "they are not there yet"));
            }
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
}
