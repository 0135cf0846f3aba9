//! `plan`, `apply` and `drift`: what would be done, doing it once, and what changed by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledger_sync::{Ledger, frozen, soft};
use serde::Serialize;
use state::canonical;
use state::event::EventBody;
use state::git::Store;
use state::ids::{Channel, MemberId};
use state::observation::Observation;
use state::plan::{Plan, Severity};
use state::rules::Verdict;

use super::access::{self, Access};
use super::error::{CliError, Consent, Doing, Exit};
use super::{Format, Global, output, targets};
use crate::config::Config;
use crate::control::Control;
use crate::controller::{Controller, Pass, PassError, PassOutcome, Preview};
use crate::document::Document;
use crate::executor::StepResult;
use crate::loaded::Heads;
use crate::planner::Mode;
use crate::planner::render::{Style, render};
use crate::schemas;
use crate::shutdown::Shutdown;
use crate::workplace::Workplace;

/// The largest plan that is read from a file, in bytes.
const MAX_PLAN_BYTES: u64 = 256 * 1024 * 1024;
/// How often, and how far apart, a store is looked at that a service is writing to.
const LEVEL_LOOKS: u32 = 20;
const LEVEL_PAUSE: Duration = Duration::from_millis(50);

/// Shows what would be done. Nothing is written, but the file that `--out` names.
pub(crate) async fn run(global: &Global, file: Option<&Path>, out: Option<&Path>) -> Result<Exit, CliError> {
    let document = file
        .map(Document::read)
        .transpose()
        .map_err(|error| CliError::new("nothing was planned").because(error))?;
    let mut exit = Exit::Clean;
    let mut plans = Vec::new();
    let selected = match document.is_some() || out.is_some() {
        true => {
            let config = targets::one(global)?;
            let channel = targets::one_channel(global, &config)?;
            vec![(config, vec![channel])]
        }
        false => targets::following(global)?,
    };
    for (config, channels) in selected {
        for channel in channels {
            let (plan, denied) = match &document {
                Some(document) => {
                    // The member's own are in the plan.
                    let others = document.resources().iter().filter(|resource| resource.owner != config.member);
                    schemas::misfits(others).iter().for_each(|misfit| output::note(misfit));
                    let foreseen = preview(&looking(&config, &channel)?, document).await;
                    let foreseen = foreseen.map_err(|error| failed(&config, &channel, error))?;
                    if let Verdict::Awaits(clauses) = &foreseen.verdict {
                        let clauses: Vec<String> = clauses.iter().map(|index| format!("clauses.approvals[{index}]")).collect();
                        output::note(&format!("it would wait for approvals first: {}", clauses.join(", ")));
                    }
                    (foreseen.plan, false)
                }
                None => {
                    let outcome = observe(&config, &channel).await?;
                    for denial in &outcome.denials {
                        output::note(&format!("denied: {}", output::plain(&denial.message)));
                    }
                    let denied = !outcome.denials.is_empty();
                    (outcome.plan, denied)
                }
            };
            exit = exit.worse(verdict(&plan, denied));
            plans.push((config.member.clone(), channel, plan));
        }
    }
    if let (Some(out), Some((_, _, plan))) = (out, plans.first()) {
        let bytes = canonical::document(plan).doing("cannot encode the plan")?;
        std::fs::write(out, bytes).doing(format!("cannot write {}", out.display()))?;
        output::note(&format!("kept in {}; do it with: charter apply {}", out.display(), out.display()));
    }
    show(global, &plans)?;
    Ok(exit)
}

fn show(global: &Global, plans: &[(MemberId, Channel, Plan)]) -> Result<(), CliError> {
    if global.output == Format::Json {
        return output::json(&plans.iter().map(|(_, _, plan)| plan).collect::<Vec<_>>());
    }
    let style = if output::colour() { Style::Colour } else { Style::Plain };
    for (index, (member, channel, plan)) in plans.iter().enumerate() {
        if plans.len() > 1 {
            output::line(&format!("{}# {member} on {channel}", if index > 0 { "\n" } else { "" }));
        }
        output::text(&render(plan, style));
        output::note(&format!(
            "{member} on {channel}, as ordered up to block {}",
            plan.base.position.block
        ));
    }
    Ok(())
}

