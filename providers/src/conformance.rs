//! What every provider has to hold, as checks that run against a real server: a provider's tests implement [`Subject`] and call [`check`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use state::errors::chain;
use state::observation::Observation;
use state::resource::{OnRetire, Outputs, Resource};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use crate::{Applied, Deleted, Observed, Provider, ProviderError, Scope, Wanted};

/// How long something may take to become ready or to go.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a call on a hung server is waited for before its future is dropped.
const DEADLINE: Duration = Duration::from_millis(500);

/// A provider under test, and the hands that change the world behind its back.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The provider.
    fn provider(&self) -> &dyn Provider;

    /// For whom it works.
    fn scope(&self) -> Scope;

    /// A resource without references. Another name gives one that has nothing to do with it.
    fn resource(&self, name: &str) -> Resource;

    /// The same resource with one field changed, in a way that can be applied in place; none where there is no such field.
    fn amended(&self, resource: &Resource) -> Option<Resource>;

    /// Changes one field of the real thing from outside; the path that has to be seen, and no other.
    async fn disturb(&self, resource: &Resource) -> String;

    /// How many real things there are for a resource.
    async fn count(&self, resource: &Resource) -> usize;

    /// Puts a thing that is not Charter's exactly where the resource would be; false where that can't be.
    async fn plant(&self, resource: &Resource) -> bool;

    /// Whether the planted thing is as it was planted.
    async fn is_untouched(&self, resource: &Resource) -> bool;

    /// Makes the resource and dies at a step of it, as `kill -9` would; false when there is no such step.
    async fn cut_off(&self, resource: &Resource, step: u32) -> bool;

    /// Makes the resource unobservable; false where that can't be.
    async fn forbid(&self, resource: &Resource) -> bool;

    /// Takes [`Subject::forbid`] back.
    async fn permit(&self, resource: &Resource);

    /// Makes the next call on the resource meet a server that never answers; false where there is no server.
    async fn hang(&self, resource: &Resource) -> bool;
}

/// What a check showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It can't be shown here: the subject says that the fault can't happen.
    NotPossible,
}

/// A provider breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{check}: {what}")]
pub struct Violation {
    /// The check.
    pub check: &'static str,
    /// What was seen.
    pub what: String,
}

/// Runs all checks, each with a resource of its own; the first violation ends it.
pub async fn check(subject: &dyn Subject) -> Result<BTreeMap<&'static str, Verdict>, Violation> {
    let mut verdicts = BTreeMap::new();
    let mut keep = |name: &'static str, seen: Result<Verdict, String>| match seen {
        Ok(verdict) => {
            verdicts.insert(name, verdict);
            Ok(())
        }
        Err(what) => Err(Violation { check: name, what }),
    };
    keep("applied twice without a difference", applied_twice(subject).await)?;
    keep("observed twice alike", observed_twice(subject).await)?;
    keep("one change is one drift", one_drift(subject).await)?;
    keep("amended in place", amended(subject).await)?;
    keep("cut off and converged", cut_off(subject).await)?;
    keep("a stranger's thing is not touched", untouched(subject).await)?;
    keep("adopted without a change", adopted(subject).await)?;
    keep("deleted twice", deleted_twice(subject).await)?;
    keep("released and left alone", released(subject).await)?;
    keep("carried to another channel", carried(subject).await)?;
    keep("an orphan is found", orphaned(subject).await)?;
    keep("another scope's things are not seen", scoped(subject).await)?;
    keep("forbidden is unknown", forbidden(subject).await)?;
    keep("a hung server does no harm", hung(subject).await)?;
    keep("rendered twice alike", rendered(subject).await)?;
    Ok(verdicts)
}

fn is_absent(seen: &Observation) -> bool {
    matches!(seen, Observation::Absent | Observation::Unmade { .. })
}

async fn look(subject: &dyn Subject, resource: &Resource) -> Result<Observation, String> {
    look_as(subject, &subject.scope(), resource).await
}

