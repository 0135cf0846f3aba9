//! What a member says it sees: an in-toto Statement in a DSSE envelope, chained to the member's report before it.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::action::Action;
use crate::canonical::{self, CanonicalError, Digest};
use crate::event::Position;
use crate::ids::{Channel, Kind, MemberId, ResourceName};
use crate::resource::Outputs;
use crate::time::Timestamp;

/// DSSE's payload type for in-toto statements.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// in-toto's statement type.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The type of our predicate.
pub const PREDICATE_TYPE: &str = "urn:charter:report:v1";
/// The largest payload of a report, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// How one resource stands, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It is what was ordered, and ready.
    InSync,
    /// It is being made, or not ready yet.
    Pending,
    /// It waits for another resource.
    Waiting,
    /// It differs from what was ordered.
    Drifted,
    /// The last try to make it failed.
    Failed,
    /// It could not be observed.
    Unknown,
    /// The owner's local policy forbids it.
    Denied,
    /// It is being deleted.
    Deleting,
    /// Its absence was observed after it was retired.
    Deleted,
    /// It was retired and kept by agreement.
    Retained,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Condition::InSync => "in sync",
            Condition::Pending => "pending",
            Condition::Waiting => "waiting",
            Condition::Drifted => "drifted",
            Condition::Failed => "failed",
            Condition::Unknown => "unknown",
            Condition::Denied => "denied",
            Condition::Deleting => "deleting",
            Condition::Deleted => "deleted",
            Condition::Retained => "retained",
        })
    }
}

/// One resource in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceStatus {
    /// What it is.
    pub kind: Kind,
    /// How it stands.
    pub condition: Condition,
    /// The digest of the order that was applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Digest>,
    /// The outputs that it exports; only when it is ready.
    #[serde(default, skip_serializing_if = "Outputs::is_empty")]
    pub exports: Outputs,
    /// The drifted paths, as JSON pointers, without values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<String>,
    /// One sentence on why, where the condition needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The most steps that one report tells of; the rest goes into the next.
pub const MAX_STEPS: usize = 1_000;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// It was done.
    Done,
    /// It was begun, and a later look tells how it ended.
    Begun,
    /// It failed, and is tried again.
    Failed,
}

/// One step that a member carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    /// The resource.
    pub resource: ResourceName,
    /// What was done.
    pub action: Action,
    /// What it came to.
    pub outcome: StepOutcome,
    /// The transaction that asked for it; none: the real thing had drifted, and was brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Position>,
    /// The fields that it changed, as JSON pointers, without values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The plan that it was a step of.
    pub plan: Digest,
}

/// The predicate of a report: what changed since the member's last one, and a digest of the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The channel.
    pub channel: Channel,
    /// The member that reports.
    pub member: MemberId,
    /// Its number in the member's chain on this channel, from 1.
    pub sequence: u64,
    /// The digest of the report before it; none for the first.
    pub previous: Option<Digest>,
    /// The last desired-state transaction that the member had taken in.
    pub desired: Position,
    /// The desired-state commit, hexadecimal, as any member rebuilds it.
    pub commit: String,
    /// The digest of the plan that was carried out last.
    pub plan: Digest,
    /// When the member looked, by its own clock.
    pub observed_at: Timestamp,
    /// What the member carried out since its report before, in the order of its passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepReport>,
    /// Resources whose status is new or changed; `null`: no longer the member's to report.
    pub changes: BTreeMap<ResourceName, Option<ResourceStatus>>,
    /// The digest of all of the member's statuses after these changes.
    pub whole: Digest,
}

/// An in-toto Statement, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// What it is about: the desired state, by commit.
    pub subject: Vec<Subject>,
    /// Always [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// The report.
    pub predicate: Report,
}

/// One subject of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// `<channel>` for the desired state that the report is about.
    pub name: String,
    /// `gitCommit`: the commit id.
    pub digest: BTreeMap<String, String>,
}

