//! The chaincode that the ledger runs in its own process.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use chaincode::stub::{Invocation, Response, Stub};

type Run = dyn Fn(&mut dyn Stub, &Invocation<'_>) -> Response + Send + Sync;

/// A chaincode: its name on every channel, and the function that runs one transaction.
#[derive(Clone)]
pub struct Program {
    name: String,
    run: Arc<Run>,
}

impl Program {
    /// Wraps a function as a chaincode with this name.
    pub fn new(name: impl Into<String>, run: impl Fn(&mut dyn Stub, &Invocation<'_>) -> Response + Send + Sync + 'static) -> Self {
        Self {
            name: name.into(),
            run: Arc::new(run),
        }
    }

    /// Returns the chaincode's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs one transaction. A panic is an answer with status 500, not the end of the ledger.
    pub(crate) fn run(&self, stub: &mut dyn Stub, invocation: &Invocation<'_>) -> Response {
        // The stub of a run that panicked is thrown away with everything it collected, so no broken state is seen.
        catch_unwind(AssertUnwindSafe(|| (self.run)(stub, invocation))).unwrap_or_else(|_| {
            tracing::error!(channel = invocation.channel, tx_id = invocation.tx_id, "the chaincode panicked");
            Response {
                status: 500,
                message: "the chaincode panicked".into(),
                payload: Vec::new(),
            }
        })
    }
}

impl Default for Program {
    fn default() -> Self {
        Self::new(chaincode::NAME, chaincode::invoke)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Program").field("name", &self.name).finish_non_exhaustive()
    }
}