async fn look_as(subject: &dyn Subject, scope: &Scope, resource: &Resource) -> Result<Observation, String> {
    let wanted = Wanted::of(resource);
    let mut observed = subject.provider().observe(scope, &[wanted]).await;
    let own = observed.resources.remove(&resource.name);
    own.ok_or_else(|| "a wanted resource has no observation".to_owned())
}

/// Does what passes do, until the resource is in sync.
async fn settle(subject: &dyn Subject, resource: &Resource) -> Result<Outputs, String> {
    let end = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < end {
        let seen = look(subject, resource).await?;
        if seen.in_sync() {
            return Ok(seen.outputs().cloned().unwrap_or_default());
        }
        last = format!("{seen:?}");
        match seen {
            Observation::Pending { .. } | Observation::Unknown { .. } => {}
            Observation::Present { owned: false, .. } if !resource.adopt => return Err(format!("it is not ours: {last}")),
            Observation::Absent | Observation::Unmade { .. } | Observation::Present { .. } => {
                if let Err(error) = subject.provider().apply(&subject.scope(), resource).await {
                    last = chain(&error);
                }
            }
        }
        sleep(PAUSE).await;
    }
    Err(format!("it does not converge; the last that was seen: {last}"))
}

/// Does what passes do, until the resource is gone.
async fn vanish(subject: &dyn Subject, resource: &Resource) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let (provider, scope) = (subject.provider(), subject.scope());
        let external = provider.external(&scope, resource);
        match provider.delete(&scope, &resource.kind, &resource.name, &external).await {
            Ok(Deleted::Gone) => {
                return match look(subject, resource).await? {
                    seen if is_absent(&seen) => Ok(()),
                    other => Err(format!("it was deleted, and then seen: {other:?}")),
                };
            }
            Ok(Deleted::Pending { .. }) => {}
            Err(error) => return Err(chain(&error)),
        }
        sleep(PAUSE).await;
    }
    Err("it is never gone".to_owned())
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

async fn expect_count(subject: &dyn Subject, resource: &Resource, wanted: usize) -> Result<(), String> {
    let count = subject.count(resource).await;
    expect(count == wanted, || format!("there are {count} real things, not {wanted}"))
}

async fn applied_twice(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("twice");
    expect(is_absent(&look(subject, &resource).await?), || {
        "it is there before it is made".to_owned()
    })?;
    let first = settle(subject, &resource).await?;
    let applied = subject
        .provider()
        .apply(&subject.scope(), &resource)
        .await
        .map_err(|error| chain(&error))?;
    match applied {
        Applied::Done { outputs, external } => {
            expect(outputs == first, || format!("its outputs changed from {first:?} to {outputs:?}"))?;
            let pure = subject.provider().external(&subject.scope(), &resource);
            expect(external == pure, || {
                format!("its external name is {external}, and {pure} beforehand")
            })?;
        }
        Applied::Pending { why, .. } => return Err(format!("applied again it is pending: {why}")),
    }
    expect(look(subject, &resource).await?.in_sync(), || {
        "applied again it is not in sync".to_owned()
    })?;
    expect_count(subject, &resource, 1).await?;
    vanish(subject, &resource).await?;
    expect_count(subject, &resource, 0).await?;
    Ok(Verdict::Holds)
}

async fn observed_twice(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("stable");
    settle(subject, &resource).await?;
    let first = look(subject, &resource).await?;
    for _ in 0..3 {
        let next = look(subject, &resource).await?;
        expect(first == next, || format!("{first:?} became {next:?}"))?;
    }
    vanish(subject, &resource).await?;
    Ok(Verdict::Holds)
}

