//! What members have done on a channel, counted from their signed reports and from what the ledger recorded, in a store.

use std::collections::BTreeMap;

use policies::reputation::Conduct;
use state::acts::life::PartRecord;
use state::acts::transfers::TransferRecord;
use state::git::{GitError, Store};
use state::ids::{Channel, MemberId};
use state::paths;
use state::report::{Envelope, ReportError};
use state::time::Timestamp;
use thiserror::Error;

use crate::view::{self, ViewError};

/// The most reports of one channel that are counted, the newest.
pub const LIMIT: usize = 5_000;
/// The seconds between reports where no agreement says otherwise.
const HEARTBEAT: u32 = 900;

/// The reports of a channel can't be counted.
#[derive(Debug, Error)]
pub enum ConductError {
    /// The store failed.
    #[error("the reports of channel {channel} can't be read")]
    Store {
        /// The channel.
        channel: Channel,
        /// What the store answered.
        #[source]
        source: GitError,
    },
    /// A commit can't be read as the state that it holds.
    #[error("the state of channel {channel} can't be read")]
    View {
        /// The channel.
        channel: Channel,
        /// What is wrong with it.
        #[source]
        source: ViewError,
    },
    /// A report can't be read.
    #[error("a report of {member} on channel {channel} can't be read; rebuild the store from the ledger with 'charter replay'")]
    Report {
        /// The channel.
        channel: Channel,
        /// Whose report.
        member: MemberId,
        /// What is wrong with it.
        #[source]
        source: ReportError,
    },
}

/// What each member of a channel has done there until now.
pub fn of(store: &Store, channel: &Channel, now: Timestamp) -> Result<BTreeMap<MemberId, Conduct>, ConductError> {
    let stored = |source| ConductError::Store {
        channel: channel.clone(),
        source,
    };
    let viewed = |source| ConductError::View {
        channel: channel.clone(),
        source,
    };
    let Some(newest) = store.head(&paths::reported_ref(channel)).map_err(stored)? else {
        return Ok(BTreeMap::new());
    };
    let mut all: BTreeMap<MemberId, Conduct> = BTreeMap::new();
    let mut heartbeat = HEARTBEAT;
    if let Some(commit) = store.head(&paths::desired_ref(channel)).map_err(stored)? {
        let desired = view::desired(store, channel, commit).map_err(viewed)?;
        if let Some(record) = desired.agreement() {
            heartbeat = record.agreement.heartbeat_seconds;
        }
        for part in desired.records().all::<PartRecord>() {
            all.entry(part.member.clone()).or_default().abandoned += 1;
        }
        for transfer in desired.records().all::<TransferRecord>().filter(|transfer| transfer.done.is_some()) {
            all.entry(transfer.proposed.by.clone()).or_default().given += 1;
            all.entry(transfer.transfer.to.clone()).or_default().taken += 1;
        }
    }
    for info in store.log(newest, None, LIMIT).map_err(stored)?.iter().rev() {
        // What is under quarantine names no member.
        let Some(member) = info.trailer("Member").and_then(|name| MemberId::new(name).ok()) else {
            continue;
        };
        let path = format!("members/{member}/report.dsse.json");
        let Some(bytes) = store.read(info.id, &path).map_err(stored)? else {
            continue;
        };
        let unread = |source| ConductError::Report {
            channel: channel.clone(),
            member: member.clone(),
            source,
        };
        let envelope: Envelope = serde_json::from_slice(&bytes).map_err(|error| unread(ReportError::Malformed(error)))?;
        let (report, _) = envelope.report().map_err(unread)?;
        let at = Timestamp::clamped(info.author.seconds);
        all.entry(member).or_default().take(at, &report, heartbeat);
    }
    for (member, reports) in view::reported(store, channel, newest).map_err(viewed)?.members() {
        all.entry(member.clone()).or_default().stand(reports, now, heartbeat);
    }
    Ok(all)
}