fn verdict(plan: &Plan, denied: bool) -> Exit {
    let mut exit = if plan.is_empty() { Exit::Clean } else { Exit::Difference };
    if denied {
        exit = exit.worse(Exit::Denied);
    }
    for finding in &plan.findings {
        exit = exit.worse(match finding.severity {
            Severity::Notice => Exit::Clean,
            Severity::Drift => Exit::Difference,
            Severity::Denied => Exit::Denied,
            Severity::Unknown => Exit::Unknown,
        });
    }
    exit
}

fn failed(config: &Config, channel: &Channel, error: PassError) -> CliError {
    CliError::new(format!("no plan for {} on {channel}", config.member)).because(error)
}

/// A controller that only looks. It is never asked to send, so any ledger will do: the configured one is not called.
pub(crate) fn looking(config: &Config, channel: &Channel) -> Result<Controller, CliError> {
    let store = targets::store(config)?;
    let place = Workplace::with_store(config, store).doing(format!("{} can't look", config.member))?;
    Ok(place.controller(channel, access::connect(config, None)?))
}

/// Plans from where both references have taken in the same blocks. Nothing is written.
async fn observe(config: &Config, channel: &Channel) -> Result<PassOutcome, CliError> {
    let store = targets::store(config)?;
    if frozen::read(&store, channel).is_some() {
        output::note(&format!(
            "{} on {channel}: frozen; a running service heals what was verified last, and deletes nothing",
            config.member
        ));
    }
    let heads = Some(level(&store, channel).await?);
    let pass = Pass {
        mode: Mode::ObserveOnly,
        heads,
        approved: None,
    };
    let looked = looking(config, channel)?.reconcile_once(pass, &Shutdown::never()).await;
    looked.map_err(|error| failed(config, channel, error))
}

/// Finds where both references stand level. While a service is moving them, that takes a moment.
async fn level(store: &Store, channel: &Channel) -> Result<Heads, CliError> {
    for _ in 0..LEVEL_LOOKS {
        if let Some(soft) = soft::read(store, channel)
            && let Some(desired) = soft.desired
            && Control::is_level(store.path(), channel)
        {
            let reported = soft.reported;
            return Ok(Heads { desired, reported });
        }
        tokio::time::sleep(LEVEL_PAUSE).await;
    }
    Err(CliError::new(format!(
        "the store does not stand at one position of {channel}: it was stopped while it took in blocks"
    ))
    .next(format!("charter reconcile --channel {channel}, or start the service")))
}

async fn preview(controller: &Controller, document: &Document) -> Result<Preview, PassError> {
    let event = match document.clone() {
        Document::Order(resources) => EventBody::ResourcesOrdered { resources },
        Document::Amendment(resources) => EventBody::ResourcesAmended { resources },
        Document::Retirement(resources) => EventBody::ResourcesRetired { resources },
        Document::Offer(offer) => EventBody::OfferPublished(*offer),
        Document::Agreement(agreement) => EventBody::AgreementConstituted {
            digest: agreement.digest()?,
            agreement: *agreement,
        },
    };
    controller.preview(event).await
}

/// Plans, shows, asks, and does it once; or does what a kept plan says, if it is still the plan.
pub(crate) async fn apply(global: &Global, kept: Option<&Path>, consent: Consent) -> Result<Exit, CliError> {
    let kept = kept.map(read).transpose()?;
    let mut exit = Exit::Clean;
    let mut matched = 0;
    for (config, channels) in targets::following(global)? {
        if kept.as_ref().is_some_and(|plan| plan.base.member != config.member) {
            continue;
        }
        let control = Control::new(config.folder());
        let _held = control.hold().map_err(|error| {
            CliError::new(format!("{} can't apply now", config.member))
                .because(error)
                .next("the running service applies by itself; charter reconcile asks it for a pass")
        })?;
        for channel in channels {
            if kept.as_ref().is_some_and(|plan| plan.base.channel != channel) {
                continue;
            }
            matched += 1;
            let plan = match &kept {
                Some(plan) => plan.clone(),
                None => observe(&config, &channel).await?.plan,
            };
            if kept.is_none() {
                show(global, &[(config.member.clone(), channel.clone(), plan.clone())])?;
                if plan.is_empty() {
                    continue;
                }
            }
            // Asked again by the pass itself: this is only so that nobody takes silence for success.
            if control.paused(&channel) && !plan.is_empty() {
                return Err(
                    CliError::new(format!("{} is paused on {channel}; nothing was applied there", config.member))
                        .next(format!("charter resume --member {} --channel {channel}", config.member)),
                );
            }
            if kept.is_none() {
                output::confirm(&format!("Do this for {} on {channel}?", config.member), consent)?;
            }
            let access = Access::open(global).await?;
            let done = once(&config, &channel, access.connect(&config)?, Some(&plan)).await;
            access.close().await?;
            exit = exit.worse(done?);
        }
    }
    match kept {
        Some(plan) if matched == 0 => Err(CliError::new(format!(
            "the plan is for member {} on channel {}, which is not here",
            plan.base.member, plan.base.channel
        ))
        .next("name its data directory with --data-dir, or its configuration with --config")),
        _ => Ok(exit),
    }
}

