//! The function that runs one transaction.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use chaincode::stub::{Invocation, Response, Stub};

type Run = dyn Fn(&mut dyn Stub, &Invocation<'_>) -> Response + Send + Sync;

/// A chaincode's function; by default the one of an agreement, [`chaincode::invoke`].
#[derive(Clone)]
pub struct Program(Arc<Run>);

impl Program {
    /// Wraps a function.
    pub fn new(run: impl Fn(&mut dyn Stub, &Invocation<'_>) -> Response + Send + Sync + 'static) -> Self {
        Self(Arc::new(run))
    }

    /// Runs one transaction; none when it panicked.
    pub fn run(&self, stub: &mut dyn Stub, invocation: &Invocation<'_>) -> Option<Response> {
        // The stub of a run that panicked is thrown away with everything that it collected, so no broken state is seen.
        catch_unwind(AssertUnwindSafe(|| (self.0)(stub, invocation))).ok()
    }
}

impl Default for Program {
    fn default() -> Self {
        Self::new(chaincode::invoke)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Program").finish_non_exhaustive()
    }
}
