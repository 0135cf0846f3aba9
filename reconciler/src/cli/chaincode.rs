//! `chaincode`: the agreement's program as a process that Fabric's peers dial, and the package that tells them where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ccaas::{Connection, ConnectionTls, Options, Server, Tls};
use clap::{Args, Subcommand};
use msp::folder::{self, Readers};

use super::error::{CliError, Doing, Exit};
use super::{Format, Global, output};

/// The largest PEM file that is read, in bytes.
const MAX_PEM_BYTES: u64 = 256 * 1024;

/// What to do with the chaincode.
#[derive(Debug, Subcommand)]
pub(crate) enum ChaincodeCommand {
    /// Serves the agreement's program to Fabric peers until it is told to stop.
    Serve(Serve),
    /// Writes the package that `peer lifecycle chaincode install` takes, and prints its package id.
    Package(Package),
}

/// How to serve the chaincode; the variables are those that Fabric's own samples use.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The package id that `chaincode package` printed, and the peer's installation.
    #[arg(long, env = "CHAINCODE_ID", value_name = "LABEL:HASH")]
    id: String,
    /// Where to listen.
    #[arg(long, env = "CHAINCODE_SERVER_ADDRESS", value_name = "HOST:PORT")]
    address: String,
    /// The server's certificate with its chain, PEM; with it, TLS is on.
    #[arg(long, env = "CHAINCODE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, env = "CHAINCODE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authorities that vouch for the peers' client certificates, PEM; with it, peers have to show one.
    #[arg(long, env = "CHAINCODE_CLIENT_CA_CERT", value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// `true`: no TLS, whatever the other variables say. `false`: nothing is served without.
    #[arg(long, env = "CHAINCODE_TLS_DISABLED", value_name = "BOOL")]
    tls_disabled: Option<bool>,
}

/// What the package tells the peer.
#[derive(Debug, Args)]
pub(crate) struct Package {
    /// The package's label.
    #[arg(long, value_name = "LABEL")]
    label: String,
    /// Where the peer reaches the chaincode's server.
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    /// The authority that vouches for the server's certificate, PEM; with it, the peer speaks TLS.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The certificate that the peer shows to the server, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "client_key"])]
    client_cert: Option<PathBuf>,
    /// Its private key, PEM. It stands in the package: whoever has the package has the key.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// How long the peer tries to reach the server, in seconds.
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=300))]
    dial_timeout: u16,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Does what was asked.
pub(crate) async fn run(global: &Global, command: ChaincodeCommand) -> Result<Exit, CliError> {
    match command {
        ChaincodeCommand::Serve(serve) => serve.run().await,
        ChaincodeCommand::Package(package) => package.run(global),
    }
}

impl Serve {
    async fn run(self) -> Result<Exit, CliError> {
        // Listening for signals begins here, so that none is lost while the server starts.
        let told = super::serve::told_to_stop();
        tokio::pin!(told);
        if !is_package_id(&self.id) {
            return Err(CliError::new(format!(
                "{:?} is no package id: that is LABEL:HASH, the hash with all its 64 hexadecimal digits",
                output::plain(&self.id)
            ))
            .next("give the whole id, as charter chaincode package and peer lifecycle chaincode queryinstalled print it"));
        }
        let mut options = Options::new(&self.id);
        options.tls = self.tls()?;
        let protected = options.tls.is_some();
        // Go's way of saying «every address».
        let address = match self.address.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}"),
            None => self.address.clone(),
        };
        let server = Server::bind(&address, options).await.map_err(|error| {
            CliError::new("the chaincode can't be served")
                .because(error)
                .next("another server may hold the port: end it, or choose another --address, which the package has to name too")
        })?;
        let local = server.address();
        if !protected && !local.ip().is_loopback() {
            output::note(&format!(
                "{local} is open to everybody who reaches it, and what they send is believed: use --tls-cert, --tls-key and --client-ca, or a \
                 network that only the peer is in"
            ));
        }
        output::line(&format!("listening on {local}"));
        let shutdown = server.shutdown_handle();
        let finished = server.finished();
        tokio::pin!(finished);
        tokio::select! {
            ended = &mut finished => ended.doing("the chaincode's server stopped")?,
            () = &mut told => {
                shutdown.begin();
                finished.await.doing("the chaincode's server did not stop cleanly")?;
            }
        }
        Ok(Exit::Clean)
    }

    fn tls(&self) -> Result<Option<Tls>, CliError> {
        if self.tls_disabled == Some(true) {
            return Ok(None);
        }
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return match self.tls_disabled {
                Some(false) => Err(CliError::new("TLS is asked for, and there is no certificate and key for it")
                    .next("charter chaincode serve --tls-cert FILE --tls-key FILE")),
                _ => Ok(None),
            };
        };
        Ok(Some(Tls {
            certificate: read(certificate)?.into_bytes(),
            key: folder::read_key(key).doing("the server's TLS key can't be used")?,
            client_authorities: self.client_ca.as_deref().map(read).transpose()?.map(String::into_bytes),
        }))
    }
}

