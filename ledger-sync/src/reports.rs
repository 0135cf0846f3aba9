//! A member's reports: signed on its machine, sent as a transaction, sent again until they are on the ledger.

use msp::{Certificate, MspError, Signer, key_id};
use state::canonical::{CanonicalError, Digest};
use state::ids::Channel;
use state::report::{Envelope, PAYLOAD_TYPE, Report, ReportError, pre_authentication_encoding};
use thiserror::Error;

use crate::ledger::{Committed, Ledger, SubmitError};

/// A report could not be signed, or is not to be believed.
#[derive(Debug, Error)]
pub enum SignedReportError {
    /// It has no canonical form.
    #[error("the report can't be encoded")]
    Encode(#[from] CanonicalError),
    /// The envelope can't be read.
    #[error("the report's envelope can't be read")]
    Envelope(#[from] ReportError),
    /// It could not be signed, or its signature does not fit.
    #[error("the report's signature")]
    Signature(#[from] MspError),
    /// It was signed with another key.
    #[error("the report was signed with another key than that of the certificate")]
    Key,
}

/// Signs a report as a member, in a DSSE envelope.
pub fn sign(report: &Report, signer: &dyn Signer) -> Result<Envelope, SignedReportError> {
    let payload = report.payload()?;
    let signature = signer.sign(&pre_authentication_encoding(PAYLOAD_TYPE, &payload))?;
    Ok(Envelope::new(&payload, key_id(signer.msp_id(), signer.certificate()), &signature))
}

/// Checks that an envelope was signed with a certificate's key; gives the report and its digest.
pub fn verify(envelope: &Envelope, certificate: &Certificate) -> Result<(Report, Digest), SignedReportError> {
    let payload = envelope.payload()?;
    let (named, signature) = envelope.signature()?;
    let msp_id = named.rsplit_once(':').map_or("", |(msp_id, _)| msp_id);
    if key_id(msp_id, certificate) != named {
        return Err(SignedReportError::Key);
    }
    msp::verify(certificate, &pre_authentication_encoding(PAYLOAD_TYPE, &payload), &signature)?;
    Ok(envelope.report()?)
}

/// Where a report's submission ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// This transaction carried it.
    Now(Committed),
    /// The ledger had it already.
    Before,
}

/// By which function of the chaincode a report is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// As a report.
    Report,
    /// As a report whose time the ledger keeps as a sign of life: where silence or a date can end something.
    Heartbeat,
}

impl Recording {
    /// Both.
    pub const ALL: [Recording; 2] = [Recording::Report, Recording::Heartbeat];

    /// The function's name.
    pub fn function(self) -> &'static str {
        match self {
            Recording::Report => "report",
            Recording::Heartbeat => "heartbeat",
        }
    }
}

/// Puts a report on the ledger. Sending the same one again is a success: the chaincode knows it by its digest.
pub async fn submit_report(
    ledger: &dyn Ledger,
    channel: &Channel,
    envelope: &Envelope,
    recording: Recording,
) -> Result<Recorded, SubmitError> {
    let document = state::canonical::bytes(envelope).map_err(|error| {
        SubmitError::Sign(MspError::Issue {
            action: "encode a report",
            reason: error.to_string(),
        })
    })?;
    match ledger.submit(channel, recording.function(), vec![document]).await {
        Ok(committed) => Ok(Recorded::Now(committed)),
        Err(SubmitError::Refused { status, message, .. }) if status == 409 && message.contains(chaincode::ALREADY_RECORDED) => {
            Ok(Recorded::Before)
        }
        Err(error) => Err(error),
    }
}
