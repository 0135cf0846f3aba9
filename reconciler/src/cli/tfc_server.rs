//! `tfc-server`: a server that speaks Terraform Cloud's API, to try things out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use tfc_server::{Server, Settings};
use tokio::net::TcpListener;

use super::error::{CliError, Doing, Exit};
use super::output;

/// What the server is.
#[derive(Debug, Args)]
pub(crate) struct TfcServer {
    /// The program that runs are made by: tofu or terraform.
    #[arg(long, value_name = "PROGRAM")]
    engine: PathBuf,
    /// The folder that everything is kept in.
    #[arg(long, value_name = "DIR", default_value = ".charter-tfc")]
    folder: PathBuf,
    /// Where to listen; port 0 is any that is free.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8800")]
    listen: SocketAddr,
    /// An organization that is made, if it is not there. May stand more than once.
    #[arg(long, value_name = "NAME")]
    organization: Vec<String>,
    /// A folder of provider packages, as `providers mirror` lays it out, instead of a registry.
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
    /// How many engines run at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    runs: usize,
    /// How many requests a token may make in a second.
    #[arg(long, value_name = "COUNT", default_value_t = 30)]
    rate: u32,
}

/// Serves until it is told to stop.
pub(crate) async fn run(args: TfcServer) -> Result<Exit, CliError> {
    let absolute = |path: PathBuf| std::path::absolute(&path).doing("a path can't be used");
    let engine = if args.engine.components().count() > 1 {
        absolute(args.engine)?
    } else {
        args.engine
    };
    // Better now than in the first run's log.
    let tried = Command::new(&engine).arg("version").stdin(Stdio::null()).output();
    let works = tried.as_ref().is_ok_and(|done| done.status.success());
    if !works {
        let failed = CliError::new(format!("{} is no engine that can be run", engine.display()));
        let failed = match tried {
            Err(error) => failed.because(error),
            Ok(_) => failed,
        };
        return Err(failed.next("charter tfc-server --engine tofu, or the path of tofu or terraform"));
    }
    let settings = Settings {
        folder: absolute(args.folder)?,
        engine,
        mirror: args.mirror.map(absolute).transpose()?,
        runs: args.runs,
        rate: args.rate,
    };
    let server = Server::open(settings).doing("the server can't be opened")?;
    for organization in &args.organization {
        server.organization(organization).doing("an organization can't be made")?;
    }
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        CliError::new(format!("{} can't be listened on", args.listen))
            .because(error)
            .next("choose another one with --listen, or any that is free with --listen 127.0.0.1:0")
    })?;
    let address = listener.local_addr().doing("the listener has no address")?;
    if !address.ip().is_loopback() {
        output::note("whoever reaches this address and has a token may run any configuration on this machine, and nothing is encrypted");
    }
    output::note(&format!("its user's token is in {}", server.token().display()));
    output::line(&format!("listening on http://{address}"));
    let served = server.serve(listener, super::serve::told_to_stop()).await;
    served.doing("the server has failed")?;
    Ok(Exit::Clean)
}
