//! The key that a member signs with: where `charter.toml` says that it is, and how it is opened.
//!
//! One signer signs a member's transactions, its reports and the commits of `actual/`, wherever its key lives.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use msp::allowed::{self, AllowedKey};
use msp::pkcs11::{KeyName, PinSource, Pkcs11Signer, Place, TokenError, TokenName};
use msp::{Certificate, MspError, PemSigner, Signer, folder};
use serde::{Deserialize, Serialize};
use state::time::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::config::Config;

/// How long a token may take for one signature, or for opening it, in seconds.
const PATIENCE_SECONDS: u64 = 30;
/// The most calls that may be on their way into one token at a time.
const MAX_WAITING: usize = 64;
/// The longest key id, in bytes.
const MAX_ID_BYTES: usize = 128;
/// The largest allowed-signers file, in bytes.
const MAX_ALLOWED_SIGNERS: u64 = 1024 * 1024;
/// The longest name of a token, a key or an environment variable.
const MAX_NAME: usize = 255;

/// Where the signing key is, when it is not in the folder that `ledger.msp` names. Relative paths are relative to the
/// configuration's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignerConfig {
    /// In a PEM file.
    Pem(PemConfig),
    /// In a token behind a PKCS#11 module.
    Pkcs11(Pkcs11Config),
}

/// A key and its certificate in PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PemConfig {
    /// The key, PKCS#8 or SEC1, open to its owner only.
    pub key: PathBuf,
    /// The certificate; without it the one in the MSP folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
}

/// A key in a token. The PIN itself never stands here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11Config {
    /// The module: a shared library.
    pub module: PathBuf,
    /// The token's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The token's slot, where labels don't tell tokens apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u64>,
    /// The key's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key's id, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The file that holds the PIN, open to its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_file: Option<PathBuf>,
    /// The environment variable that holds the PIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_env: Option<String>,
    /// The certificate; without it the one in the MSP folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
}

impl SignerConfig {
    /// Checks what the types don't.
    pub fn check(&self) -> Result<(), String> {
        match self {
            SignerConfig::Pem(_) => Ok(()),
            SignerConfig::Pkcs11(config) => config.check().map_err(|error| format!("ledger.signer.pkcs11: {error}")),
        }
    }
}

impl Pkcs11Config {
    fn check(&self) -> Result<(), String> {
        if self.module.as_os_str().is_empty() {
            return Err("module is empty: name the token's shared library".into());
        }
        if self.token.is_some() == self.slot.is_some() {
            return Err("name either the token's label (token) or its slot (slot)".into());
        }
        if self.pin_file.is_some() && self.pin_env.is_some() {
            return Err("name either pin_file or pin_env".into());
        }
        for (field, name) in [("token", &self.token), ("key", &self.key), ("pin_env", &self.pin_env)] {
            let plain = |name: &String| !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
            if name.as_ref().is_some_and(|name| !plain(name)) {
                return Err(format!("{field} has to be 1 to {MAX_NAME} printable characters"));
            }
        }
        if let Some(variable) = &self.pin_env
            && variable
                .chars()
                .any(|character| !character.is_ascii_alphanumeric() && character != '_')
        {
            return Err("pin_env has to be the name of an environment variable".into());
        }
        self.id().map(drop)
    }

    fn id(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(text) = &self.id else { return Ok(None) };
        let id = hex::decode(text).ok().filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        id.map(Some)
            .ok_or_else(|| format!("id has to be 1 to {MAX_ID_BYTES} bytes in hexadecimal digits, for example id = \"01\""))
    }

    fn place(&self, folder: &Path) -> Result<Place, String> {
        self.check()?;
        let token = match (&self.token, self.slot) {
            (Some(label), _) => TokenName::Label(label.clone()),
            (None, slot) => TokenName::Slot(slot.unwrap_or_default()),
        };
        let pin = match (&self.pin_file, &self.pin_env) {
            (Some(file), _) => PinSource::File(folder.join(file)),
            (None, Some(variable)) => PinSource::Environment(variable.clone()),
            (None, None) => PinSource::None,
        };
        Ok(Place {
            module: folder.join(&self.module),
            token,
            key: KeyName {
                label: self.key.clone(),
                id: self.id()?,
            },
            pin,
        })
    }
}

