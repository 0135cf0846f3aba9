//! A server that speaks the API of Terraform Cloud, for tests and for trying out: organizations, workspaces, variables, configurations,
//! runs by a real `tofu` or `terraform`, states, locks and comments. Everything is on the disk.
//!
//! It has one kind of user, who may do everything, and no encryption: it is for the machine that it is on.

mod answer;
mod api;
mod documents;
mod model;
mod runner;
mod store;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use state::locked::Locked;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OnceCell, Semaphore};

use providers::records::{private, replace};

use terraform::cli::Version;

use crate::store::{Store, random};

/// The file with the token that the server has made for its user.
pub const TOKEN: &str = "token";
/// The file with the digests of all tokens.
const TOKENS: &str = "tokens.json";

/// What a server is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder that everything is kept in.
    pub folder: PathBuf,
    /// The program that runs are made by: `tofu` or `terraform`.
    pub engine: PathBuf,
    /// A folder of provider packages, as `providers mirror` lays it out; without it they come from their registry.
    pub mirror: Option<PathBuf>,
    /// How many engines run at a time.
    pub runs: usize,
    /// How many requests a token may make in a second.
    pub rate: u32,
}

/// The server's folder can't be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It can't be read or written.
    #[error("the server's folder can't be used")]
    Folder(#[from] io::Error),
    /// Another server has it.
    #[error("another server has the folder: stop it, or choose another folder")]
    Taken,
    /// It holds something else.
    #[error("{name} in the server's folder can't be read: put it back from a copy, or take it away")]
    Object {
        /// Which object.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What every request and run sees.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    store: Mutex<Store>,
    tokens: Mutex<Tokens>,
    /// Something has changed that a run may have waited for.
    pub(crate) changed: Notify,
    /// How many engines may run.
    pub(crate) turns: Semaphore,
    /// How often each token has asked, in this second.
    rates: Mutex<BTreeMap<String, api::Window>>,
    /// What the engine says it is, once it was asked.
    pub(crate) engine: OnceCell<Option<Version>>,
    /// One server at a time has the folder. It goes with its process.
    _lock: Locked,
}

/// The digests of tokens, with the names of their users.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Tokens(BTreeMap<String, String>);

impl Shared {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose a token is.
    pub(crate) fn user(&self, token: &str) -> Option<String> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.0.get(&digest(token)).cloned()
    }

    pub(crate) fn rates(&self) -> MutexGuard<'_, BTreeMap<String, api::Window>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes away files and folders that nobody needs any more. What is left of them harms nobody.
    pub(crate) fn discard(&self, files: &[PathBuf]) {
        for file in files {
            let path = self.settings.folder.join(file);
            let _ = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
        }
    }

    /// A file of the server's.
    pub(crate) fn path(&self, parts: &[&str]) -> PathBuf {
        parts.iter().fold(self.settings.folder.clone(), |path, part| path.join(part))
    }
}

fn digest(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// A server.
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// Opens the folder, or makes it. What an earlier server has left half done is put in order.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&settings.folder)?;
        let hold = File::create(settings.folder.join("lock"))?;
        hold.try_lock().map_err(|_| OpenError::Taken)?;
        let tokens = tokens(&settings.folder)?;
        let store = Store::open(&settings.folder)?;
        let shared = Shared {
            turns: Semaphore::new(settings.runs.max(1)),
            store: Mutex::new(store),
            tokens: Mutex::new(tokens),
            changed: Notify::new(),
            rates: Mutex::default(),
            engine: OnceCell::new(),
            _lock: Locked::new(hold),
            settings,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes an organization, if there is none of this name.
    pub fn organization(&self, name: &str) -> io::Result<()> {
        api::organizations::ensure(&mut self.shared.store(), name)
    }

    /// The file with the token of the server's user.
    pub fn token(&self) -> PathBuf {
        self.shared.path(&[TOKEN])
    }

    /// Takes back a token: whoever shows it is not let in any more.
    pub fn revoke(&self, token: &str) -> io::Result<()> {
        let mut tokens = self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.0.remove(&digest(token));
        replace(&self.shared.path(&[TOKENS]), &serde_json::to_vec(&*tokens)?)
    }

    /// Answers requests and makes runs, until `stopping` ends. Engines that run go on to their end; the next server finds them.
    pub async fn serve(self, listener: TcpListener, stopping: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let runs = tokio::spawn(runner::run(Arc::clone(&self.shared)));
        let router = api::router(Arc::clone(&self.shared), listener.local_addr()?);
        let served = axum::serve(listener, router).with_graceful_shutdown(stopping).await;
        runs.abort();
        served
    }
}

/// Reads the tokens; where there are none, one is made.
fn tokens(folder: &Path) -> Result<Tokens, OpenError> {
    match std::fs::read(folder.join(TOKENS)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| OpenError::Object {
            name: TOKENS.to_owned(),
            source,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = format!("{}.atlasv1.{}", random(14), random(60));
            let tokens = Tokens(BTreeMap::from([(digest(&token), "admin".to_owned())]));
            let mut file = private(&folder.join(TOKEN))?;
            file.write_all(token.as_bytes())?;
            file.sync_data()?;
            replace(&folder.join(TOKENS), &serde_json::to_vec(&tokens).map_err(io::Error::from)?)?;
            Ok(tokens)
        }
        Err(error) => Err(error.into()),
    }
}
