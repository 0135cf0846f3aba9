//! Why a transaction is refused, and how that is answered.

use std::error::Error;

use msp::MspError;
use state::acts::Fault;
use state::canonical::{CanonicalError, Digest};
use state::errors::chain;
use state::event::MAX_EVENT_BYTES;
use state::ids::{MemberId, MspId, NameError, ResourceName};
use state::report::ReportError;
use state::rules::{CheckError, Refusal};
use thiserror::Error;

use crate::stub::{Response, StubError};

/// The message of the answer to a report that is the head of its member's chain already: sending it again is done.
pub const ALREADY_RECORDED: &str = "this report is recorded already";

/// The longest message of an answer, in characters.
const MAX_MESSAGE: usize = 1_000;

/// Why a transaction is refused. Nothing of it is written.
#[derive(Debug, Error)]
pub(crate) enum Refused {
    #[error("the transaction names no function; the functions are {known}", known = crate::FUNCTIONS.join(", "))]
    NoFunction,
    #[error("the chaincode has no function {0:?}; the functions are {known}", known = crate::FUNCTIONS.join(", "))]
    Function(String),
    #[error("{function} takes {expected} argument after its name, not {found}")]
    Arguments {
        function: &'static str,
        expected: &'static str,
        found: usize,
    },
    #[error("the argument of {function} has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        function: &'static str,
        bytes: usize,
        limit: usize,
    },
    #[error("the argument of {function} is malformed")]
    Malformed {
        function: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("resource {resource} is malformed")]
    Resource {
        resource: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the argument of {0} is not text")]
    NotText(&'static str),
    #[error(transparent)]
    Name(NameError),
    #[error("{0:?} is not a record's name: use 1 to 64 lower-case letters, digits and '-'")]
    Id(String),
    #[error("limit: a page has 1 to {max} resources, not {found}", max = crate::arguments::MAX_PAGE)]
    Page { found: u32 },
    #[error("the transaction's event would have {0} bytes; the limit is {MAX_EVENT_BYTES}: split the order")]
    Event(usize),
    #[error("the document has no canonical form")]
    Encode(#[from] CanonicalError),
    #[error("{0} is bound to no member of this channel: it has to register first")]
    Unregistered(MspId),
    #[error("the change is refused")]
    Rule(#[from] Refusal),
    #[error("no agreement was put before the members of this channel yet")]
    NoAgreement,
    #[error("member {0} is not registered on this channel")]
    NoMember(MemberId),
    #[error("there is no {what} {id} on this channel")]
    NoRecord { what: &'static str, id: String },
    #[error("resource {0} was never ordered on this channel")]
    NoResource(ResourceName),
    #[error("the report is refused")]
    Envelope(#[from] ReportError),
    #[error("the report is refused: its {0}")]
    Report(&'static str),
    #[error("the report is refused: its member {found} is not the submitter {by}")]
    ReportMember { found: MemberId, by: MemberId },
    #[error("the report is refused: number {found} with previous {previous} does not follow report {last} of {member}", previous = Shown(*.previous))]
    Chain {
        member: MemberId,
        last: u64,
        found: u64,
        previous: Option<Digest>,
    },
    #[error("the report is refused: its signature")]
    Signature(#[source] MspError),
    #[error("the creator's certificate can't be read")]
    Certificate(#[source] MspError),
    #[error("{ALREADY_RECORDED}")]
    Recorded,
    #[error(transparent)]
    Stub(#[from] StubError),
    #[error("the ledger's state under {0} is damaged")]
    Damaged(String),
}

struct Shown(Option<Digest>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(digest) => write!(f, "{digest}"),
            None => f.write_str("none"),
        }
    }
}

impl From<CheckError<Refused>> for Refused {
    fn from(error: CheckError<Refused>) -> Self {
        match error {
            CheckError::Refused(refusal) => Refused::Rule(refusal),
            CheckError::View(error) => error,
        }
    }
}

impl Refused {
    fn status(&self) -> i32 {
        match self {
            Refused::Rule(refusal) => of_rule(refusal),
            Refused::Unregistered(_) | Refused::ReportMember { .. } | Refused::Signature(_) | Refused::Certificate(_) => 403,
            Refused::NoAgreement | Refused::NoMember(_) | Refused::NoResource(_) | Refused::NoRecord { .. } => 404,
            Refused::Chain { .. } | Refused::Recorded => 409,
            Refused::Stub(_) | Refused::Damaged(_) => 500,
            Refused::NoFunction
            | Refused::Function(_)
            | Refused::Arguments { .. }
            | Refused::TooLarge { .. }
            | Refused::Malformed { .. }
            | Refused::Resource { .. }
            | Refused::NotText(_)
            | Refused::Name(_)
            | Refused::Id(_)
            | Refused::Page { .. }
            | Refused::Event(_)
            | Refused::Encode(_)
            | Refused::Envelope(_)
            | Refused::Report(_) => 400,
        }
    }

    /// Answers with the status and the chain of causes as one sentence.
    pub(crate) fn response(&self) -> Response {
        Response {
            status: self.status(),
            message: sentence(self),
            payload: Vec::new(),
        }
    }
}

fn of_rule(refusal: &Refusal) -> i32 {
    match refusal {
        Refusal::Act(refusal) => match refusal.fault() {
            Fault::Bad => 400,
            Fault::Forbidden => 403,
            Fault::Missing => 404,
            Fault::Conflict => 409,
        },
        Refusal::NotAParty(_) | Refusal::NotAllowed { .. } | Refusal::Dates { .. } | Refusal::Clause(_) => 403,
        Refusal::Missing(_) | Refusal::NothingProposed => 404,
        Refusal::Agreement(_)
        | Refusal::Items(_)
        | Refusal::Twice(_)
        | Refusal::Dependencies { .. }
        | Refusal::Owner { .. }
        | Refusal::Size { .. }
        | Refusal::Reserved(_) => 400,
        Refusal::Origin { .. } => 403,
        Refusal::Registered(_)
        | Refusal::Constituted
        | Refusal::Party { .. }
        | Refusal::OtherDigest(_)
        | Refusal::Accepted(_)
        | Refusal::NoAgreement
        | Refusal::Exists(_)
        | Refusal::Fixed { .. }
        | Refusal::Dangling { .. }
        | Refusal::NotExported { .. }
        | Refusal::Cycle(_)
        | Refusal::Needed { .. }
        | Refusal::Protected(_)
        | Refusal::Limit { .. } => 409,
    }
}

/// Writes an error and its causes on one line; what it quotes of the input can't break out of it.
fn sentence(error: &dyn Error) -> String {
    let mut text = chain(error);
    if text.chars().nth(MAX_MESSAGE).is_some() {
        text = text.chars().take(MAX_MESSAGE - 1).collect();
        text.push('…');
    }
    if text.chars().any(char::is_control) {
        text = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    }
    text
}
