//! `ledger serve`: the embedded ledger by itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use ccaas::{Dial, DialTls};
use clap::Args;
use embedded::{Options, Program};
use msp::folder;

use super::error::{CliError, Doing, Exit};
use super::{Global, access, chaincode, output};

/// A chaincode that is served as a process of its own.
#[derive(Debug, Args)]
pub(crate) struct External {
    /// Run the chaincode that is served there, as a Fabric peer does (default: the same program, in this process).
    #[arg(id = "external", long = "chaincode", value_name = "HOST:PORT")]
    address: Option<String>,
    /// The authority that vouches for its certificate, PEM; with it, it is spoken to over TLS.
    #[arg(long = "chaincode-ca", value_name = "FILE", requires = "external")]
    ca: Option<PathBuf>,
    /// The certificate to show it, PEM.
    #[arg(long = "chaincode-client-cert", value_name = "FILE", requires_all = ["ca", "client_key"])]
    client_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long = "chaincode-client-key", value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

impl External {
    /// What the ledger runs.
    fn program(&self) -> Result<Program, CliError> {
        let Some(address) = &self.address else {
            return Ok(Program::default());
        };
        let mut dial = Dial::new(address);
        if let Some(ca) = &self.ca {
            let client = match (&self.client_cert, &self.client_key) {
                (Some(certificate), Some(key)) => Some((
                    chaincode::read(certificate)?.into_bytes(),
                    folder::read_key(key).doing("the key for the chaincode's server can't be used")?,
                )),
                _ => None,
            };
            dial.tls = Some(DialTls {
                authority: chaincode::read(ca)?.into_bytes(),
                client,
            });
        }
        let external = ccaas::External::new(dial).doing("the chaincode can't be reached as described")?;
        Ok(Program::external(external))
    }
}

/// Serves the data directory's ledger until it is told to stop.
pub(crate) async fn serve(global: &Global, listen: Option<SocketAddr>, external: &External) -> Result<Exit, CliError> {
    if listen.is_some_and(|address| !address.ip().is_loopback()) {
        return Err(
            CliError::new("the embedded ledger listens on loopback only: it holds every member's keys")
                .next("charter ledger serve --listen 127.0.0.1:7051"),
        );
    }
    let folder = access::ledger_folder(&global.data_dir);
    let options = Options {
        program: external.program()?,
        ..Options::default()
    };
    let ledger = embedded::Ledger::open_with(&folder, options).map_err(|error| {
        let absent = matches!(error, embedded::LedgerError::Absent(_));
        let failed = CliError::new("the embedded ledger can't be opened").because(error);
        if absent {
            failed.next(format!("charter up --once --data-dir {} makes one", global.data_dir.display()))
        } else {
            failed
        }
    })?;
    output::note(embedded::TRUST_NOTICE);
    if let Some(address) = &external.address {
        output::note(&format!("the chaincode is the one at {address}"));
    }
    for channel in ledger.channels() {
        output::note(&format!(
            "channel {} of {}: {} blocks",
            channel.name,
            channel.members.join(", "),
            channel.height
        ));
    }
    let server = access::serve(ledger, &global.data_dir, listen, access::Elsewhere::Refused).await?;
    output::line(&format!("listening on {}", access::endpoint(server.address())));
    let shutdown = server.shutdown_handle();
    let finished = server.finished();
    tokio::pin!(finished);
    tokio::select! {
        ended = &mut finished => ended.doing("the embedded ledger stopped")?,
        () = super::serve::told_to_stop() => {
            shutdown.begin();
            finished.await.doing("the embedded ledger did not stop cleanly")?;
        }
    }
    Ok(Exit::Clean)
}
