//! The reconcile loop of one channel: one pass after another, each when something asks for it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ledger_sync::{Ledger, Progress, SubmitError};
use state::clauses::Closing;
use state::ids::{Channel, MemberId};
use tokio::sync::watch;

use super::until;
use crate::clock::now;
use crate::control::{ChannelStatus, Control, PassStatus, ServiceStatus};
use crate::controller::{Controller, Pass, PassOutcome};
use crate::executor::StepResult;
use crate::loaded::Heads;
use crate::overdue::Due;
use crate::planner::Mode;
use crate::shutdown::Shutdown;
use crate::workplace::remember_level;

/// How long a failed or unfinished pass waits before the next look, at first; it doubles up to the configured interval.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How long after a change others are awaited, so that one pass looks at all of them.
const CROWD: Duration = Duration::from_millis(200);

/// Waits until there is something new to look at. After a failure only a new order is: the member's own report of the failure
/// comes back by the ledger, and must not be a reason to try again at once.
async fn moved(follow: &mut watch::Receiver<Progress>, last: &Progress, strained: bool) {
    while follow.changed().await.is_ok() {
        if !strained || follow.borrow().desired != last.desired {
            return;
        }
    }
    // The follower has ended: the last verified state is kept in order, at the interval.
    std::future::pending().await
}

/// The reconcile loop of one channel.
pub(super) struct Loop {
    pub(super) controller: Controller,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) channel: Channel,
    pub(super) control: Control,
    pub(super) store: PathBuf,
    pub(super) interval: Duration,
    pub(super) publish: watch::Sender<ServiceStatus>,
    pub(super) shutdown: Shutdown,
}

impl Loop {
    pub(super) async fn run(self, mut follow: watch::Receiver<Progress>, mut woken: watch::Receiver<u64>) {
        let ended = until(self.shutdown.clone());
        tokio::pin!(ended);
        let mut pause = FIRST_PAUSE;
        let mut offered = BTreeSet::new();
        loop {
            let progress = follow.borrow_and_update().clone();
            woken.mark_unchanged();
            let paused = self.control.paused(&self.channel);
            self.tell(|status| take(status, &progress, paused));
            let mut wait = self.interval;
            // While it is catching up, what was desired yesterday is not made today. When the ledger is away, the last state that
            // was taken in is kept in order.
            if progress.caught_up {
                remember_level(&self.store, &self.channel);
            }
            let away = progress.frozen.is_some() || progress.last_error.is_some();
            let ready = progress.caught_up || away && Control::is_level(&self.store, &self.channel);
            let mut strained = false;
            let mut looked = false;
            if let (true, Some(desired)) = (ready, progress.desired) {
                let mode = if progress.frozen.is_some() { Mode::Frozen } else { Mode::Normal };
                let heads = Heads {
                    desired,
                    reported: progress.reported,
                };
                let pass = self
                    .pass(Pass {
                        mode,
                        heads: Some(heads),
                        approved: None,
                    })
                    .await;
                if mode == Mode::Normal && !paused && pass.error.is_none() {
                    self.due(&mut offered).await;
                }
                let settled = pass.converged && pass.error.is_none();
                strained = pass.failed > 0 || pass.error.is_some();
                looked = true;
                self.tell(|status| status.pass = Some(pass.clone()));
                if settled {
                    pause = FIRST_PAUSE;
                } else {
                    wait = pause.min(self.interval);
                }
            }
            tokio::select! {
                () = &mut ended => return,
                () = moved(&mut follow, &progress, strained) => {
                    // Who is ordered something new is looked at as closely as at first.
                    if follow.borrow().desired != progress.desired {
                        pause = FIRST_PAUSE;
                    }
                }
                () = self.changed(), if looked && !strained => {}
                _ = woken.changed() => {}
                // Only looks that nobody has asked for grow rarer.
                () = tokio::time::sleep(wait) => pause = (pause * 2).min(self.interval),
            }
        }
    }

