//! Finding a token and a key in it, logging in, and one session.

use std::fmt;
use std::path::PathBuf;

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::UserType;
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use sha2::{Digest, Sha256};

use super::error::TokenError;
use super::module::Module;
use crate::private;

/// The largest PIN file, in bytes.
const MAX_PIN_BYTES: usize = 1024;
/// The most tokens that an error names.
const MAX_NAMED: usize = 8;

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The module: a shared library.
    pub module: PathBuf,
    /// The token.
    pub token: TokenName,
    /// The key in it.
    pub key: KeyName,
    /// Where its PIN is.
    pub pin: PinSource,
}

/// Which token is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenName {
    /// The one with this label.
    Label(String),
    /// The one in this slot.
    Slot(u64),
}

impl fmt::Display for TokenName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(formatter, "«{}»", label.escape_debug()),
            Self::Slot(slot) => write!(formatter, "in slot {slot}"),
        }
    }
}

/// Which key is meant. With neither label nor id it is the one that has Fabric's id of the certificate's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyName {
    /// Its label.
    pub label: Option<String>,
    /// Its id.
    pub id: Option<Vec<u8>>,
}

impl fmt::Display for KeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.label, &self.id) {
            (Some(label), None) => write!(formatter, "«{}»", label.escape_debug()),
            (Some(label), Some(id)) => write!(formatter, "«{}» with id {}", label.escape_debug(), hex::encode(id)),
            (None, Some(id)) => write!(formatter, "with id {}", hex::encode(id)),
            (None, None) => formatter.write_str("with the id that Fabric gives the certificate's key"),
        }
    }
}

/// Where a PIN is. It is read when it is needed, and not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// In a file that only its owner can read; the last line break is not part of it.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
    /// Nowhere: the token has its own keypad, or asks for none.
    None,
}

impl fmt::Display for PinSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Environment(variable) => write!(formatter, "the environment variable {variable}"),
            Self::None => formatter.write_str("the token's keypad"),
        }
    }
}

impl Place {
    fn call(&self, action: &'static str) -> impl FnOnce(Error) -> TokenError {
        let token = self.token.to_string();
        move |source| TokenError::Call { token, action, source }
    }

    fn pin(&self) -> Result<Option<String>, TokenError> {
        match &self.pin {
            PinSource::None => Ok(None),
            PinSource::Environment(variable) => {
                let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
                value.map(Some).ok_or_else(|| TokenError::PinVariable {
                    variable: variable.clone(),
                })
            }
            PinSource::File(path) => {
                let content = private::read(path, "PIN", MAX_PIN_BYTES).map_err(|source| TokenError::Pin {
                    token: self.token.to_string(),
                    source: Box::new(source),
                })?;
                let text = String::from_utf8(content).ok();
                let line = text.as_deref().map(|text| text.strip_suffix('\n').unwrap_or(text));
                let pin = line.map(|line| line.strip_suffix('\r').unwrap_or(line));
                pin.filter(|pin| !pin.is_empty())
                    .map(|pin| Some(pin.to_owned()))
                    .ok_or_else(|| TokenError::PinFile { path: path.clone() })
            }
        }
    }

    /// Finds the token's slot.
    fn slot(&self, context: &Pkcs11, module: &Module) -> Result<(Slot, TokenInfo), TokenError> {
        let slots = context.get_slots_with_token().map_err(self.call("be looked for"))?;
        // A slot whose token can't be asked is not the one that is meant, or it is and is not there now.
        let tokens: Vec<(Slot, TokenInfo)> = slots
            .into_iter()
            .filter_map(|slot| Some((slot, context.get_token_info(slot).ok()?)))
            .filter(|(_, token)| token.token_initialized())
            .collect();
        let meant = |(slot, token): &&(Slot, TokenInfo)| match &self.token {
            TokenName::Label(label) => token.label() == label,
            TokenName::Slot(number) => slot.id() == *number,
        };
        let mut found: Vec<&(Slot, TokenInfo)> = tokens.iter().filter(meant).collect();
        match (found.pop(), found.len()) {
            (Some(one), 0) => Ok(one.clone()),
            (Some(_), others) => Err(TokenError::SeveralTokens {
                token: self.token.to_string(),
                count: others + 1,
            }),
            (None, _) => Err(TokenError::NoToken {
                module: module.path().to_owned(),
                token: self.token.to_string(),
                found: listed(&tokens),
            }),
        }
    }