/// Opens a member's signer.
pub fn open(config: &Config) -> Result<Arc<dyn Signer>, MspError> {
    let msp_id = config.ledger.msp_id.as_str();
    let certificate = |named: &Option<PathBuf>| match named {
        Some(path) => Ok(config.folder().join(path)),
        None => folder::signing_certificate(&config.msp()),
    };
    match &config.ledger.signer {
        None => Ok(Arc::new(PemSigner::from_msp_dir(&config.msp(), msp_id)?)),
        Some(SignerConfig::Pem(pem)) => {
            let key = config.folder().join(&pem.key);
            Ok(Arc::new(PemSigner::from_files(&certificate(&pem.certificate)?, &key, msp_id)?))
        }
        Some(SignerConfig::Pkcs11(token)) => {
            let place = token.place(config.folder()).map_err(|reason| MspError::Issue {
                action: "find the token",
                reason,
            })?;
            let certificate = folder::read_certificate(&certificate(&token.certificate)?)?;
            let (name, msp_id) = (place.token.to_string(), msp_id.to_owned());
            let waiting = Arc::new(AtomicUsize::new(0));
            let patience = Patience {
                token: name,
                seconds: PATIENCE_SECONDS,
                waiting,
            };
            let signer = patience.wait(move || Pkcs11Signer::open(&msp_id, &certificate, place))?;
            Ok(Arc::new(Aside {
                signer: Arc::new(signer),
                patience,
            }))
        }
    }
}

/// The name under which a member's keys stand in its allowed-signers file, and git says Good.
pub fn principal(config: &Config) -> String {
    format!("{}@{}", config.member, config.ledger.msp_id)
}

/// Writes down which key signs a member's commits from now on. The keys before it stay, with `last`, after which they sign no more.
pub fn keep_allowed_signers(config: &Config, signer: &dyn Signer, last: Timestamp) -> Result<(), MspError> {
    let path = config.allowed_signers();
    let present = read_allowed_signers(config)?;
    let text = allowed::renewed(&present, &principal(config), signer.certificate(), last.seconds())?;
    if text != present {
        folder::write_file(&path, text.as_bytes(), folder::Readers::Everybody)?;
    }
    Ok(())
}

/// The keys that are written down for a member, in the order in which they came.
pub fn allowed_keys(config: &Config) -> Result<Vec<AllowedKey>, MspError> {
    Ok(allowed::keys(&read_allowed_signers(config)?, &principal(config)))
}

fn read_allowed_signers(config: &Config) -> Result<String, MspError> {
    let path = config.allowed_signers();
    let failed = |source| MspError::Io {
        action: "read",
        path: path.clone(),
        source,
    };
    match File::open(&path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(MAX_ALLOWED_SIGNERS + 1).read_to_string(&mut text).map_err(failed)?;
            if text.len() as u64 > MAX_ALLOWED_SIGNERS {
                return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
            }
            Ok(text)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(failed(error)),
    }
}

/// A signer that waits for its token, though not for ever, and lets the runtime's other tasks go on meanwhile.
struct Aside {
    signer: Arc<Pkcs11Signer>,
    patience: Patience,
}

impl Signer for Aside {
    fn msp_id(&self) -> &str {
        self.signer.msp_id()
    }

    fn certificate_pem(&self) -> &str {
        self.signer.certificate_pem()
    }