async fn one_drift(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("drifting");
    settle(subject, &resource).await?;
    let path = subject.disturb(&resource).await;
    let end = Instant::now() + PATIENCE;
    loop {
        match look(subject, &resource).await? {
            // Outside it may take a moment to show.
            seen if seen.in_sync() && Instant::now() < end => sleep(PAUSE).await,
            Observation::Unknown { .. } if Instant::now() < end => sleep(PAUSE).await,
            Observation::Present { owned: true, drift, .. } => {
                let paths: Vec<&str> = drift.iter().map(|field| field.path.as_str()).collect();
                expect(paths == [path.as_str()], || {
                    format!("{path} was changed, and the drift is {paths:?}")
                })?;
                break;
            }
            other => return Err(format!("{path} was changed, and it is seen as {other:?}")),
        }
    }
    settle(subject, &resource).await?;
    expect_count(subject, &resource, 1).await?;
    vanish(subject, &resource).await?;
    Ok(Verdict::Holds)
}

async fn amended(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("amended");
    let Some(amended) = subject.amended(&resource) else {
        return Ok(Verdict::NotPossible);
    };
    settle(subject, &resource).await?;
    match look(subject, &amended).await? {
        Observation::Present { drift, replace: None, .. } if !drift.is_empty() => {}
        other => return Err(format!("the amended resource is seen as {other:?}")),
    }
    settle(subject, &amended).await?;
    expect_count(subject, &amended, 1).await?;
    expect(!look(subject, &resource).await?.in_sync(), || {
        "the resource as it was before is in sync as well".to_owned()
    })?;
    vanish(subject, &amended).await?;
    Ok(Verdict::Holds)
}

async fn cut_off(subject: &dyn Subject) -> Result<Verdict, String> {
    let mut step = 0;
    loop {
        let resource = subject.resource(&format!("cut-{step}"));
        if !subject.cut_off(&resource, step).await {
            break;
        }
        settle(subject, &resource)
            .await
            .map_err(|what| format!("cut off at step {step}, {what}"))?;
        expect_count(subject, &resource, 1).await?;
        vanish(subject, &resource).await?;
        expect_count(subject, &resource, 0).await?;
        step += 1;
    }
    Ok(if step > 0 { Verdict::Holds } else { Verdict::NotPossible })
}

async fn untouched(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("foreign");
    if !subject.plant(&resource).await {
        return Ok(Verdict::NotPossible);
    }
    match look(subject, &resource).await? {
        Observation::Present { owned: false, .. } => {}
        other => return Err(format!("a stranger's thing is seen as {other:?}")),
    }
    match subject.provider().apply(&subject.scope(), &resource).await {
        Err(ProviderError::NotOwned { .. }) => {}
        other => return Err(format!("applying over a stranger's thing gave {other:?}")),
    }
    let (provider, scope) = (subject.provider(), subject.scope());
    let external = provider.external(&scope, &resource);
    provider
        .delete(&scope, &resource.kind, &resource.name, &external)
        .await
        .map_err(|error| chain(&error))?;
    expect(subject.is_untouched(&resource).await, || {
        "the stranger's thing was touched".to_owned()
    })?;
    Ok(Verdict::Holds)
}

async fn adopted(subject: &dyn Subject) -> Result<Verdict, String> {
    let mut resource = subject.resource("adopted");
    if !subject.plant(&resource).await {
        return Ok(Verdict::NotPossible);
    }
    resource.adopt = true;
    settle(subject, &resource).await?;
    expect_count(subject, &resource, 1).await?;
    vanish(subject, &resource).await?;
    expect_count(subject, &resource, 0).await?;
    Ok(Verdict::Holds)
}

async fn deleted_twice(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("deleted");
    vanish(subject, &resource).await.map_err(|what| format!("never made, {what}"))?;
    settle(subject, &resource).await?;
    vanish(subject, &resource).await?;
    vanish(subject, &resource)
        .await
        .map_err(|what| format!("the second time, {what}"))?;
    Ok(Verdict::Holds)
}

