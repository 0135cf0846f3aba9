//! What a Charter's passes do for one resource: they look, and make what differs, until it is in sync.

use std::time::{Duration, Instant};

use providers::{Applied, Deleted, Provider, Scope, Wanted};
use state::observation::Observation;
use state::resource::{Outputs, Resource};
use tokio::runtime::Runtime;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one waits for the next.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks and applies until what is seen is in sync; its outputs.
///
/// # Panics
/// When it is not in time.
#[track_caller]
pub fn passes(see: impl Fn() -> Observation, apply: impl Fn() -> Result<Applied, String>) -> Outputs {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = see();
        if seen.in_sync() {
            return seen.outputs().cloned().unwrap_or_default();
        }
        let done = match &seen {
            Observation::Pending { .. } => Ok(None),
            _ => apply().map(Some),
        };
        assert!(Instant::now() < end, "{seen:?} {done:?}");
        std::thread::sleep(PAUSE);
    }
}

/// The paths in which what is there differs.
///
/// # Panics
/// When it is not there.
#[track_caller]
pub fn paths(seen: Observation) -> Vec<String> {
    match seen {
        Observation::Present { drift, .. } => drift.into_iter().map(|field| field.path).collect(),
        other => panic!("{other:?}"),
    }
}

/// For whom everything is that tests of providers make.
///
/// # Panics
/// Never: the names are some.
pub fn scope() -> Scope {
    let name = "a literal name is valid";
    Scope::new("air".parse().expect(name), "city".parse().expect(name))
}

/// Where providers work.
///
/// # Panics
/// When there is no runtime to be had.
pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("there is a runtime")
}

/// A provider, and what Charter's passes do with it.
pub trait Acting {
    /// The provider.
    fn provider(&self) -> &dyn Provider;

    /// Where it works.
    fn runtime(&self) -> &Runtime;

    /// Looks at a resource.
    ///
    /// # Panics
    /// When nothing is said of it.
    fn see(&self, resource: &Resource) -> Observation {
        let wanted = Wanted::of(resource);
        let mut seen = self.runtime().block_on(self.provider().observe(&scope(), &[wanted]));
        seen.resources.remove(&resource.name).expect("something is said of it")
    }

    /// Applies a resource.
    fn apply(&self, resource: &Resource) -> Result<Applied, String> {
        let done = self.runtime().block_on(self.provider().apply(&scope(), resource));
        done.map_err(|error| state::errors::chain(&error))
    }

    /// Deletes what was made for a resource.
    fn delete(&self, resource: &Resource) -> Result<Deleted, String> {
        let (scope, external) = (scope(), format!("air.{}", resource.name));
        let done = self.provider().delete(&scope, &resource.kind, &resource.name, &external);
        self.runtime().block_on(done).map_err(|error| state::errors::chain(&error))
    }

    /// Does what passes do until it is in sync.
    ///
    /// # Panics
    /// When it is not in time.
    #[track_caller]
    fn make(&self, resource: &Resource) -> Outputs {
        passes(|| self.see(resource), || self.apply(resource))
    }

    /// The paths that differ.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    fn drift(&self, resource: &Resource) -> Vec<String> {
        paths(self.see(resource))
    }
}
