//! Modules: each is loaded and started once in a process, whoever signs through it, and stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use super::error::TokenError;
use super::token::Session;

/// Every module of this process, by its file.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

/// A loaded module.
pub(super) struct Module {
    path: PathBuf,
    context: Pkcs11,
    /// How often it was started. Calls hold this for reading: it is started anew only when none is on its way.
    generation: RwLock<u64>,
    /// Digests of the PINs that tokens have refused: none of them is tried again.
    refused: Mutex<BTreeSet<[u8; 32]>>,
}

/// A call that failed, and which start of the module it was made in.
pub(super) struct Failed {
    pub(super) generation: u64,
    pub(super) error: TokenError,
}

impl Module {
    /// Loads a module, or finds it where it is loaded already.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, TokenError> {
        let path = path.canonicalize().map_err(|source| TokenError::NoModule {
            module: path.to_owned(),
            source,
        })?;
        // Held while it is loaded: two threads must not start it twice.
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(&path) {
            return Ok(Arc::clone(module));
        }
        let context = Pkcs11::new(&path).map_err(|source| TokenError::Load {
            module: path.clone(),
            source,
        })?;
        let module = Arc::new(Self {
            path: path.clone(),
            context,
            generation: RwLock::new(0),
            refused: Mutex::default(),
        });
        module.start()?;
        modules.insert(path, Arc::clone(&module));
        Ok(module)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls into the module.
    pub(super) fn call<T>(&self, call: impl FnOnce(&Pkcs11, u64) -> Result<T, TokenError>) -> Result<T, Failed> {
        let generation = self.generation.read().unwrap_or_else(PoisonError::into_inner);
        call(&self.context, *generation).map_err(|error| Failed {
            generation: *generation,
            error,
        })
    }

    /// Closes a session, unless it ended with the start that it was opened in.
    pub(super) fn close(&self, session: Option<Session>) {
        let Some(session) = session else { return };
        let generation = self.generation.read().unwrap_or_else(PoisonError::into_inner);
        if session.generation() == *generation {
            session.close();
        }
    }

    /// Starts the module anew, unless somebody has done so since the start that failed. Every session of it ends; who has one
    /// opens another.
    pub(super) fn restart(&self, failed: u64) -> Result<(), TokenError> {
        let mut generation = self.generation.write().unwrap_or_else(PoisonError::into_inner);
        if *generation != failed {
            return Ok(());
        }
        // One that has lost its state answers that it was never started.
        let _ = self.context.clone().finalize();
        *generation += 1;
        self.start()
    }

    fn start(&self) -> Result<(), TokenError> {
        match self.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
            Err(source) => Err(TokenError::Start {
                module: self.path.clone(),
                source,
            }),
        }
    }

    /// The PINs that were refused.
    pub(super) fn refused(&self) -> MutexGuard<'_, BTreeSet<[u8; 32]>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
