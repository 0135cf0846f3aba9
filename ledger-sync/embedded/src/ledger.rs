//! The ledger on disk: its network, its channels, and the lock that keeps it one process's.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use msp::PemSigner;
use msp::folder::{self, Readers};
use state::locked::Locked;
use tokio::sync::Semaphore;

use crate::block_file::BlockFile;
use crate::channel::Channel;
use crate::organisations::{Keys, check_label};
use crate::{ChannelInfo, LedgerError, Limits, MemberSpec, NetworkSpec, Program, genesis};

/// What a ledger runs and how much it takes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The chaincode on every channel.
    pub program: Program,
    /// The bounds.
    pub limits: Limits,
}

/// An open ledger. Clones share it; it is closed, and its directory unlocked, when the last one is dropped.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    // The channels are dropped first: they finish writing before the lock goes.
    channels: RwLock<BTreeMap<String, Arc<Channel>>>,
    directory: PathBuf,
    options: Options,
    spec: Mutex<NetworkSpec>,
    keys: RwLock<Keys>,
    simulations: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    _lock: Locked,
}

impl Ledger {
    /// Opens the ledger in a directory.
    pub fn open(directory: &Path) -> Result<Self, LedgerError> {
        Self::open_with(directory, Options::default())
    }

    /// Opens the ledger in a directory, with another chaincode or other bounds.
    pub fn open_with(directory: &Path, options: Options) -> Result<Self, LedgerError> {
        let description = directory.join("network.json");
        if !description.exists() {
            return Err(LedgerError::Absent(directory.to_owned()));
        }
        let lock = lock(directory)?;
        let unusable = |reason: String| LedgerError::Description {
            path: description.clone(),
            reason,
        };
        let text = fs::read(&description).map_err(LedgerError::io("read", &description))?;
        let spec: NetworkSpec = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        spec.check()?;
        let keys = Keys::open(directory, &spec, now())?;
        let mut channels = BTreeMap::new();
        let root = directory.join("channels");
        if root.exists() {
            for entry in fs::read_dir(&root).map_err(LedgerError::io("list", &root))? {
                let entry = entry.map_err(LedgerError::io("list", &root))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                // A hidden directory is a channel whose creation didn't finish; nobody was told of it.
                if !name.starts_with('.') {
                    check_label("channel", &name)?;
                    let channel = open_channel(&entry.path(), &name, &options, &keys.orderer.node)?;
                    channels.insert(name, channel);
                }
            }
        }
        let (simulations, streams) = (options.limits.simulations, options.limits.streams);
        let inner = Inner {
            channels: RwLock::new(channels),
            directory: directory.to_owned(),
            options,
            spec: Mutex::new(spec),
            keys: RwLock::new(keys),
            simulations: Arc::new(Semaphore::new(simulations)),
            streams: Arc::new(Semaphore::new(streams)),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a ledger in a directory, or opens the one that is there and adds the members that it lacks.
    pub fn init(directory: &Path, spec: &NetworkSpec) -> Result<Self, LedgerError> {
        Self::init_with(directory, spec, Options::default())
    }

    /// Does what [`init`](Self::init) does, with another chaincode or other bounds.
    pub fn init_with(directory: &Path, spec: &NetworkSpec, options: Options) -> Result<Self, LedgerError> {
        spec.check()?;
        if !directory.join("network.json").exists() {
            write_spec(directory, &NetworkSpec::default())?;
        }
        let ledger = Self::open_with(directory, options)?;
        for member in &spec.members {
            ledger.add_member(member)?;
        }
        Ok(ledger)
    }

    /// Adds a member organisation with new keys. One that is there already is left alone.
    pub fn add_member(&self, member: &MemberSpec) -> Result<(), LedgerError> {
        let mut spec = self.inner.spec.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(existing) = spec.members.iter().find(|existing| existing.name == member.name) {
            if existing.msp_id != member.msp_id {
                return Err(LedgerError::Differs {
                    what: format!("member {}", member.name),
                    existing: format!("MSP id {}", existing.msp_id),
                    asked: format!("MSP id {}", member.msp_id),
                });
            }
            return Ok(());
        }
        let mut grown = spec.clone();
        grown.members.push(member.clone());
        grown.check()?;
        // Keys first: a member that the description names has them.
        self.inner.keys.write().unwrap_or_else(PoisonError::into_inner).add(member, now())?;
        write_spec(&self.inner.directory, &grown)?;
        *spec = grown;
        Ok(())
    }

    /// Creates a channel of members given by name. One that is there already with the same members is left alone.
    pub fn create_channel(&self, name: &str, members: &[&str]) -> Result<(), LedgerError> {
        check_label("channel", name)?;
        let mut channels = self.inner.channels.write().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys();
        let mut wanted = members
            .iter()
            .map(|name| Ok(keys.member(name)?.msp_id.clone()))
            .collect::<Result<Vec<_>, LedgerError>>()?;
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() || wanted.len() != members.len() {
            let rule = "a channel has at least one member, and each once";
            return Err(LedgerError::Name {
                what: "channel's list of members",
                name: members.join(", "),
                rule,
            });
        }
        if let Some(channel) = channels.get(name) {
            let existing = channel.core.info().members;
            if existing != wanted {
                return Err(LedgerError::Differs {
                    what: format!("channel {name}"),
                    existing: format!("the members {}", existing.join(", ")),
                    asked: wanted.join(", "),
                });
            }
            return Ok(());
        }
        let options = &self.inner.options;
        let block = genesis::block(name, members, &keys, &options.limits, now())?;
        let root = self.inner.directory.join("channels");
        let (new, path) = (root.join(format!(".new-{name}")), root.join(name));
        if new.exists() {
            fs::remove_dir_all(&new).map_err(LedgerError::io("remove", &new))?;
        }
        fs::create_dir_all(&new).map_err(LedgerError::io("create", &new))?;
        BlockFile::open(&new.join("blocks"), |_| Ok(()))?.append(&block)?;
        flush(&new)?;
        fs::rename(&new, &path).map_err(LedgerError::io("create", &path))?;
        flush(&root)?;
        flush(&self.inner.directory)?;
        channels.insert(name.to_owned(), open_channel(&path, name, options, &keys.orderer.node)?);
        Ok(())
    }

    /// Returns what there is to know of each channel, in the order of their names.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        let channels = self.inner.channels.read().unwrap_or_else(PoisonError::into_inner);
        channels.values().map(|channel| channel.core.info()).collect()
    }

    /// Writes a member's own client identity to a directory: `msp/` in Fabric's layout, and `tls-ca.pem`, which vouches for
    /// the server. An identity of that member that is there already is kept.
    pub fn export_identity(&self, member: &str, directory: &Path) -> Result<(), LedgerError> {
        self.keys().export(member, directory, now())
    }

    /// Returns the certificate that vouches for the server's, PEM.
    pub fn tls_ca_pem(&self) -> String {
        self.keys().tls_ca_pem().to_owned()
    }

    pub(crate) fn tls_identity(&self) -> (Vec<u8>, Vec<u8>) {
        let keys = self.keys();
        (keys.tls_certificate_pem.clone(), keys.tls_key_pem.clone())
    }

    pub(crate) fn channel(&self, name: &str) -> Option<Arc<Channel>> {
        self.inner
            .channels
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    pub(crate) fn endorser(&self, msp_id: &str) -> Option<Arc<PemSigner>> {
        self.keys().endorser(msp_id)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.options.limits
    }

    pub(crate) fn simulations(&self) -> Arc<Semaphore> {
        Arc::clone(&self.inner.simulations)
    }

    pub(crate) fn streams(&self) -> Arc<Semaphore> {
        Arc::clone(&self.inner.streams)
    }

    fn keys(&self) -> std::sync::RwLockReadGuard<'_, Keys> {
        self.inner.keys.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ledger")
            .field("directory", &self.inner.directory)
            .finish_non_exhaustive()
    }
}

/// Reads the ledger's clock: Unix seconds.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

fn open_channel(directory: &Path, name: &str, options: &Options, orderer: &Arc<PemSigner>) -> Result<Arc<Channel>, LedgerError> {
    let blocks = directory.join("blocks");
    Channel::open(name, &blocks, &options.program, &options.limits, Arc::clone(orderer)).map(Arc::new)
}

fn write_spec(directory: &Path, spec: &NetworkSpec) -> Result<(), LedgerError> {
    let path = directory.join("network.json");
    let mut text = serde_json::to_string_pretty(spec).map_err(|error| LedgerError::Description {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    text.push('\n');
    Ok(folder::write_file(&path, text.as_bytes(), Readers::Everybody)?)
}

/// Takes the directory's lock; the system gives it back when the process ends, however it ends.
fn lock(directory: &Path) -> Result<Locked, LedgerError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(LedgerError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Locked::new(file)),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(LedgerError::io("lock", &path)(error)),
    }
}

fn flush(directory: &Path) -> Result<(), LedgerError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(LedgerError::io("flush", directory))
}
