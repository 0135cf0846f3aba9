//! `ledger serve`: the embedded ledger by itself.

use std::net::SocketAddr;

use super::error::{CliError, Doing, Exit};
use super::{Global, access, output};

/// Serves the data directory's ledger until it is told to stop.
pub(crate) async fn serve(global: &Global, listen: Option<SocketAddr>) -> Result<Exit, CliError> {
    if listen.is_some_and(|address| !address.ip().is_loopback()) {
        return Err(
            CliError::new("the embedded ledger listens on loopback only: it holds every member's keys")
                .next("charter ledger serve --listen 127.0.0.1:7051"),
        );
    }
    let folder = access::ledger_folder(&global.data_dir);
    let ledger = embedded::Ledger::open(&folder).map_err(|error| {
        let absent = matches!(error, embedded::LedgerError::Absent(_));
        let failed = CliError::new("the embedded ledger can't be opened").because(error);
        if absent {
            failed.next(format!("charter up --once --data-dir {} makes one", global.data_dir.display()))
        } else {
            failed
        }
    })?;
    output::note(embedded::TRUST_NOTICE);
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
