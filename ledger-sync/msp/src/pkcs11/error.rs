//! What can go wrong between a signer and its token.

use std::path::PathBuf;

use cryptoki::error::{Error, RvError};

use crate::MspError;

/// A token did not sign. No variant holds a PIN.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The module's file can't be had.
    #[error("the PKCS#11 module {} can't be read: install the token's driver, or correct `module`", module.display())]
    NoModule {
        /// The module.
        module: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The module is not one.
    #[error("{} can't be loaded as a PKCS#11 module: `module` has to name the token's shared library", module.display())]
    Load {
        /// The module.
        module: PathBuf,
        /// Why.
        #[source]
        source: Error,
    },
    /// The module doesn't start.
    #[error("the PKCS#11 module {} does not start: check its own configuration", module.display())]
    Start {
        /// The module.
        module: PathBuf,
        /// What it answered.
        #[source]
        source: Error,
    },
    /// There is no such token.
    #[error("the PKCS#11 module {} has no token {token}; it has: {found}", module.display())]
    NoToken {
        /// The module.
        module: PathBuf,
        /// The token that was named.
        token: String,
        /// The tokens that are there.
        found: String,
    },
    /// More than one token is called so.
    #[error("{count} tokens are called {token}: name the slot of one in `slot`, instead of `token`")]
    SeveralTokens {
        /// The label.
        token: String,
        /// How many there are.
        count: usize,
    },
    /// There is no such key.
    #[error("token {token} has no private EC key {key}: correct `key` or `id`, or make the key there")]
    NoKey {
        /// The token.
        token: String,
        /// The key that was named.
        key: String,
    },
    /// More than one key is called so.
    #[error("token {token} has {count} private EC keys {key}: name the id of one in `id`")]
    SeveralKeys {
        /// The token.
        token: String,
        /// The key that was named.
        key: String,
        /// How many there are.
        count: usize,
    },
    /// The key asks for the PIN each time.
    #[error("key {key} of token {token} wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE): a service needs a key that doesn't")]
    AlwaysAsks {
        /// The token.
        token: String,
        /// The key.
        key: String,
    },
    /// The key is another one than the certificate's.
    #[error(
        "key {key} of token {token} does not belong to the certificate of {subject}: correct `key` or `id`, or name the certificate that was issued for it"
    )]
    NotItsKey {
        /// The token.
        token: String,
        /// The key.
        key: String,
        /// The certificate's common name.
        subject: String,
    },
    /// No PIN was named, and the token wants one.
    #[error("token {token} wants a PIN: name the file or the environment variable that holds it, in `pin_file` or `pin_env`")]
    NoPin {
        /// The token.
        token: String,
    },
    /// The PIN's environment variable is not there.
    #[error("the environment variable {variable}, which is to hold the token's PIN, is not set, is empty or is not text")]
    PinVariable {
        /// The variable.
        variable: String,
    },
    /// The PIN's file is empty or not text.
    #[error("{}, which is to hold the token's PIN, is empty or is not text", path.display())]
    PinFile {
        /// The file.
        path: PathBuf,
    },
    /// The token refused the PIN.
    #[error(
        "the PIN of token {token} is wrong: put the right one into {origin} before Charter is started again; it is not tried twice, because a token locks itself after a few wrong ones"
    )]
    WrongPin {
        /// The token.
        token: String,
        /// Where the PIN came from.
        origin: String,
    },
    /// The token takes no PIN any more.
    #[error("the PIN of token {token} is locked: unlock it with the security officer's PIN")]
    Locked {
        /// The token.
        token: String,
    },
    /// A call failed.
    #[error("token {token} can't {action}")]
    Call {
        /// The token.
        token: String,
        /// What was asked for.
        action: &'static str,
        /// What it answered.
        #[source]
        source: Error,
    },
    /// The token answered with something else than a signature.
    #[error("token {token} answered with {what}")]
    Answer {
        /// The token.
        token: String,
        /// What it answered with.
        what: &'static str,
    },
    /// The token takes too long.
    #[error("token {token} did not answer within {seconds} s")]
    Silent {
        /// The token.
        token: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The PIN's file can't be read.
    #[error("the PIN of token {token} can't be had")]
    Pin {
        /// The token.
        token: String,
        /// Why.
        #[source]
        source: Box<MspError>,
    },
}

impl TokenError {
    /// Tells whether the token may sign later without anybody changing the configuration: sessions are lost, devices are
    /// unplugged, services behind a module are restarted.
    pub fn transient(&self) -> bool {
        use RvError::*;
        match self {
            TokenError::NoToken { .. } | TokenError::Start { .. } | TokenError::Silent { .. } => true,
            TokenError::Call {
                source: Error::Pkcs11(answer, _),
                ..
            } => !matches!(
                answer,
                KeyFunctionNotPermitted
                    | KeyTypeInconsistent
                    | KeySizeRange
                    | MechanismInvalid
                    | MechanismParamInvalid
                    | CurveNotSupported
                    | DataInvalid
                    | DataLenRange
                    | FunctionNotSupported
                    | PinExpired
                    | PinInvalid
                    | PinLenRange
                    | UserPinNotInitialized
                    | UserTypeInvalid
            ),
            _ => false,
        }
    }

    /// Tells whether the token has no session to spare.
    pub(super) fn no_more_sessions(&self) -> bool {
        self.answered(RvError::SessionCount)
    }

    /// Tells whether the module says that it was never started, as one does whose state was lost.
    pub(super) fn not_started(&self) -> bool {
        self.answered(RvError::CryptokiNotInitialized)
    }

    fn answered(&self, wanted: RvError) -> bool {
        matches!(
            self,
            TokenError::Call { source: Error::Pkcs11(answer, _), .. }
                if std::mem::discriminant(answer) == std::mem::discriminant(&wanted)
        )
    }
}
