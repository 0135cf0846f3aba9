//! How a pass ends: what it did and saw is committed together with the report that is due, and the report is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger_sync::reports::{self, Recording, SignedReportError};
use state::agreement::Agreement;
use state::canonical::Digest;
use state::plan::Action;

use super::{Controller, PassError, PassOutcome};
use crate::actual::{Actual, Outgoing};
use crate::executor::{StepResult, chain, message};
use crate::loaded::Loaded;
use crate::reporting::{self, Basis};
use crate::shutdown::Shutdown;

/// How long sending a report may take; it stays in the outbox when it takes longer.
const SUBMISSION: Duration = Duration::from_secs(30);

impl Controller {
    /// Commits what the pass did and saw together with the report that is due, then sends the report.
    pub(super) async fn report(
        &self,
        loaded: &Loaded,
        actual: &mut Actual,
        shutdown: &Shutdown,
        outcome: &mut PassOutcome,
    ) -> Result<(), PassError> {
        self.clear_seen(loaded, actual)?;
        if let Some(outgoing) = self.signed_anew(actual)? {
            actual.send(outgoing)?;
        }
        let refused = actual.outbox().is_some_and(|outgoing| actual.is_refused(outgoing.sequence));
        if (actual.outbox().is_none() || refused)
            && let Some(outgoing) = self.next_report(loaded, actual, outcome)?
        {
            let before = actual.outbox().and_then(|before| before.envelope.report().ok());
            let news = match (before, outgoing.envelope.report()) {
                (Some((before, _)), Ok((report, _))) => before.changes != report.changes || before.desired != report.desired,
                _ => true,
            };
            if news {
                actual.send(outgoing)?;
            }
        }
        let title = title(outcome, actual);
        actual.commit(&self.author(), message(&title, &outcome.plan)).await?;
        let Some(outgoing) = actual.outbox().filter(|_| !shutdown.requested()) else {
            return Ok(());
        };
        let keeps_time = loaded.desired.in_force().is_some_and(Agreement::keeps_time);
        let recording = if keeps_time { Recording::Heartbeat } else { Recording::Report };
        let sending = reports::submit_report(self.settings.ledger.as_ref(), &self.settings.channel, &outgoing.envelope, recording);
        match tokio::time::timeout(SUBMISSION, sending).await {
            Ok(Ok(_)) => outcome.reported = Some(outgoing.sequence),
            Ok(Err(error)) => {
                outcome.unsent = Some(chain(&error));
                if !error.transient() {
                    let sequence = outgoing.sequence;
                    actual.refuse(sequence);
                }
            }
            Err(_) => outcome.unsent = Some(format!("the ledger did not answer within {} s", SUBMISSION.as_secs())),
        }
        Ok(())
    }

    /// Drops the report in the outbox once the ledger has it, or when the chain went on without it.
    fn clear_seen(&self, loaded: &Loaded, actual: &mut Actual) -> Result<(), PassError> {
        let head = loaded.reported.members().get(&self.settings.member).map(|reports| &reports.head);
        let next = head.map_or(1, |head| head.sequence + 1);
        match actual.outbox() {
            Some(outgoing) if head.is_some_and(|head| head.digest == outgoing.digest) => actual.recorded()?,
            Some(outgoing) if outgoing.sequence != next => actual.clear_outbox(),
            _ => {}
        }
        Ok(())
    }

    /// The report in the outbox with a new signature, where the certificate was renewed since: the ledger takes a report only with
    /// the certificate that it was signed with. It stays the same report, also when the one before reached the ledger.
    fn signed_anew(&self, actual: &Actual) -> Result<Option<Outgoing>, PassError> {
        let Some(outgoing) = actual.outbox() else { return Ok(None) };
        let signer = self.settings.signer.as_ref();
        let present = msp::key_id(signer.msp_id(), signer.certificate());
        let signed = outgoing.envelope.signature().map_err(SignedReportError::from)?.0;
        if signed == present {
            return Ok(None);
        }
        let (report, _) = outgoing.envelope.report().map_err(SignedReportError::from)?;
        Ok(Some(Outgoing {
            sequence: outgoing.sequence,
            digest: Digest::of(&report.payload()?),
            envelope: reports::sign(&report, signer)?,
        }))
    }

    fn next_report(&self, loaded: &Loaded, actual: &Actual, outcome: &PassOutcome) -> Result<Option<Outgoing>, PassError> {
        let member = &self.settings.member;
        // Nobody listens before there is an agreement, and whoever takes no part has nothing to say.
        let Some(record) = loaded.desired.agreement().filter(|record| record.in_force) else {
            return Ok(None);
        };
        // Who gave its place away still says what became of what it had.
        let told = loaded.reported.members().get(member).is_none_or(|told| told.statuses.is_empty());
        let had_something = !(told && outcome.statuses.is_empty() && actual.unreported().is_empty());
        let leaving = || had_something && record.succeeded.iter().any(|one| one.from == *member);
        if record.agreement.party(member).is_none() && !leaving() {
            return Ok(None);
        }
        let basis = Basis {
            channel: &self.settings.channel,
            member,
            position: loaded.position,
            commit: &loaded.heads.desired.to_string(),
            plan: actual.plan()?.unwrap_or(outcome.plan.digest),
            steps: actual.unreported(),
            now: (self.settings.clock)(),
            heartbeat_seconds: record.agreement.heartbeat_seconds,
        };
        let Some(report) = reporting::due(basis, &loaded.reported, &outcome.statuses)? else {
            return Ok(None);
        };
        let envelope = reports::sign(&report, self.settings.signer.as_ref())?;
        Ok(Some(Outgoing {
            sequence: report.sequence,
            digest: Digest::of(&report.payload()?),
            envelope,
        }))
    }
}

/// The title of a pass's commit.
fn title(outcome: &PassOutcome, actual: &Actual) -> String {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (name, result) in &outcome.executed {
        let Some(step) = outcome.plan.steps.get(name) else { continue };
        let word = match (result, step.action, step.tx) {
            (StepResult::Failed { .. }, ..) => "failed",
            (StepResult::Skipped { .. }, ..) => "skipped",
            (StepResult::Pending { .. }, ..) => "pending",
            (StepResult::Done, Action::Create | Action::Update | Action::Replace, None) => "healed",
            (StepResult::Done, Action::Create, Some(_)) => "created",
            (StepResult::Done, Action::Update, Some(_)) => "changed",
            (StepResult::Done, Action::Replace, Some(_)) => "replaced",
            (StepResult::Done, Action::Delete, _) => "deleted",
            (StepResult::Done, Action::Adopt, _) => "adopted",
            (StepResult::Done, Action::Forget, _) => "forgotten",
        };
        *counts.entry(word).or_default() += 1;
    }
    if !counts.is_empty() {
        let words: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        return format!("pass: {}", words.join(", "));
    }
    match actual.outbox() {
        Some(outgoing) => format!("report {}", outgoing.sequence),
        None => "observed".to_owned(),
    }
}