    fn certificate(&self) -> &Certificate {
        self.signer.certificate()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, MspError> {
        let (signer, message) = (Arc::clone(&self.signer), message.to_vec());
        self.patience.wait(move || signer.sign(&message))
    }
}

/// How long a token is waited for. A call into a module can't be taken back, so what hangs is left to hang, and counted.
struct Patience {
    token: String,
    seconds: u64,
    waiting: Arc<AtomicUsize>,
}

impl Patience {
    fn wait<T: Send + 'static>(&self, call: impl FnOnce() -> Result<T, MspError> + Send + 'static) -> Result<T, MspError> {
        let silent = || {
            MspError::from(TokenError::Silent {
                token: self.token.clone(),
                seconds: self.seconds,
            })
        };
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(silent());
        }
        let waiting = Arc::clone(&self.waiting);
        let (answer, answered) = mpsc::sync_channel(1);
        let calling = std::thread::Builder::new().name("token".into()).spawn(move || {
            let result = call();
            waiting.fetch_sub(1, Ordering::SeqCst);
            // Nobody waits for what comes too late.
            let _ = answer.send(result);
        });
        if let Err(error) = calling {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(MspError::Issue {
                action: "ask the token",
                reason: error.to_string(),
            });
        }
        aside(|| answered.recv_timeout(Duration::from_secs(self.seconds))).unwrap_or_else(|_| Err(silent()))
    }
}

/// Calls what may block. On a worker of the runtime its other tasks move to another thread first.
fn aside<T>(call: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(call),
        _ => call(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SignerConfig, String> {
        let config: SignerConfig = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        config.check().map(|()| config)
    }

    #[test]
    fn a_token_is_named_once_and_completely() {
        let base = "[pkcs11]\nmodule = '/usr/lib/softhsm/libsofthsm2.so'\n";
        let good = read(&format!(
            "{base}token = 'city'\nkey = 'charter'\nid = '0a1b'\npin_file = 'secrets/pin'"
        ))
        .unwrap();
        let SignerConfig::Pkcs11(token) = &good else { panic!("{good:?}") };
        let place = token.place(Path::new("/etc/charter")).unwrap();
        assert_eq!(place.key.id.as_deref(), Some(&[0x0a, 0x1b][..]));
        assert!(format!("{place:?}").contains("/etc/charter/secrets/pin"));
        assert!(read(&format!("{base}slot = 3\npin_env = 'CITY_PIN'")).is_ok());
        for (more, word) in [
            ("", "either the token's label"),
            ("token = 'a'\nslot = 0", "either the token's label"),
            ("token = ''", "token has to be"),
            ("token = 'a'\npin_file = 'p'\npin_env = 'P'", "either pin_file or pin_env"),
            ("token = 'a'\npin_env = '12 34'", "name of an environment variable"),
            ("token = 'a'\nid = 'xyz'", "hexadecimal"),
            ("token = 'a'\nid = ''", "hexadecimal"),
            ("token = 'a'\npin = '1234'", "unknown field `pin`"),
        ] {
            let error = read(&format!("{base}{more}")).unwrap_err();
            assert!(error.contains(word), "{more}: {error}");
            assert!(!error.contains("1234"), "{error}");
        }
    }

    #[test]
    fn a_token_that_never_answers_is_not_waited_for() {
        let patience = |seconds| Patience {
            token: "«city»".into(),
            seconds,
            waiting: Arc::default(),
        };
        assert_eq!(patience(60).wait(|| Ok(1)).unwrap(), 1);
        let impatient = patience(0);
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        for round in 0..MAX_WAITING + 3 {
            let held = Arc::clone(&held);
            let error = impatient.wait(move || {
                let _ = held.lock().unwrap().recv();
                Ok(())
            });
            let error = error.unwrap_err();
            assert!(error.transient() && error.to_string().contains("did not answer"), "{error}");
            // Those that hang are counted, and no more are begun.
            assert_eq!(impatient.waiting.load(Ordering::SeqCst), (round + 1).min(MAX_WAITING));
        }
        drop(release);
        while impatient.waiting.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_blocks_is_called_from_anywhere() {
        assert_eq!(aside(|| 1), 1);
        let current = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(current.block_on(async { aside(|| 2) }), 2);
        let many = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        assert_eq!(many.block_on(async { aside(|| 3) }), 3);
        let spawned = many.block_on(async { tokio::spawn(async { aside(|| 4) }).await.unwrap() });
        let blocking = many.block_on(async { tokio::task::spawn_blocking(|| aside(|| 5)).await.unwrap() });
        assert_eq!((spawned, blocking), (4, 5));
    }
}
