//! The crate's error.

use std::path::PathBuf;

/// Why an identity, a key or a signature could not be used.
#[derive(Debug, thiserror::Error)]
pub enum MspError {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, for example `read`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file with a secret can be read by others than its owner.
    #[error("the {what} in {} is open to others than its owner (mode {mode:o}): run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// What the file holds, for example `private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The file's permission bits.
        mode: u32,
    },
    /// A file with a secret is not one that is read.
    #[error("the {what} can't be read from {}: {reason}", path.display())]
    SecretFile {
        /// What the file holds, for example `private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A private key's file holds something else.
    #[error("the key file {} is not usable", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        #[source]
        source: Box<MspError>,
    },
    /// A certificate's file holds something else.
    #[error("the certificate file {} is not usable", path.display())]
    CertificateFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        #[source]
        source: Box<MspError>,
    },
    /// An MSP folder lacks something or holds something unexpected.
    #[error("the MSP folder {} is not usable: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A private key's text is not a P-256 key.
    #[error("not a P-256 private key in PKCS#8 or SEC1 PEM: {0}")]
    Key(String),
    /// A certificate cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// A key and a certificate don't belong together.
    #[error("the private key does not belong to the certificate of {0}")]
    KeyMismatch(String),
    /// An organisation's definition is not usable.
    #[error("the definition of organisation {msp_id} is not usable: {reason}")]
    Organisation {
        /// The organisation's MSP id.
        msp_id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A serialized identity names an organisation that isn't known here.
    #[error("creator org unknown, creator is malformed: no organisation {0} here")]
    UnknownOrganisation(String),
    /// An identity is malformed, or no certificate of its organisation vouches for it.
    #[error("the identity of organisation {msp_id} is not valid: {reason}")]
    Identity {
        /// The organisation that the identity claims.
        msp_id: String,
        /// Why it isn't believed.
        reason: String,
    },
    /// A certificate is past its end.
    #[error(
        "the certificate of {subject} expired on {}: renew it with the organisation's certificate authority",
        crate::certificate::day(*not_after)
    )]
    Expired {
        /// The certificate's common name.
        subject: String,
        /// The end of its validity, Unix seconds.
        not_after: i64,
    },
    /// A signature doesn't fit the message and the key.
    #[error("the signature is not valid: {0}")]
    Signature(&'static str),
    /// A channel's configuration or block lacks what membership needs.
    #[error("the channel's configuration is not usable: {0}")]
    Channel(String),
    /// A token did not sign.
    #[cfg(feature = "pkcs11")]
    #[error(transparent)]
    Token(#[from] crate::pkcs11::TokenError),
    /// Something could not be issued or signed.
    #[error("cannot {action}: {reason}")]
    Issue {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        reason: String,
    },
}

impl MspError {
    /// Tells whether the same call may succeed later, without anybody changing the configuration.
    pub fn transient(&self) -> bool {
        match self {
            #[cfg(feature = "pkcs11")]
            Self::Token(error) => error.transient(),
            _ => false,
        }
    }

    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