async fn released(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("released");
    settle(subject, &resource).await?;
    let (provider, scope) = (subject.provider(), subject.scope());
    let external = provider.external(&scope, &resource);
    for _ in 0..2 {
        let released = provider.release(&scope, &resource.kind, &resource.name, &external).await;
        released.map_err(|error| chain(&error))?;
    }
    expect_count(subject, &resource, 1).await?;
    match look(subject, &resource).await? {
        Observation::Present { owned: false, .. } => {}
        other => return Err(format!("it was released and is seen as {other:?}")),
    }
    expect(
        orphans(subject).await.orphans.iter().all(|orphan| orphan.name != resource.name),
        || "it was released and is an orphan".to_owned(),
    )?;
    provider
        .delete(&scope, &resource.kind, &resource.name, &external)
        .await
        .map_err(|error| chain(&error))?;
    expect_count(subject, &resource, 1).await?;
    let mut again = resource.clone();
    again.adopt = true;
    settle(subject, &again).await?;
    vanish(subject, &again).await?;
    Ok(Verdict::Holds)
}

/// Another version's channel gets it as it is once this one has let go of it, and not before.
async fn carried(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("first");
    settle(subject, &resource).await?;
    let (provider, scope) = (subject.provider(), subject.scope());
    let external = provider.external(&scope, &resource);
    let later = Scope {
        channel: state::ids::Channel::new("later").map_err(|error| error.to_string())?,
        ..scope.clone()
    };
    let mut here = resource.clone();
    here.name = state::ids::ResourceName::new("second").map_err(|error| error.to_string())?;
    here.origin = Some(Box::new(resource.origin(&scope.channel)));
    expect(provider.external(&later, &here) == external, || {
        format!("it is carried, and its external name is no longer {external}")
    })?;
    match look_as(subject, &later, &here).await? {
        Observation::Pending { .. } => {}
        other => return Err(format!("still the first channel's, the later one sees it as {other:?}")),
    }
    if let Ok(Applied::Done { .. }) = provider.apply(&later, &here).await {
        return Err("it was taken over before it was let go of".to_owned());
    }
    for _ in 0..2 {
        let deleted = provider.delete(&later, &here.kind, &here.name, &external).await;
        deleted.map_err(|error| chain(&error))?;
        let released = provider.release(&later, &here.kind, &here.name, &external).await;
        released.map_err(|error| chain(&error))?;
    }
    expect(look(subject, &resource).await?.in_sync(), || {
        "the later channel has touched what was the first one's".to_owned()
    })?;
    let released = provider.release(&scope, &resource.kind, &resource.name, &external).await;
    released.map_err(|error| chain(&error))?;
    match look_as(subject, &later, &here).await? {
        Observation::Present { owned: false, drift, .. } if drift.is_empty() => {}
        other => return Err(format!("let go of and unchanged, the later channel sees it as {other:?}")),
    }
    for _ in 0..2 {
        provider.apply(&later, &here).await.map_err(|error| chain(&error))?;
    }
    expect(look_as(subject, &later, &here).await?.in_sync(), || {
        "it was taken over, and is not in sync".to_owned()
    })?;
    expect_count(subject, &resource, 1).await?;
    // The first channel has nothing of it any more, and no way to it.
    let left = orphans(subject).await.orphans;
    expect(left.iter().all(|orphan| orphan.name != resource.name), || {
        "it was carried on, and the first channel sees an orphan".to_owned()
    })?;
    let deleted = provider.delete(&scope, &resource.kind, &resource.name, &external).await;
    deleted.map_err(|error| chain(&error))?;
    let mut back = resource.clone();
    back.adopt = true;
    if let Ok(Applied::Done { .. }) = provider.apply(&scope, &back).await {
        return Err("the first channel took back what is another's".to_owned());
    }
    expect(look_as(subject, &later, &here).await?.in_sync(), || {
        "the first channel has touched what was carried on".to_owned()
    })?;
    let end = Instant::now() + PATIENCE;
    while provider
        .delete(&later, &here.kind, &here.name, &external)
        .await
        .map_err(|error| chain(&error))?
        != Deleted::Gone
    {
        expect(Instant::now() < end, || "what was carried is never gone".to_owned())?;
        sleep(PAUSE).await;
    }
    expect_count(subject, &resource, 0).await?;
    Ok(Verdict::Holds)
}

