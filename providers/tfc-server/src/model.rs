//! What the server keeps, object by object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Something that is kept under an identity.
pub(crate) trait Object {
    /// What its identities begin with.
    const PREFIX: &'static str;

    fn id(&self) -> &str;
}

macro_rules! object {
    ($type:ty, $prefix:literal, $field:ident) => {
        impl Object for $type {
            const PREFIX: &'static str = $prefix;

            fn id(&self) -> &str {
                &self.$field
            }
        }
    };
}

object!(Organization, "org", name);
object!(Workspace, "ws", id);
object!(Variable, "var", id);
object!(Configuration, "cv", id);
object!(Run, "run", id);
object!(StateVersion, "sv", id);
object!(Comment, "wsc", id);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Organization {
    pub(crate) name: String,
    pub(crate) external_id: String,
    pub(crate) created: String,
    /// Its settings, as they were given.
    pub(crate) settings: Map<String, Value>,
}

/// Why nobody but its holder may change a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lock {
    /// A user's, by the name of the token.
    User(String),
    /// A run's.
    Run(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) id: String,
    pub(crate) organization: String,
    pub(crate) name: String,
    pub(crate) created: String,
    pub(crate) updated: String,
    /// Its settings, as they were given.
    pub(crate) settings: Map<String, Value>,
    pub(crate) lock: Option<Lock>,
    pub(crate) current_run: Option<String>,
    pub(crate) state: Option<String>,
    /// The configuration that was made last, but for those that are for one run only.
    pub(crate) configuration: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Variable {
    pub(crate) id: String,
    pub(crate) workspace: String,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) description: String,
    /// `terraform` or `env`.
    pub(crate) category: String,
    pub(crate) hcl: bool,
    pub(crate) sensitive: bool,
    /// Another one after each change.
    pub(crate) version: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Configuration {
    pub(crate) id: String,
    pub(crate) workspace: String,
    pub(crate) created: String,
    /// `pending`, `uploaded`, or `errored`.
    pub(crate) status: String,
    pub(crate) error: Option<String>,
    pub(crate) auto_queue: bool,
    pub(crate) speculative: bool,
    pub(crate) provisional: bool,
    /// The path that it is uploaded to and read from.
    pub(crate) key: String,
    pub(crate) number: u64,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Pending,
    Planning,
    Planned,
    PlannedAndFinished,
    PlannedAndSaved,
    Confirmed,
    Applying,
    Applied,
    Discarded,
    Errored,
    Canceled,
    ForceCanceled,
}

impl Status {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Planning => "planning",
            Self::Planned => "planned",
            Self::PlannedAndFinished => "planned_and_finished",
            Self::PlannedAndSaved => "planned_and_saved",
            Self::Confirmed => "confirmed",
            Self::Applying => "applying",
            Self::Applied => "applied",
            Self::Discarded => "discarded",
            Self::Errored => "errored",
            Self::Canceled => "canceled",
            Self::ForceCanceled => "force_canceled",
        }
    }

    /// Whether nothing comes after it.
    pub(crate) fn is_final(self) -> bool {
        matches!(
            self,
            Self::PlannedAndFinished | Self::Applied | Self::Discarded | Self::Errored | Self::Canceled | Self::ForceCanceled
        )
    }

    /// Whether it waits for somebody to say yes or no.
    pub(crate) fn waits(self) -> bool {
        matches!(self, Self::Planned | Self::PlannedAndSaved)
    }

    /// Whether an engine works on it, or is about to.
    pub(crate) fn works(self) -> bool {
        matches!(self, Self::Pending | Self::Planning | Self::Confirmed | Self::Applying)
    }
}

/// What a run was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Options {
    pub(crate) message: Option<String>,
    pub(crate) auto_apply: Option<bool>,
    pub(crate) plan_only: Option<bool>,
    pub(crate) save_plan: Option<bool>,
    pub(crate) is_destroy: bool,
    pub(crate) refresh: Option<bool>,
    pub(crate) refresh_only: bool,
    pub(crate) allow_empty_apply: Option<bool>,
    pub(crate) target_addrs: Option<Vec<String>>,
    pub(crate) replace_addrs: Option<Vec<String>>,
    pub(crate) variables: Option<Vec<RunVariable>>,
    pub(crate) terraform_version: Option<String>,
}

/// A variable of one run's, whose value is an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunVariable {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// How many things are made, changed and destroyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) additions: usize,
    pub(crate) changes: usize,
    pub(crate) destructions: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) workspace: String,
    pub(crate) configuration: String,
    pub(crate) created: String,
    pub(crate) status: Status,
    pub(crate) options: Options,
    /// When it came to which status.
    pub(crate) times: BTreeMap<String, String>,
    /// The state that it was planned upon.
    pub(crate) base: Option<String>,
    pub(crate) has_changes: bool,
    pub(crate) counts: Counts,
    /// Who has asked for it, and who has said yes to its plan.
    pub(crate) by: Option<String>,
    pub(crate) confirmed_by: Option<String>,
    /// The identities of its comments.
    pub(crate) comments: Vec<String>,
    /// The path that its logs are read from.
    pub(crate) key: String,
    /// Orders runs: the smaller, the older.
    pub(crate) number: u64,
}

impl Run {
    pub(crate) fn plan_only(&self) -> bool {
        self.options.plan_only == Some(true)
    }

    pub(crate) fn save_plan(&self) -> bool {
        self.options.save_plan == Some(true)
    }

    /// The identity of its plan, or of its application.
    pub(crate) fn phase(&self, phase: Phase) -> String {
        self.id.replacen("run", phase.prefix(), 1)
    }
}

/// The two things that an engine does for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Plan,
    Apply,
}

impl Phase {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Apply => "apply",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StateVersion {
    pub(crate) id: String,
    pub(crate) workspace: String,
    pub(crate) created: String,
    pub(crate) serial: u64,
    pub(crate) lineage: String,
    pub(crate) size: usize,
    pub(crate) terraform_version: String,
    pub(crate) run: Option<String>,
    /// Whether its text has come.
    pub(crate) uploaded: bool,
    pub(crate) outputs: Vec<Output>,
    pub(crate) key: String,
    pub(crate) number: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sensitive: bool,
    pub(crate) kind: Value,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comment {
    pub(crate) id: String,
    pub(crate) run: String,
    pub(crate) body: String,
    pub(crate) created: String,
}