fn read(path: &Path) -> Result<Plan, CliError> {
    let size = std::fs::metadata(path).doing(format!("cannot read {}", path.display()))?.len();
    if size > MAX_PLAN_BYTES {
        return Err(CliError::new(format!("{} is too large to be a plan", path.display())));
    }
    let bytes = std::fs::read(path).doing(format!("cannot read {}", path.display()))?;
    let again = "charter plan --out FILE makes one";
    let plan: Plan = serde_json::from_slice(&bytes).map_err(|error| {
        CliError::new(format!("{} is not a plan", path.display()))
            .because(error)
            .next(again)
    })?;
    if !plan.verify().doing("cannot digest the plan")? {
        return Err(CliError::new(format!(
            "{} was changed after it was made: its digest is not that of its content",
            path.display()
        ))
        .next(again));
    }
    Ok(plan)
}

/// One pass of a member over some of its channels, for `reconcile` without a running service.
pub(crate) async fn pass(global: &Global, config: &Config, channels: &[Channel]) -> Result<Exit, CliError> {
    let control = Control::new(config.folder());
    let _held = control
        .hold()
        .map_err(|error| CliError::new(format!("{} can't apply now", config.member)).because(error))?;
    let access = Access::open(global).await?;
    let mut exit = Exit::Clean;
    let ledger = access.connect(config)?;
    for channel in channels {
        exit = exit.worse(once(config, channel, ledger.clone(), None).await?);
    }
    access.close().await?;
    Ok(exit)
}

/// Follows a channel to its present end, unless a certain plan is to be done, and makes one pass.
async fn once(config: &Config, channel: &Channel, ledger: Arc<dyn Ledger>, plan: Option<&Plan>) -> Result<Exit, CliError> {
    let place = Workplace::open(config).doing(format!("{} can't apply", config.member))?;
    // A plan of another day may hold deletions; what heals a frozen channel is the service.
    if let Some(frozen) = frozen::read(&place.store, channel) {
        return Err(CliError::new(format!(
            "{channel} is frozen, nothing was applied: {}",
            output::plain(&frozen.reason)
        ))
        .next(format!("find out why; then charter thaw --channel {channel}")));
    }
    let heads = match plan {
        Some(_) => level(&place.store, channel).await?,
        None => {
            let progress = place
                .catch_up(channel, ledger.clone())
                .await
                .map_err(|error| CliError::new(format!("channel {channel} can't be followed")).because(error))?;
            let desired = progress
                .desired
                .ok_or_else(|| CliError::new(format!("nothing was said on {channel} yet")).next("charter submit FILE"))?;
            Heads {
                desired,
                reported: progress.reported,
            }
        }
    };
    let controller = place.controller(channel, ledger.clone());
    let approved = plan.map(|plan| plan.digest);
    let pass = Pass {
        mode: Mode::Normal,
        heads: Some(heads),
        approved,
    };
    let outcome = controller.reconcile_once(pass, &Shutdown::never()).await;
    let outcome = outcome.map_err(|error| CliError::new(format!("{} did not apply on {channel}", config.member)).because(error))?;
    let mut exit = Exit::Clean;
    for (name, result) in &outcome.executed {
        let action = outcome
            .plan
            .steps
            .get(name)
            .map_or_else(String::new, |step| step.action.to_string());
        let word = match result {
            StepResult::Done => "done".to_owned(),
            StepResult::Pending { why } => format!("begun, {why}"),
            StepResult::Skipped { why } => format!("not begun: {why}"),
            StepResult::Failed { why } => {
                exit = Exit::Error;
                format!("failed: {why}")
            }
        };
        output::line(&format!("{action} {name}: {}", output::plain(&word)));
    }
    for denial in &outcome.denials {
        output::note(&format!("denied: {}", output::plain(&denial.message)));
        exit = exit.worse(Exit::Denied);
    }
    for finding in &outcome.findings {
        let (word, worse) = match finding.severity {
            Severity::Notice => continue,
            Severity::Drift => ("drifted", Exit::Clean),
            Severity::Denied => ("denied", Exit::Denied),
            Severity::Unknown => ("unknown", Exit::Unknown),
        };
        output::note(&format!("{word}: {}: {}", finding.resource, output::plain(&finding.message)));
        exit = exit.worse(worse);
    }
    if let Some(why) = &outcome.unsent {
        output::note(&format!("the report waits in the outbox: {}", output::plain(why)));
    } else if outcome.reported.is_some() {
        // The member's own report comes back by the ledger, like everybody's.
        place
            .catch_up(channel, ledger)
            .await
            .map_err(|error| CliError::new(format!("the pass is done, but channel {channel} can't be followed")).because(error))?;
    }
    Ok(exit)
}

