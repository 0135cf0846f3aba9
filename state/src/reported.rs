//! What every member of a channel says it sees: a pure function of the ledger's reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::canonical::{CanonicalError, Digest};
use crate::desired::{LoadError, file, parse};
use crate::event::{EventBody, LedgerEvent, Position, Provenance};
use crate::ids::{Channel, MemberId, ResourceName};
use crate::paths::{self, FileChange};
use crate::report::{Report, ReportError, ResourceStatus, whole};
use crate::sorted;
use crate::time::Timestamp;

/// The head of a member's chain of reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The last report's number.
    pub sequence: u64,
    /// Its digest.
    pub digest: Digest,
    /// The transaction that carried it.
    pub submitted: Provenance,
    /// The last desired-state transaction that the member had taken in.
    pub desired: Position,
    /// The desired-state commit that it names.
    pub commit: String,
    /// The plan that the member carried out last.
    pub plan: Digest,
    /// When the member looked, by its own clock.
    pub observed_at: Timestamp,
    /// The digest of all its statuses.
    pub whole: Digest,
    /// The time of the last report that the ledger keeps the time of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Timestamp>,
}

/// One member's reports, taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberReports {
    /// The head of its chain.
    pub head: Head,
    /// How each of its resources stands.
    pub statuses: BTreeMap<ResourceName, ResourceStatus>,
}