/// A DSSE envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// Always [`PAYLOAD_TYPE`].
    pub payload_type: String,
    /// The statement, canonical JSON, in base64.
    pub payload: String,
    /// At least one signature.
    pub signatures: Vec<Signature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// `<MSP id>:<SHA-256 of the certificate, hexadecimal>`.
    pub keyid: String,
    /// ECDSA P-256 over SHA-256 of the pre-authentication encoding, DER, in base64.
    pub sig: String,
}

/// A report could not be read.
#[derive(Debug, Error)]
pub enum ReportError {
    /// An envelope of another type.
    #[error("the envelope's {0} is not that of a Charter report")]
    Type(&'static str),
    /// Over [`MAX_PAYLOAD_BYTES`].
    #[error("the report has {0} bytes; the limit is {MAX_PAYLOAD_BYTES}")]
    TooLarge(usize),
    /// Not base64.
    #[error("the envelope's {0} is not base64")]
    Base64(&'static str),
    /// Not a statement.
    #[error("the report's statement is malformed")]
    Malformed(#[source] serde_json::Error),
    /// Has no canonical form.
    #[error("the report can't be encoded")]
    Encode(#[from] CanonicalError),
    /// Nobody signed it, or too many did.
    #[error("the envelope has {0} signatures; a report has 1")]
    Signatures(usize),
}

/// The bytes that DSSE signs: the pre-authentication encoding of payload type and payload.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Report {
    /// The canonical bytes of the report's statement: what is signed, and what the report's digest is of.
    pub fn payload(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::bytes(&Statement {
            type_: STATEMENT_TYPE.into(),
            subject: vec![Subject {
                name: self.channel.to_string(),
                digest: [("gitCommit".to_owned(), self.commit.clone())].into(),
            }],
            predicate_type: PREDICATE_TYPE.into(),
            predicate: self.clone(),
        })
    }
}

/// The digest of a member's statuses: the `whole` of a report.
pub fn whole(statuses: &BTreeMap<ResourceName, ResourceStatus>) -> Result<Digest, CanonicalError> {
    canonical::digest(statuses)
}

impl Envelope {
    /// Puts a signed payload in an envelope.
    pub fn new(payload: &[u8], keyid: String, signature: &[u8]) -> Self {
        Self {
            payload_type: PAYLOAD_TYPE.into(),
            payload: STANDARD.encode(payload),
            signatures: vec![Signature {
                keyid,
                sig: STANDARD.encode(signature),
            }],
        }
    }

    /// The payload's bytes, bounded.
    pub fn payload(&self) -> Result<Vec<u8>, ReportError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(ReportError::Type("payloadType"));
        }
        if self.payload.len() > MAX_PAYLOAD_BYTES / 3 * 4 + 4 {
            return Err(ReportError::TooLarge(self.payload.len() / 4 * 3));
        }
        STANDARD.decode(&self.payload).map_err(|_| ReportError::Base64("payload"))
    }

    /// The one signature's key id and bytes.
    pub fn signature(&self) -> Result<(&str, Vec<u8>), ReportError> {
        let [signature] = self.signatures.as_slice() else {
            return Err(ReportError::Signatures(self.signatures.len()));
        };
        let bytes = STANDARD.decode(&signature.sig).map_err(|_| ReportError::Base64("signature"))?;
        Ok((&signature.keyid, bytes))
    }

    /// Reads the report without checking its signature; the digest is the payload's.
    pub fn report(&self) -> Result<(Report, Digest), ReportError> {
        let payload = self.payload()?;
        let statement: Statement = serde_json::from_slice(&payload).map_err(ReportError::Malformed)?;
        if statement.type_ != STATEMENT_TYPE {
            return Err(ReportError::Type("statement type"));
        }
        if statement.predicate_type != PREDICATE_TYPE {
            return Err(ReportError::Type("predicate type"));
        }
        Ok((statement.predicate, Digest::of(&payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_dsse_specification() {
        // The example of the DSSE v1 protocol document.
        let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }
}
