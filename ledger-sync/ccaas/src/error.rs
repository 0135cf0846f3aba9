//! The crate's errors.

/// Why a chaincode could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The package id is none that a peer could know the chaincode by.
    #[error("the package id {0:?} is empty or has white space or control characters: give the one that the installation printed")]
    PackageId(String),
    /// The server could not listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The certificate, the key or the client authority can't be used.
    #[error("the TLS certificate, key or client authority can't be used: each is PEM, and the key belongs to the certificate")]
    Tls(#[source] tonic::transport::Error),
    /// The server ended by itself.
    #[error("the chaincode's server on {address} failed")]
    Failed {
        /// The address.
        address: String,
        /// What the transport said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a package could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The label is not one that peers take.
    #[error(
        "the label {0:?} is not one that peers take: it begins with a letter or digit, has letters, digits and . + - _ only, and at most 100 of them"
    )]
    Label(String),
    /// The address is none that a peer can dial.
    #[error("the address {0:?} is not HOST:PORT as the peer dials it")]
    Address(String),
    /// A file isn't the PEM that it should be.
    #[error("the {0} is not PEM of that kind")]
    Pem(&'static str),
    /// The archive could not be written.
    #[error("cannot write the package")]
    Archive(#[source] std::io::Error),
    /// A JSON file of the package could not be written.
    #[error("cannot write the package's {file}")]
    Json {
        /// The file.
        file: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// Why a chaincode that is served elsewhere can't be dialled as described.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is none.
    #[error("the chaincode's address {0:?} can't be dialled: give HOST:PORT")]
    Address(String),
    /// The authority, the client certificate or its key can't be used.
    #[error("the authority, the client certificate or its key for the chaincode can't be used: each is PEM")]
    Tls(#[source] tonic::transport::Error),
}