    fn log_in(&self, session: &cryptoki::session::Session, token: &TokenInfo, module: &Module) -> Result<(), TokenError> {
        let name = || self.token.to_string();
        if !token.login_required() {
            return Ok(());
        }
        let pin = self.pin()?;
        if pin.is_none() && !token.protected_authentication_path() {
            return Err(TokenError::NoPin { token: name() });
        }
        let wrong = || TokenError::WrongPin {
            token: name(),
            origin: self.pin.to_string(),
        };
        let digest = pin.as_deref().map(|pin| self.digest(token, pin));
        // Held until the token has answered: of two threads with the same wrong PIN only one may ask.
        let mut refused = module.refused();
        if digest.is_some_and(|digest| refused.contains(&digest)) {
            return Err(wrong());
        }
        let answer = session.login(UserType::User, pin.map(AuthPin::from).as_ref());
        match answer {
            // Logging in counts for the whole process.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _)) => {
                refused.extend(digest);
                Err(wrong())
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::Locked { token: name() }),
            Err(error) => Err(self.call("be logged in to")(error)),
        }
    }

    fn digest(&self, token: &TokenInfo, pin: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [token.label(), token.manufacturer_id(), token.serial_number(), pin] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn key(&self, session: &cryptoki::session::Session, public_key: &[u8]) -> Result<ObjectHandle, TokenError> {
        let (token, key) = (|| self.token.to_string(), || self.key.to_string());
        let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC)];
        wanted.extend(self.key.label.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec())));
        wanted.extend(self.key.id.clone().map(Attribute::Id));
        if self.key == KeyName::default() {
            wanted.push(Attribute::Id(Sha256::digest(public_key).to_vec()));
        }
        let mut found = session.find_objects(&wanted).map_err(self.call("be searched for the key"))?;
        let one = match (found.pop(), found.len()) {
            (Some(one), 0) => one,
            (None, _) => {
                return Err(TokenError::NoKey {
                    token: token(),
                    key: key(),
                });
            }
            (Some(_), others) => {
                return Err(TokenError::SeveralKeys {
                    token: token(),
                    key: key(),
                    count: others + 1,
                });
            }
        };
        // A token that doesn't know the question doesn't ask.
        let asks = session
            .get_attributes(one, &[AttributeType::AlwaysAuthenticate])
            .unwrap_or_default();
        if asks.contains(&Attribute::AlwaysAuthenticate(true)) {
            return Err(TokenError::AlwaysAsks {
                token: token(),
                key: key(),
            });
        }
        Ok(one)
    }
}

/// Names tokens for an error.
fn listed(tokens: &[(Slot, TokenInfo)]) -> String {
    if tokens.is_empty() {
        return "none".into();
    }
    let mut names: Vec<String> = tokens
        .iter()
        .take(MAX_NAMED)
        .map(|(slot, token)| format!("«{}» in slot {}", token.label().escape_debug(), slot.id()))
        .collect();
    if tokens.len() > MAX_NAMED {
        names.push(format!("{} more", tokens.len() - MAX_NAMED));
    }
    names.join(", ")
}

/// A session that is logged in, with the key's handle in it.
pub(super) struct Session {
    session: cryptoki::session::Session,
    key: ObjectHandle,
    generation: u64,
}

impl Session {
    /// Opens one. `generation` is the module's start that it belongs to.
    pub(super) fn open(context: &Pkcs11, generation: u64, module: &Module, place: &Place, public_key: &[u8]) -> Result<Self, TokenError> {
        let (slot, token) = place.slot(context, module)?;
        if token.user_pin_locked() {
            return Err(TokenError::Locked {
                token: place.token.to_string(),
            });
        }
        // Closed by hand: after the module was started anew, its number may be another session's.
        let session = context.open_ro_session_no_drop(slot).map_err(place.call("open a session"))?;
        let ready = place
            .log_in(&session, &token, module)
            .and_then(|()| place.key(&session, public_key));
        match ready {
            Ok(key) => Ok(Self { session, key, generation }),
            Err(error) => {
                let _ = session.close();
                Err(error)
            }
        }
    }

    /// The module's start that it belongs to.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Signs a digest; the answer is `r` and `s`, 32 bytes each.
    pub(super) fn sign(&self, place: &Place, digest: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.session.sign(&Mechanism::Ecdsa, self.key, digest).map_err(place.call("sign"))
    }

    /// Ends it. One that is lost has ended already.
    pub(super) fn close(self) {
        let _ = self.session.close();
    }
}