impl Package {
    fn run(self, global: &Global) -> Result<Exit, CliError> {
        let connection = Connection {
            address: self.address.clone(),
            dial_timeout: Duration::from_secs(self.dial_timeout.into()),
            tls: self.tls()?,
        };
        let package = ccaas::package(&self.label, &connection).map_err(|error| {
            CliError::new("the package can't be made")
                .because(error)
                .next("charter chaincode package --help")
        })?;
        let readers = if self.client_key.is_some() {
            Readers::Owner
        } else {
            Readers::Everybody
        };
        folder::write_file(&self.out, &package.bytes, readers).doing(format!("cannot write {}", self.out.display()))?;
        match global.output {
            Format::Table => output::line(&package.id),
            Format::Json => output::json(&serde_json::json!({"package_id": package.id, "file": self.out}))?,
        }
        output::note(&format!(
            "next: charter channel join FILE, with package = {:?} in [fabric] of charter.toml, installs it on your peers (or, by hand: peer lifecycle \
             chaincode install {})\nthen: {}",
            self.out.display().to_string(),
            self.out.display(),
            self.served(&package.id)
        ));
        Ok(Exit::Clean)
    }

    /// The command that serves what the peer will dial.
    fn served(&self, id: &str) -> String {
        // A host that Fabric fills in is known to the peer only.
        let address = match self.address.rsplit_once(':') {
            Some((host, port)) if host.contains("{{") => format!("0.0.0.0:{port}"),
            _ => self.address.clone(),
        };
        let mut command = format!("charter chaincode serve --id {id} --address {address}");
        if self.tls_ca.is_some() {
            command.push_str(" --tls-cert FILE --tls-key FILE");
        }
        if self.client_cert.is_some() {
            command.push_str(" --client-ca FILE");
        }
        command
    }

    fn tls(&self) -> Result<Option<ConnectionTls>, CliError> {
        let Some(root) = &self.tls_ca else { return Ok(None) };
        let client = match (&self.client_cert, &self.client_key) {
            (Some(certificate), Some(key)) => {
                let key = folder::read_key(key).doing("the client key can't be used")?;
                let key = String::from_utf8(key).doing("the client key is not PEM")?;
                Some((read(certificate)?, key))
            }
            _ => None,
        };
        Ok(Some(ConnectionTls { root: read(root)?, client }))
    }
}

/// Whether a text has the form of a package id: a label, a colon and a SHA-256.
fn is_package_id(id: &str) -> bool {
    id.split_once(':')
        .is_some_and(|(label, hash)| !label.is_empty() && hash.len() == 64 && hash.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')))
}

/// Reads a PEM file within its bound.
pub(super) fn read(path: &Path) -> Result<String, CliError> {
    let what = format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).doing(what.clone())?.len();
    if size > MAX_PEM_BYTES {
        return Err(CliError::new(what).next(format!("it has {size} bytes; give a PEM file of at most {MAX_PEM_BYTES}")));
    }
    std::fs::read_to_string(path).doing(what)
}
