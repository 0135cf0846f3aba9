//! A workspace on a server: found, made, and given what its runs work with.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::json;
use state::canonical::Digest;

use super::client::{Body, CloudError, Request};
use super::documents::{Run, Workspace as Document, id};
use super::record::Configuration;
use super::{Patience, Remote, name, pack};
use crate::Hindrance;
use crate::record::Record;
use crate::render::{CONFIGURATION, Rendered, VARIABLES};

/// The most pages of a workspace's variables.
const MAX_PAGES: u32 = 50;
/// How Charter's own variables say whose they are.
const OURS: &str = "Charter's";

impl Remote<'_> {
    /// The workspace of its name, if there is one that the token may see.
    pub(super) async fn named(&self) -> Result<Option<Document>, Hindrance> {
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
    pub(super) async fn there(&self, workspace: &str) -> Result<(Document, Option<Run>), Hindrance> {
        let what = "the workspace";
        let value = self.get(&format!("/workspaces/{workspace}?include=current_run"), what).await?;
        let there = Document::read(&value["data"]).map_err(|why| self.unread(what, &why))?;
        let included = value["included"].as_array().into_iter().flatten();
        let mut runs = included.filter_map(|one| Run::read(one).ok());
        let current = runs.find(|run| Some(&run.id) == there.current_run.as_ref());
        Ok((there, current))
    }

    /// The identity of the workspace, which is made where it is not there.
    pub(super) async fn ensured(&self, record: &mut Record) -> Result<String, Hindrance> {
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

    pub(super) async fn made(&self, record: &Record) -> Result<String, Hindrance> {
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
    pub(super) async fn give_version(&self, workspace: &str, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
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
    pub(super) async fn give_secrets(&self, workspace: &str, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
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
    pub(super) async fn upload(&self, workspace: &str, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance> {
        let mut files = vec![
            (CONFIGURATION, rendered.configuration.as_str()),
            (VARIABLES, rendered.variables.as_str()),
        ];
        files.extend(rendered.files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
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
            body: Some(Body::Bytes(&pack::pack(&files)?)),
            what,
        };
        self.cloud.client.blob(&upload).await?;
        let mut patience = Patience::new();
        loop {
            let value = self.get(&format!("/configuration-versions/{id}"), what).await?;
            let attributes = &value["data"]["attributes"];
            match attributes["status"].as_str().unwrap_or_default() {
                "uploaded" => break,
                "errored" => {
                    let why = attributes["error-message"].as_str().or(attributes["error"].as_str());
                    return Err(self.unread(what, why.unwrap_or("it can't be used")));
                }
                _ if patience.lasts().await => {}
                _ => return Err(self.unread(what, "it is not there yet")),
            }
        }
        record.cloud.configuration = Some(Configuration { digest, id });
        self.put(record)
    }
}