async fn orphans(subject: &dyn Subject) -> Observed {
    subject.provider().observe(&subject.scope(), &[]).await
}

async fn orphaned(subject: &dyn Subject) -> Result<Verdict, String> {
    let mut resource = subject.resource("orphaned");
    resource.on_retire = OnRetire::Retain;
    settle(subject, &resource).await?;
    let observed = orphans(subject).await;
    let found: Vec<_> = observed.orphans.iter().filter(|orphan| orphan.name == resource.name).collect();
    let [orphan] = found.as_slice() else {
        return Err(format!("the orphans are {:?}", observed.orphans));
    };
    expect(orphan.kind == resource.kind && orphan.on_retire == OnRetire::Retain, || {
        format!("its label reads {orphan:?}")
    })?;
    vanish(subject, &resource).await?;
    expect(orphans(subject).await.orphans.is_empty(), || {
        "an orphan is left after it was deleted".to_owned()
    })?;
    Ok(Verdict::Holds)
}

async fn scoped(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("scoped");
    settle(subject, &resource).await?;
    let mut other = subject.scope();
    let longer = format!("{}-2", other.channel);
    other.channel = state::ids::Channel::new(longer).map_err(|error| error.to_string())?;
    let observed = subject.provider().observe(&other, &[]).await;
    expect(observed.orphans.is_empty(), || {
        format!("another channel sees {:?}", observed.orphans)
    })?;
    vanish(subject, &resource).await?;
    Ok(Verdict::Holds)
}

async fn forbidden(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("forbidden");
    settle(subject, &resource).await?;
    if !subject.forbid(&resource).await {
        vanish(subject, &resource).await?;
        return Ok(Verdict::NotPossible);
    }
    let seen = look(subject, &resource).await?;
    subject.permit(&resource).await;
    expect(matches!(seen, Observation::Unknown { .. }), || {
        format!("what may not be seen is seen as {seen:?}")
    })?;
    expect(look(subject, &resource).await?.in_sync(), || {
        "it is not in sync afterwards".to_owned()
    })?;
    vanish(subject, &resource).await?;
    Ok(Verdict::Holds)
}

async fn hung(subject: &dyn Subject) -> Result<Verdict, String> {
    let resource = subject.resource("hung");
    if !subject.hang(&resource).await {
        return Ok(Verdict::NotPossible);
    }
    let scope = subject.scope();
    let started = Instant::now();
    // Whether it gives up by itself or is dropped: the caller goes on in time, and the next pass works.
    let _ = timeout(DEADLINE, subject.provider().apply(&scope, &resource)).await;
    expect(started.elapsed() < DEADLINE * 4, || {
        "a call on a hung server blocks its caller".to_owned()
    })?;
    settle(subject, &resource).await?;
    expect_count(subject, &resource, 1).await?;
    vanish(subject, &resource).await?;
    Ok(Verdict::Holds)
}

async fn rendered(subject: &dyn Subject) -> Result<Verdict, String> {
    let (provider, scope) = (subject.provider(), subject.scope());
    let resource = subject.resource("rendered");
    let first = provider.render(&scope, &resource).map_err(|error| error.to_string())?;
    let second = provider.render(&scope, &resource).map_err(|error| error.to_string())?;
    expect(first == second && !first.is_empty(), || {
        "two renderings differ, or there is none".to_owned()
    })?;
    for script in &first {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        expect(script.name.bytes().all(plain), || {
            format!("the name {:?} is no plain file name", script.name)
        })?;
    }
    expect(is_absent(&look(subject, &resource).await?), || "rendering made it".to_owned())?;
    Ok(Verdict::Holds)
}