#[derive(Serialize)]
struct Drifted<'a> {
    member: &'a MemberId,
    channel: &'a Channel,
    resource: String,
    kind: String,
    observation: Observation,
}

/// Compares what was applied last with what is there. Never writes.
pub(crate) async fn drift(global: &Global) -> Result<Exit, CliError> {
    let mut exit = Exit::Clean;
    let selected = targets::following(global)?;
    let mut found = Vec::new();
    let mut looked_at = 0;
    for (config, channels) in &selected {
        for channel in channels {
            let looked = looking(config, channel)?
                .drift()
                .await
                .map_err(|error| failed(config, channel, error))?;
            looked_at += looked.len();
            for one in looked {
                let worse = match &one.observation {
                    Observation::Unknown { .. } => Exit::Unknown,
                    Observation::Present { drift, owned: true, .. } if drift.is_empty() => Exit::Clean,
                    Observation::Pending { .. } => Exit::Clean,
                    _ => Exit::Difference,
                };
                exit = exit.worse(worse);
                if worse != Exit::Clean {
                    let (resource, kind) = (one.name.to_string(), one.kind.to_string());
                    found.push(Drifted {
                        member: &config.member,
                        channel,
                        resource,
                        kind,
                        observation: one.observation,
                    });
                }
            }
        }
    }
    if global.output == Format::Json {
        output::json(&found)?;
        return Ok(exit);
    }
    for one in &found {
        output::line(&format!("{} {}/{} ({})", one.member, one.channel, one.resource, one.kind));
        match &one.observation {
            Observation::Absent | Observation::Unmade { .. } => output::line("  it is gone"),
            Observation::Unknown { why } => output::line(&format!("  it could not be observed: {}", output::plain(why))),
            Observation::Pending { why, .. } => output::line(&format!("  {}", output::plain(why))),
            Observation::Present {
                owned: false, external, ..
            } => output::line(&format!("  {} is no longer Charter's", output::plain(external))),
            Observation::Present { drift, .. } => {
                for field in drift {
                    let value =
                        |value: &Option<serde_json::Value>| value.as_ref().map_or_else(|| "(not shown)".to_owned(), ToString::to_string);
                    let found = format!("{}: {} -> {}", field.path, value(&field.wanted), value(&field.found));
                    output::line(&format!("  {}", output::plain(&found)));
                }
            }
        }
    }
    let unseen = found
        .iter()
        .filter(|one| matches!(one.observation, Observation::Unknown { .. }))
        .count();
    let differ = found.len() - unseen;
    let blind = if unseen > 0 {
        format!("; {unseen} could not be observed")
    } else {
        String::new()
    };
    output::note(&format!("{differ} of {looked_at} resources differ from what was applied{blind}"));
    Ok(exit)
}
