//! One event into the two states: pure, and the same on every member's machine.
//!
//! `desired` takes everything but reports, `reported` takes reports. What can't be taken in becomes a file under
//! `quarantine/` on the reference that it was meant for.

use state::canonical::{self, CanonicalError, Digest};
use state::desired::DesiredState;
use state::event::{EventBody, LedgerEvent, Position};
use state::ids::TxId;
use state::paths::{self, FileChange};
use state::reported::ReportedState;
use state::time::Timestamp;

use crate::decode::Quarantine;
use crate::message;
use crate::reasons;

/// The name of the event that carries a report.
pub(crate) const REPORT: &str = "charter.report.submitted";

/// Which of the two references something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Branch {
    /// What was ordered.
    Desired,
    /// What every member says it sees.
    Reported,
}

/// The two states of a channel.
#[derive(Clone, Debug)]
pub struct States {
    /// What was ordered.
    pub desired: DesiredState,
    /// What every member says it sees.
    pub reported: ReportedState,
}

/// Who a commit is by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// A member's name, or an MSP id where no member is bound to it.
    pub name: String,
    /// The MSP that signed the transaction.
    pub msp: String,
}

/// One commit, but for its cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The reference that it goes to.
    pub branch: Branch,
    /// The transaction's place.
    pub position: Position,
    /// The transaction.
    pub tx_id: TxId,
    /// Its timestamp, clamped.
    pub at: Timestamp,
    /// Who submitted it.
    pub author: Author,
    /// What the history says about it.
    pub message: message::Text,
    /// The files that it changes.
    pub files: Vec<FileChange>,
}

/// Tells which reference an event goes to.
pub fn branch_of(body: &EventBody) -> Branch {
    match body {
        EventBody::ReportSubmitted { .. } => Branch::Reported,
        _ => Branch::Desired,
    }
}

/// Tells which reference a quarantined event was meant for.
pub fn quarantine_branch(quarantine: &Quarantine) -> Branch {
    if quarantine.event == REPORT {
        Branch::Reported
    } else {
        Branch::Desired
    }
}

impl States {
    /// Takes in one event, whole or into quarantine.
    pub fn take(&mut self, event: &LedgerEvent) -> Result<Change, CanonicalError> {
        match branch_of(&event.body) {
            Branch::Desired => match self.desired.apply(event) {
                Ok(files) => Ok(self.change(event, message::of_desired(event, &self.desired), files)),
                Err(rejection) => quarantine(&of_event(event, reasons::desired(&rejection))),
            },
            Branch::Reported => self.report(event),
        }
    }

    fn report(&mut self, event: &LedgerEvent) -> Result<Change, CanonicalError> {
        if !self.bound(event) {
            return quarantine(&of_event(event, "the member is not bound to the MSP that signed the report"));
        }
        match self.reported.apply(event) {
            Ok(taken) => {
                self.desired.hear_of(&event.source.by, &self.reported);
                let mut files = taken.files;
                let complaint = taken.complaint.as_ref().map(reasons::report);
                if let Some(reason) = complaint {
                    files.push(record(&of_event(event, reason))?);
                }
                let text = message::of_report(event, &self.reported, complaint);
                Ok(self.change(event, text, files))
            }
            Err(rejection) => quarantine(&of_event(event, reasons::report(&rejection))),
        }
    }

    /// Tells whether the event's member was bound to the event's MSP before it. `desired` may be ahead of `reported` after a
    /// crash between the two references, so it is asked as of the event's place.
    fn bound(&self, event: &LedgerEvent) -> bool {
        self.desired
            .members()
            .get(&event.source.by)
            .is_some_and(|record| record.msp == event.msp && record.registered.position < event.source.position)
    }

    fn change(&self, event: &LedgerEvent, mut text: message::Text, files: Vec<FileChange>) -> Change {
        text.trailers = message::trailers(event, self.agreement_at(event.source.position));
        Change {
            branch: branch_of(&event.body),
            position: event.source.position,
            tx_id: event.source.tx_id.clone(),
            at: event.source.at,
            author: Author {
                name: event.source.by.to_string(),
                msp: event.msp.to_string(),
            },
            message: text,
            files,
        }
    }

    /// The digest of the agreement that was before the members at a place.
    fn agreement_at(&self, position: Position) -> Option<Digest> {
        let record = self.desired.agreement()?;
        (record.constituted.position <= position).then_some(record.digest)
    }
}

/// Makes the commit that keeps a quarantined event for the record.
pub fn quarantine(quarantine: &Quarantine) -> Result<Change, CanonicalError> {
    Ok(Change {
        branch: quarantine_branch(quarantine),
        position: quarantine.position,
        tx_id: quarantine.tx_id.clone(),
        at: quarantine.at,
        author: Author {
            name: quarantine.msp.clone(),
            msp: quarantine.msp.clone(),
        },
        message: message::of_quarantine(quarantine),
        files: vec![record(quarantine)?],
    })
}

fn record(quarantine: &Quarantine) -> Result<FileChange, CanonicalError> {
    Ok(FileChange {
        path: paths::quarantine(quarantine.position),
        bytes: Some(canonical::document(quarantine)?),
    })
}

fn of_event(event: &LedgerEvent, reason: &str) -> Quarantine {
    Quarantine {
        position: event.source.position,
        tx_id: event.source.tx_id.clone(),
        at: event.source.at,
        msp: event.msp.to_string(),
        event: event.body.kind().to_owned(),
        reason: reason.to_owned(),
    }
}
