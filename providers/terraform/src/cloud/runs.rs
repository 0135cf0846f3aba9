//! Runs on a server: begun once, found again, waited for, and settled.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde_json::json;

use providers::detached::now;

use super::client::{CloudError, Request};
use super::documents::{Run, id};
use super::record::RunRecord;
use super::{Patience, Remote};
use crate::Hindrance;
use crate::plan::EnginePlan;
use crate::record::Record;
use crate::words::Said;
use crate::workspace::{Standing, Workspace};

/// The most of a log that is read, and of one request for it, in bytes.
const MAX_LOG: usize = 1024 * 1024;
const LOG_PART: usize = 64 * 1024;

/// What a run has come to, as far as it was waited for.
pub(super) enum Came {
    /// Nobody has to wait for it any more.
    To(Run),
    /// It goes on.
    Waits(Run),
}

impl Remote<'_> {
    pub(super) async fn run(&self, id: &str) -> Result<Run, Hindrance> {
        let value = self.get(&format!("/runs/{id}"), "the run").await?;
        Run::read(&value["data"]).map_err(|why| self.unread("the run", &why))
    }

    /// Waits for a run, for a while.
    pub(super) async fn waited(&self, id: &str, done: impl Fn(&Run) -> bool) -> Result<Came, Hindrance> {
        let mut patience = Patience::new();
        loop {
            let run = self.run(id).await?;
            if done(&run) {
                return Ok(Came::To(run));
            }
            if !patience.lasts().await {
                return Ok(Came::Waits(run));
            }
        }
    }

    /// The run that is recorded, by its identity: that of one whose answer was lost is found by its mark, and only what isn't there is
    /// begun.
    pub(super) async fn begun(&self, workspace: &str, record: &mut Record) -> Result<String, Hindrance> {
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

    pub(super) async fn queue(&self, workspace: &str, run: &RunRecord, record: &Record) -> Result<String, Hindrance> {
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
    pub(super) async fn put_aside(&self, record: &mut Record) -> Result<(), Hindrance> {
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
    pub(super) async fn log(&self, path: &str) -> Said {
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
    pub(super) fn failed(&self, what: &'static str, run: &Run, said: &Said) -> Hindrance {
        let words = match Hindrance::applying(said) {
            Hindrance::Engine { words, .. } if !words.is_empty() => format!("{words} ({})", self.page(&run.id)),
            _ => format!("its log says nothing that can be read: {}", self.page(&run.id)),
        };
        Hindrance::Engine { what, words }
    }

    /// Reads the plan of a run that has one.
    pub(super) async fn read_plan(&self, run: &Run) -> Result<Option<EnginePlan>, Hindrance> {
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
    pub(super) async fn settle(&self, run: &Run, state: Option<String>, record: &mut Record) -> Result<Standing, Hindrance> {
        let Some(own) = record.cloud.run.take() else {
            return Ok(Standing::There(state));
        };
        if run.is_applied() {
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

/// Why a run is still to be waited for.
pub(super) fn waits(run: &Run) -> String {
    format!("the run {} is {}", run.id, run.status)
}