/// Why a report can't be taken in. The statuses stay as they are.
#[derive(Debug, Error)]
pub enum ReportRejection {
    /// Not a report.
    #[error("the event is not a report of this channel")]
    NotAReport,
    /// The envelope can't be read.
    #[error("the envelope can't be read")]
    Envelope(#[from] ReportError),
    /// An attribute contradicts the event that carries it.
    #[error("the report's {0} is not that of the event that carries it")]
    Contradicts(&'static str),
    /// The chain has a gap.
    #[error("report {found} does not follow report {last} of its member")]
    Chain {
        /// The last number.
        last: u64,
        /// Its number.
        found: u64,
    },
    /// The changes don't lead to the digest of the whole.
    #[error("the changes of the report don't lead to its digest of the whole")]
    Whole,
    /// It has no canonical form.
    #[error("the report can't be encoded")]
    Encode(#[from] CanonicalError),
}

/// What taking in a report changed.
#[derive(Debug)]
pub struct Taken {
    /// The files that it changes.
    pub files: Vec<FileChange>,
    /// Why its statuses were left out, if they were.
    pub complaint: Option<ReportRejection>,
}

/// What every member of a channel says it sees.
#[derive(Clone, Debug)]
pub struct ReportedState {
    channel: Channel,
    members: BTreeMap<MemberId, MemberReports>,
}

impl ReportedState {
    /// The state of a channel without reports.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            members: BTreeMap::new(),
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Each member's reports.
    pub fn members(&self) -> &BTreeMap<MemberId, MemberReports> {
        &self.members
    }

    /// Each member's last report that the ledger keeps the time of: its sign of life.
    pub fn heartbeats(&self) -> BTreeMap<MemberId, Timestamp> {
        let heads = self.members.iter();
        heads
            .filter_map(|(member, reports)| Some((member.clone(), reports.head.heartbeat?)))
            .collect()
    }

    /// How a member says that a resource stands.
    pub fn status(&self, member: &MemberId, resource: &ResourceName) -> Option<&ResourceStatus> {
        self.members.get(member)?.statuses.get(resource)
    }

    /// Takes in one report whose signature the ledger has checked.
    ///
    /// Changes that don't lead to the report's digest of the whole are left out, with a complaint, while the chain goes on:
    /// the member sees its own statuses here and its next report corrects them.
    pub fn apply(&mut self, event: &LedgerEvent) -> Result<Taken, ReportRejection> {
        let EventBody::ReportSubmitted {
            sequence,
            digest,
            envelope,
            heartbeat,
        } = &event.body
        else {
            return Err(ReportRejection::NotAReport);
        };
        let (report, found) = envelope.report()?;
        let by = &event.source.by;
        for (fits, what) in [
            (found == *digest, "digest"),
            (report.sequence == *sequence, "sequence"),
            (report.member == *by, "member"),
            (report.channel == self.channel && event.channel == self.channel, "channel"),
        ] {
            if !fits {
                return Err(ReportRejection::Contradicts(what));
            }
        }
        if heartbeat.is_some_and(|at| at != event.source.at) {
            return Err(ReportRejection::Contradicts("heartbeat"));
        }
        let before = self.members.get(by);
        let last = before.map_or(0, |reports| reports.head.sequence);
        let previous = before.map(|reports| reports.head.digest);
        if report.sequence != last + 1 || report.previous != previous {
            return Err(ReportRejection::Chain {
                last,
                found: report.sequence,
            });
        }
        let mut statuses = before.map(|reports| reports.statuses.clone()).unwrap_or_default();
        let (changes, complaint) = match self.changes(&report, &mut statuses, event) {
            Ok(changes) => (changes, None),
            Err(ReportRejection::Whole) => {
                statuses = before.map(|reports| reports.statuses.clone()).unwrap_or_default();
                (Vec::new(), Some(ReportRejection::Whole))
            }
            Err(other) => return Err(other),
        };
        let head = Head {
            sequence: report.sequence,
            digest: found,
            submitted: event.source.clone(),
            desired: report.desired,
            commit: report.commit,
            plan: report.plan,
            observed_at: report.observed_at,
            whole: whole(&statuses)?,
            heartbeat: heartbeat.or(before.and_then(|reports| reports.head.heartbeat)),
        };
        let mut files = vec![
            file(format!("members/{by}/head.json"), &head)?,
            file(format!("members/{by}/report.dsse.json"), envelope)?,
        ];
        files.extend(changes);
        self.members.insert(by.clone(), MemberReports { head, statuses });
        Ok(Taken { files, complaint })
    }

    fn changes(
        &self,
        report: &Report,
        statuses: &mut BTreeMap<ResourceName, ResourceStatus>,
        event: &LedgerEvent,
    ) -> Result<Vec<FileChange>, ReportRejection> {
        let folder = format!("members/{}/resources", event.source.by);
        let mut files = Vec::new();
        for (name, status) in &report.changes {
            let path = paths::named(&folder, name);
            match status {
                Some(status) => {
                    files.push(file(path, status)?);
                    statuses.insert(name.clone(), status.clone());
                }
                None => {
                    if statuses.remove(name).is_some() {
                        files.push(FileChange { path, bytes: None });
                    }
                }
            }
        }
        if whole(statuses)? != report.whole {
            return Err(ReportRejection::Whole);
        }
        Ok(files)
    }
}

/// One file of a commit on `reported/<channel>`, read by itself: files can be read side by side.
pub struct File(Content);

enum Content {
    Head(MemberId, Box<Head>),
    Status(MemberId, ResourceName, ResourceStatus),
    Other,
}

impl File {
    /// Reads one file; what is none of the state's is passed over later.
    pub fn read(path: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let misplaced = || LoadError::Misplaced(path.to_owned());
        let Some((member, rest)) = path.strip_prefix("members/").and_then(|rest| rest.split_once('/')) else {
            return Ok(Self(Content::Other));
        };
        let member = MemberId::new(member).map_err(|_| misplaced())?;
        Ok(Self(if rest == "head.json" {
            Content::Head(member, parse(path, bytes)?)
        } else if rest.starts_with("resources/") {
            let last = rest.rsplit('/').next().and_then(|last| last.strip_suffix(".json"));
            let name = ResourceName::new(last.ok_or_else(misplaced)?).map_err(|_| misplaced())?;
            Content::Status(member, name, parse(path, bytes)?)
        } else {
            Content::Other
        }))
    }
}

/// Puts the files of a commit on `reported/<channel>` together.
pub struct Loader {
    channel: Channel,
    heads: BTreeMap<MemberId, Head>,
    statuses: BTreeMap<MemberId, Vec<(ResourceName, ResourceStatus)>>,
}

impl Loader {
    /// Starts with an empty channel.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            heads: BTreeMap::new(),
            statuses: BTreeMap::new(),
        }
    }

    /// Takes one file.
    pub fn take(&mut self, file: File) {
        match file.0 {
            Content::Head(member, head) => {
                self.heads.insert(member, *head);
            }
            Content::Status(member, name, status) => {
                self.statuses.entry(member).or_default().push((name, status));
            }
            Content::Other => {}
        }
    }

    /// Gives the state.
    pub fn finish(mut self) -> ReportedState {
        let members = self
            .heads
            .into_iter()
            .map(|(member, head)| {
                let statuses = sorted::map(self.statuses.remove(&member).unwrap_or_default());
                (member, MemberReports { head, statuses })
            })
            .collect();
        ReportedState {
            channel: self.channel,
            members,
        }
    }
}
