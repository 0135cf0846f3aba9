//! The API server: what it knows, and the calls that are made to it. Nothing is retried here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::params::{DeleteParams, GetParams, ListParams, Patch, PatchParams, Preconditions, WatchParams};
use kube::core::response::{Status, StatusCause};
use kube::core::{Request, WatchEvent, request};
use kube::{Client, Config};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::config::KubernetesConfig;
use crate::object::ObjectId;

/// The field manager of everything that Charter applies.
pub(crate) const MANAGER: &str = "charter";
/// The field manager with which labels are taken off: what is taken off is not applied.
const RELEASER: &str = "charter-release";
/// How many objects a page of a list has.
const PAGE: u32 = 500;
/// The most pages of one list.
const PAGES: usize = 1_000;
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
/// The longest that the server is left alone for when it asks for it, in seconds.
const BUSY_AT_MOST: u64 = 30;
/// How long a watch lasts, in seconds; the server may end it sooner.
const WATCH: u32 = 280;
/// How long a watch may be silent: a server sends a bookmark every minute.
const SILENCE: Duration = Duration::from_secs(90);

/// A call failed.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    /// The kubeconfig can't be used.
    #[error("the kubeconfig can't be used (kubernetes.kubeconfig, kubernetes.context)")]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server refused.
    #[error("the API server says to {asked}: {} ({} {})", .status.message, .status.code, .status.reason)]
    Refused {
        /// The method and the path.
        asked: String,
        /// What it says.
        status: Box<Status>,
    },
    /// There was no answer that can be read.
    #[error("the API server can't be asked ({asked})")]
    Call {
        /// The method and the path.
        asked: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// There is no way to it.
    #[error("the API server can't be reached")]
    Connect(#[source] Box<kube::Error>),
    /// It has too much to do.
    #[error("the API server has too much to do, and asked to be left alone for {0} s")]
    Busy(u64),
    /// A request can't be written.
    #[error("a request can't be written")]
    Request(#[source] Box<request::Error>),
    /// A list never ends.
    #[error("a list of {0} has more than {PAGES} pages")]
    Endless(String),
}

impl Trouble {
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Trouble::Refused { status, .. } => Some(status.code),
            _ => None,
        }
    }

    pub(crate) fn causes(&self) -> &[StatusCause] {
        match self {
            Trouble::Refused { status, .. } => status.details.as_ref().map_or(&[], |details| details.causes.as_slice()),
            _ => &[],
        }
    }
}

impl Trouble {
    /// Whether what was sent doesn't fit its kind: the server tells that as a failure of its own.
    pub(crate) fn is_misfit(&self) -> bool {
        matches!(self, Trouble::Refused { status, .. } if status.code == 500 && status.message.starts_with("failed to create typed patch object"))
    }

    /// For how many seconds the server wants to be left alone.
    fn again_after(&self) -> Option<u64> {
        let Trouble::Refused { status, .. } = self else { return None };
        let said = status.details.as_ref().map_or(0, |details| u64::from(details.retry_after_seconds));
        match (status.code, said) {
            // In short it says nothing more.
            (429, 0) => Some(1),
            (_, 0) => None,
            (_, said) => Some(said.min(BUSY_AT_MOST)),
        }
    }

    fn of(asked: String, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Trouble::Refused { asked, status },
            error => Trouble::Call {
                asked,
                source: Box::new(error),
            },
        }
    }
}

impl From<request::Error> for Trouble {
    fn from(error: request::Error) -> Self {
        Trouble::Request(Box::new(error))
    }
}

/// A kind of objects, as the server has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiKind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    plural: String,
    pub(crate) namespaced: bool,
    listable: bool,
}

impl ApiKind {
    fn path(&self, namespace: Option<&str>) -> String {
        let root = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }
}

impl fmt::Display for ApiKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind, self.api_version())
    }
}

/// How something is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apply {
    /// Only to see what it would be.
    Try,
    /// In earnest.
    Do,
}

/// What is done about fields of other managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contested {
    /// They are left, and the call fails.
    Leave,
    /// They are taken.
    Take,
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<'a> {
    metadata: PageMetadata,
    // A list of nothing may say null.
    #[serde(borrow, default, deserialize_with = "or_nothing")]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "resourceVersion")]
    version: String,
    #[serde(default, rename = "continue")]
    go_on: Option<String>,
}

fn or_nothing<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Vec<&'a RawValue>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Keeps of what the server knows of managers only whether Charter is one: that is most of an object, and nothing else is asked of it.
pub(crate) fn slim(object: &mut Value) {
    if let Some(managers) = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut) {
        managers.retain(|one| one["manager"] == MANAGER && one["operation"] == "Apply");
        for fields in managers.iter_mut().filter_map(Value::as_object_mut) {
            fields.remove("fieldsV1");
        }
    }
}

