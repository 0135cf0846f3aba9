//! The chaincode that the ledger runs: in its own process, or where it is served.

use std::fmt;

use ccaas::External;
use chaincode::stub::{Invocation, Response, Stub};
use protos::peer::SignedProposal;

/// A chaincode: its name on every channel, and what runs one transaction.
#[derive(Clone)]
pub struct Program {
    name: String,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Here(ccaas::Program),
    Elsewhere(External),
}

impl Program {
    /// Wraps a function as a chaincode with this name.
    pub fn new(name: impl Into<String>, run: impl Fn(&mut dyn Stub, &Invocation<'_>) -> Response + Send + Sync + 'static) -> Self {
        Self {
            name: name.into(),
            place: Place::Here(ccaas::Program::new(run)),
        }
    }

    /// Takes a chaincode that is served as a process of its own.
    pub fn external(external: External) -> Self {
        Self {
            name: external.name().to_owned(),
            place: Place::Elsewhere(external),
        }
    }

    /// Returns the chaincode's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it runs in this process, and so for a moment only.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.place, Place::Here(_))
    }

    /// Runs one transaction. A panic is an answer with status 500, not the end of the ledger.
    pub(crate) fn run(&self, stub: &mut dyn Stub, invocation: &Invocation<'_>, proposal: &SignedProposal) -> Response {
        let program = match &self.place {
            Place::Here(program) => program,
            Place::Elsewhere(external) => return external.run(stub, invocation, proposal),
        };
        program.run(stub, invocation).unwrap_or_else(|| {
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
        let place = match &self.place {
            Place::Here(_) => "in-process",
            Place::Elsewhere(_) => "external",
        };
        let mut shown = formatter.debug_struct("Program");
        shown.field("name", &self.name).field("place", &place).finish_non_exhaustive()
    }
}