    /// Waits until something that a pass has seen is no longer so, and a moment longer: changes come in crowds.
    async fn changed(&self) {
        self.controller.changed().await;
        tokio::time::sleep(CROWD).await;
    }

    async fn pass(&self, pass: Pass) -> PassStatus {
        match self.controller.reconcile_once(pass, &self.shutdown).await {
            Ok(PassOutcome {
                plan,
                executed,
                converged,
                denials,
                unsent,
                ..
            }) => {
                let count = |wanted: fn(&StepResult) -> bool| executed.values().filter(|result| wanted(result)).count();
                let done = count(|result| matches!(result, StepResult::Done | StepResult::Pending { .. }));
                let failed = count(|result| matches!(result, StepResult::Failed { .. }));
                for (name, result) in &executed {
                    if let StepResult::Failed { why } = result {
                        tracing::warn!(channel = %self.channel, resource = %name, error = why, "a step failed");
                    }
                }
                let error = match denials.as_slice() {
                    [] => unsent.map(|why| format!("the report is not sent yet: {why}")),
                    denials => Some(denials.iter().map(|denial| denial.message.clone()).collect::<Vec<_>>().join("; ")),
                };
                if let Some(error) = &error {
                    tracing::warn!(channel = %self.channel, error, "the pass is not complete");
                }
                PassStatus {
                    at: now(),
                    plan: Some(plan.digest),
                    done,
                    failed,
                    converged,
                    error,
                }
            }
            Err(error) => {
                let text = state::errors::chain(&error);
                tracing::warn!(channel = %self.channel, error = text, "the pass ended early");
                PassStatus {
                    at: now(),
                    plan: None,
                    done: 0,
                    failed: 0,
                    converged: false,
                    error: Some(text),
                }
            }
        }
    }

    /// Says what has become due by ledger time, where the agreement leaves that to Charters, and offers it to a person where it doesn't.
    async fn due(&self, offered: &mut BTreeSet<MemberId>) {
        for due in self.controller.due(now()).await {
            let (function, argument) = match &due {
                Due::Expired => ("expire", serde_json::json!({})),
                Due::Abandoned {
                    member,
                    closing: Closing::Submitted,
                    ..
                } => ("close_abandoned", serde_json::json!({ "member": member })),
                Due::Abandoned { member, deadline, .. } => {
                    if offered.insert(member.clone()) {
                        tracing::warn!(
                            "{member} was heard of last at {} on {}: charter close {member} --channel {} closes its part",
                            deadline.since,
                            self.channel,
                            self.channel
                        );
                    }
                    continue;
                }
            };
            match self
                .ledger
                .submit(&self.channel, function, vec![argument.to_string().into_bytes()])
                .await
            {
                Ok(committed) => tracing::warn!(channel = %self.channel, tx = committed.tx_id, "said {function}: {due:?}"),
                // Somebody else was faster, or the ledger knows better.
                Err(SubmitError::Refused { message, .. }) => tracing::info!(channel = %self.channel, message, "{function} was not taken"),
                Err(error) => tracing::warn!(channel = %self.channel, error = state::errors::chain(&error), "{function} was not sent"),
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut ChannelStatus)) {
        self.publish
            .send_modify(|status| change(status.channels.entry(self.channel.clone()).or_default()));
    }
}

fn take(status: &mut ChannelStatus, progress: &Progress, paused: bool) {
    status.block = progress.block;
    status.lag = progress.lag().unwrap_or(0);
    status.endpoint.clone_from(&progress.endpoint);
    status.connected = progress.connected;
    status.caught_up = progress.caught_up;
    status.ledger_error.clone_from(&progress.last_error);
    status.frozen.clone_from(&progress.frozen);
    status.rerun = progress.rerun;
    status.testimony.clone_from(&progress.testimony);
    status.paused = paused;
}