/// A request in words.
fn named(request: &http::Request<Vec<u8>>) -> String {
    format!("{} {}", request.method(), request.uri().path())
}

/// The server, and what it was heard to know.
pub(crate) struct Server {
    client: Client,
    /// For watches, which are silent most of the time.
    watcher: Client,
    known: Mutex<BTreeMap<String, Arc<Vec<ApiKind>>>>,
    /// Until when it wants to be left alone, and for how long it said so.
    busy: Mutex<Option<(Instant, u64)>>,
}

impl Server {
    /// Reads the configuration. Nothing is asked yet.
    pub(crate) async fn open(config: &KubernetesConfig) -> Result<Self, Trouble> {
        let bad = |error: &dyn std::error::Error| Trouble::Config(error.to_string().into());
        let mut found = match &config.kubeconfig {
            Some(path) => {
                let options = KubeConfigOptions {
                    context: config.context.clone(),
                    ..KubeConfigOptions::default()
                };
                let file = Kubeconfig::read_from(path).map_err(|error| bad(&error))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| bad(&error))?
            }
            None => Config::incluster().map_err(|error| bad(&error))?,
        };
        if let Some(as_user) = &config.impersonate {
            found.auth_info.impersonate = Some(as_user.user.clone());
            found.auth_info.impersonate_groups = (!as_user.groups.is_empty()).then(|| as_user.groups.clone());
        }
        found.connect_timeout = Some(CONNECT);
        found.read_timeout = Some(ANSWER);
        found.write_timeout = Some(ANSWER);
        // The next pass tries again, and nothing else does.
        found.default_retry = false;
        let client = |config: Config| Client::try_from(config).map_err(|error| Trouble::Connect(Box::new(error)));
        let mut patient = found.clone();
        patient.read_timeout = Some(SILENCE);
        Ok(Self {
            watcher: client(patient)?,
            client: client(found)?,
            known: Mutex::default(),
            busy: Mutex::default(),
        })
    }

    /// Makes a call, unless the server wants to be left alone.
    async fn call<T>(&self, asked: String, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Trouble> {
        if let Some((until, seconds)) = *self.busy()
            && Instant::now() < until
        {
            return Err(Trouble::Busy(seconds));
        }
        let trouble = match call.await {
            Ok(answer) => return Ok(answer),
            Err(error) => Trouble::of(asked, error),
        };
        if let Some(seconds) = trouble.again_after() {
            *self.busy() = Some((Instant::now() + Duration::from_secs(seconds), seconds));
        }
        Err(trouble)
    }

    fn busy(&self) -> MutexGuard<'_, Option<(Instant, u64)>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, request: http::Request<Vec<u8>>) -> Result<Value, Trouble> {
        self.call(named(&request), self.client.request(request)).await
    }

    /// Forgets what kinds the server has: they are asked for again when they are needed.
    pub(crate) fn forget_kinds(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Finds a kind; none when the server doesn't have it.
    pub(crate) async fn kind(&self, id: &ObjectId) -> Result<Option<ApiKind>, Trouble> {
        let all = self.kinds_of(&id.api_version()).await?;
        Ok(all.iter().find(|one| one.kind == id.kind).cloned())
    }

    async fn kinds_of(&self, api_version: &str) -> Result<Arc<Vec<ApiKind>>, Trouble> {
        let known = |server: &Self| {
            let known = server.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(api_version).cloned()
        };
        if let Some(all) = known(self) {
            return Ok(all);
        }
        let listed = async {
            match api_version.contains('/') {
                true => self.client.list_api_group_resources(api_version).await,
                false => self.client.list_core_api_resources(api_version).await,
            }
        };
        let listed = match self.call(format!("kinds of {api_version}"), listed).await {
            Ok(listed) => listed.resources,
            // A group that isn't there may come with a custom resource definition: it is not remembered.
            Err(trouble) if trouble.code() == Some(404) => return Ok(Arc::default()),
            Err(trouble) => return Err(trouble),
        };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let all: Vec<ApiKind> = listed
            .into_iter()
            // What has a slash in its name is a part of another.
            .filter(|one| !one.name.contains('/'))
            .map(|one| ApiKind {
                group: group.to_owned(),
                version: version.to_owned(),
                kind: one.kind,
                plural: one.name,
                namespaced: one.namespaced,
                listable: one.verbs.iter().any(|verb| verb == "list"),
            })
            .collect();
        let all = Arc::new(all);
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(api_version.to_owned(), Arc::clone(&all));
        Ok(all)
    }

    /// Every kind that can be listed, in the version that the server prefers.
    pub(crate) async fn all_kinds(&self) -> Result<Vec<ApiKind>, Trouble> {
        let mut versions = vec!["v1".to_owned()];
        let groups = self.call("groups".to_owned(), self.client.list_api_groups()).await?;
        for group in groups.groups {
            let preferred = group.preferred_version.or_else(|| group.versions.into_iter().next());
            versions.extend(preferred.map(|version| version.group_version));
        }
        let mut all = Vec::new();
        for version in versions {
            let kinds = self.kinds_of(&version).await?;
            all.extend(kinds.iter().filter(|kind| kind.listable).cloned());
        }
        Ok(all)
    }

    /// Reads one object; none when it is not there.
    pub(crate) async fn get(&self, kind: &ApiKind, id: &ObjectId) -> Result<Option<Value>, Trouble> {
        let request = Request::new(kind.path(id.namespace.as_deref())).get(&id.name, &GetParams::default())?;
        match self.ask(request).await {
            Ok(found) => Ok(Some(found)),
            Err(trouble) if trouble.code() == Some(404) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Asks whether the server answers at all.
    pub(crate) async fn answers(&self) -> Result<(), Trouble> {
        self.ask(Request::new("").get("version", &GetParams::default())?).await.map(drop)
    }

    /// Watches objects from a version of their list on, until the server ends it.
    pub(crate) async fn watch(
        &self,
        kind: &ApiKind,
        namespace: Option<&str>,
        selector: &str,
        from: &str,
    ) -> Result<impl futures::Stream<Item = Result<WatchEvent<Value>, kube::Error>> + use<>, Trouble> {
        let params = WatchParams::default().labels(selector).timeout(WATCH);
        let request = Request::new(kind.path(namespace)).watch(&params, from)?;
        self.call(format!("WATCH {}", request.uri().path()), self.watcher.request_events(request))
            .await
    }

    /// Lists objects page by page, in one namespace or everywhere, and hands over one after the other; gives the version from which a
    /// watch goes on.
    pub(crate) async fn list(
        &self,
        kind: &ApiKind,
        namespace: Option<&str>,
        selector: &str,
        mut take: impl FnMut(Value) + Send,
    ) -> Result<String, Trouble> {
        let url = Request::new(kind.path(namespace));
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        for _ in 0..PAGES {
            let request = url.list(&params)?;
            let asked = named(&request);
            let text = self.call(asked.clone(), self.client.request_text(request)).await?;
            // Each object is read by itself: a whole page of them would take many times the text.
            let unread = |error| Trouble::of(asked.clone(), kube::Error::SerdeError(error));
            let page: Page<'_> = serde_json::from_str(&text).map_err(unread)?;
            for item in page.items {
                let mut object: Value = serde_json::from_str(item.get()).map_err(unread)?;
                // A list says once what all of them are.
                if let Some(map) = object.as_object_mut() {
                    map.insert("apiVersion".into(), kind.api_version().into());
                    map.insert("kind".into(), kind.kind.clone().into());
                }
                take(object);
            }
            match page.metadata.go_on {
                Some(token) if !token.is_empty() => params = params.continue_token(&token),
                _ => return Ok(page.metadata.version),
            }
        }
        Err(Trouble::Endless(kind.to_string()))
    }

    /// Applies an object, or tries what that would give.
    pub(crate) async fn apply(
        &self,
        kind: &ApiKind,
        id: &ObjectId,
        body: &Value,
        how: Apply,
        contested: Contested,
    ) -> Result<Value, Trouble> {
        let mut params = PatchParams::apply(MANAGER).validation_strict();
        params.dry_run = how == Apply::Try;
        params.force = contested == Contested::Take;
        let url = Request::new(kind.path(id.namespace.as_deref()));
        self.ask(url.patch(&id.name, &params, &Patch::Apply(body))?).await
    }

    /// Changes fields of an object that is still the one that was seen, whoever manages them.
    pub(crate) async fn merge(&self, kind: &ApiKind, id: &ObjectId, change: &Value) -> Result<Value, Trouble> {
        let params = PatchParams {
            field_manager: Some(RELEASER.to_owned()),
            ..PatchParams::default()
        };
        let url = Request::new(kind.path(id.namespace.as_deref()));
        self.ask(url.patch(&id.name, &params, &Patch::Merge(change))?).await
    }

    /// Deletes an object that is still the one that was seen. One that is gone is fine.
    pub(crate) async fn delete(&self, kind: &ApiKind, id: &ObjectId, uid: &str) -> Result<(), Trouble> {
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        let url = Request::new(kind.path(id.namespace.as_deref()));
        match self.ask(url.delete(&id.name, &params)?).await {
            Ok(_) => Ok(()),
            Err(trouble) if matches!(trouble.code(), Some(404 | 409)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }
}
