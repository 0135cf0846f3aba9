//! What Fabric's tools answer, read within bounds and without trust.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::FabricError;
use super::tools::{Call, Said};

/// The answer of `osnadmin`: the status of HTTP, and a document.
pub(super) struct Http {
    /// The status.
    pub(super) status: u16,
    /// What the orderer says is wrong, if it does.
    pub(super) error: Option<String>,
}

#[derive(Deserialize)]
struct HttpBody {
    #[serde(default)]
    error: Option<String>,
}

/// Reads `Status: 201` and the document below it. The tool exits with 0 whatever the status.
pub(super) fn http(call: &Call, said: &Said) -> Result<Http, FabricError> {
    let text = said.stdout.trim();
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let status = first.strip_prefix("Status:").and_then(|status| status.trim().parse().ok());
    let Some(status) = status else {
        return Err(answer(call, text));
    };
    let body: Option<HttpBody> = serde_json::from_str(rest).ok();
    Ok(Http {
        status,
        error: body.and_then(|body| body.error),
    })
}

/// Reads the channels that `peer channel list` names.
pub(super) fn joined(call: &Call, said: &Said) -> Result<Vec<String>, FabricError> {
    let mut lines = said.stdout.lines().map(str::trim);
    if !lines.any(|line| line.starts_with("Channels peers has joined")) {
        return Err(answer(call, &said.stdout));
    }
    Ok(lines.filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect())
}

/// The answer of `queryinstalled`.
#[derive(Deserialize)]
pub(super) struct Installed {
    #[serde(default)]
    pub(super) installed_chaincodes: Vec<InstalledPackage>,
}

/// One package on a peer.
#[derive(Deserialize)]
pub(super) struct InstalledPackage {
    pub(super) package_id: String,
}

/// The answer of `querycommitted` for a channel.
#[derive(Deserialize)]
pub(super) struct CommittedDefinitions {
    #[serde(default)]
    pub(super) chaincode_definitions: Vec<CommittedDefinition>,
}

/// One chaincode of a channel.
#[derive(Deserialize)]
pub(super) struct CommittedDefinition {
    pub(super) name: String,
    #[serde(default)]
    pub(super) sequence: u32,
    #[serde(default)]
    pub(super) version: String,
}

/// The answer of `queryapproved`.
#[derive(Deserialize)]
pub(super) struct Approved {
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "Type", default)]
    kind: Option<SourceKind>,
}

#[derive(Deserialize)]
struct SourceKind {
    #[serde(rename = "LocalPackage", default)]
    local: Option<LocalPackage>,
}

#[derive(Deserialize)]
struct LocalPackage {
    #[serde(default)]
    package_id: String,
}

impl Approved {
    /// The package that was approved, if one was.
    pub(super) fn package_id(&self) -> Option<&str> {
        let local = self.source.as_ref()?.kind.as_ref()?.local.as_ref()?;
        Some(local.package_id.as_str()).filter(|id| !id.is_empty())
    }
}

/// The answer of `checkcommitreadiness`: who has approved, by MSP id.
#[derive(Deserialize)]
pub(super) struct Readiness {
    #[serde(default)]
    pub(super) approvals: BTreeMap<String, bool>,
}

/// Reads a JSON answer.
pub(super) fn json<T: DeserializeOwned>(call: &Call, said: &Said) -> Result<T, FabricError> {
    serde_json::from_str(&said.stdout).map_err(|_| answer(call, &said.stdout))
}

/// Reads a package id: a label, a colon, and a digest.
pub(super) fn package_id(call: &Call, said: &Said) -> Result<String, FabricError> {
    let id = said.stdout.trim();
    let valid = id.len() <= 200
        && id.split_once(':').is_some_and(|(label, digest)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
            !label.is_empty() && label.chars().all(plain) && digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit())
        });
    if valid { Ok(id.to_owned()) } else { Err(answer(call, id)) }
}

/// The error for an answer that is none.
fn answer(call: &Call, text: &str) -> FabricError {
    let text: String = text.trim().chars().take(300).collect();
    FabricError::Answer {
        tool: call.tool,
        call: call.to_string(),
        what: if text.is_empty() { "nothing".into() } else { format!("{text:?}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::tools::Tool;

    fn said(stdout: &str) -> Said {
        Said {
            stdout: stdout.into(),
            stderr: String::new(),
        }
    }

    fn call() -> Call {
        Call::new(Tool::Peer, &[])
    }

    #[test]
    fn the_answers_of_the_tools_read() {
        let answer = http(&call(), &said("Status: 404\n{\n\t\"error\": \"channel does not exist\"\n}\n")).unwrap();
        assert_eq!((answer.status, answer.error.as_deref()), (404, Some("channel does not exist")));
        assert!(http(&call(), &said("Error: Get \"http://x\"")).is_err());
        let channels = joined(&call(), &said("Channels peers has joined: \none\ntwo\n")).unwrap();
        assert_eq!(channels, ["one", "two"]);
        assert!(joined(&call(), &said("one")).is_err());
        let approved = r#"{"sequence":1,"version":"1.0","source":{"Type":{"LocalPackage":{"package_id":"charter:ab"}}},"collections":{}}"#;
        let approved: Approved = json(&call(), &said(approved)).unwrap();
        assert_eq!((approved.version.as_str(), approved.package_id()), ("1.0", Some("charter:ab")));
        let nothing: Approved = json(&call(), &said(r#"{"source":{"Type":{"Unavailable":{}}}}"#)).unwrap();
        assert_eq!(nothing.package_id(), None);
        assert!(
            json::<CommittedDefinitions>(&call(), &said("{}"))
                .unwrap()
                .chaincode_definitions
                .is_empty()
        );
    }

    #[test]
    fn a_package_id_reaches_no_command_line_unchecked() {
        let digest = "a".repeat(64);
        assert_eq!(
            package_id(&call(), &said(&format!("charter_1.0:{digest}\n"))).unwrap(),
            format!("charter_1.0:{digest}")
        );
        for bad in ["", "charter", "charter:ab", &format!("--x y:{digest}"), &format!(":{digest}")] {
            assert!(package_id(&call(), &said(bad)).is_err(), "{bad}");
        }
    }
}
