//! What is asked of the place that a workspace is in: an engine on this machine, or a server.

use async_trait::async_trait;
use state::canonical::Digest;
use state::event::Position;
use state::resource::Outputs;

use crate::Hindrance;
use crate::plan::EnginePlan;
use crate::record::Record;
use crate::render::Rendered;
use crate::spec::EngineSpec;

/// What there is of a workspace of ours, as far as that takes no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was to be made, and nothing was.
    Nothing,
    /// Something goes on that has to end first.
    Busy(String),
    /// A state, in the version that the place says, where it says one.
    There(Option<String>),
}

/// What a plan is to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim<'a> {
    /// What is ordered, by the digest of it.
    Make(&'a str),
    /// Nothing is left.
    Destroy,
}

/// What planning gave.
pub(crate) enum Outcome {
    /// Everything is as the configuration says.
    Same(EnginePlan),
    /// Something would be done. The plan is kept, for [`Workspace::apply`].
    Changes(EnginePlan),
    /// There is no plan yet.
    Waits(String),
}

/// A workspace in its place.
#[async_trait]
pub(crate) trait Workspace: Send + Sync {
    /// Who makes its plans, as far as another one would make others.
    fn engine(&self) -> String;

    /// Whether what makes its plans is what an order asks for.
    async fn suits(&self, wanted: &EngineSpec) -> Result<(), Hindrance>;

    /// Whether there is something under its name already.
    async fn is_there(&self) -> Result<bool, Hindrance>;

    /// What an earlier Charter has left running on this machine.
    fn going_on(&self) -> Option<String>;

    /// What there is of it. What has ended since the record was written is written there.
    async fn standing(&self, record: &mut Record) -> Result<Standing, Hindrance>;

    /// Whether the place itself has looked not long ago, and has seen that everything is as it was applied.
    async fn assessed(&self, record: &Record) -> Result<bool, Hindrance>;

    /// Makes the place ready for a configuration.
    async fn prepare(&self, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance>;

    /// Plans, and keeps the plan.
    async fn plan(&self, aim: Aim<'_>, record: &mut Record) -> Result<Outcome, Hindrance>;

    /// Whether a plan for this is kept, and can be carried out.
    async fn is_planned(&self, inputs: &str, record: &Record) -> Result<bool, Hindrance>;

    /// Carries out the plan that is kept, and nothing else, as a transaction has ordered it. `Some`: why it isn't done, or not yet.
    async fn apply(&self, order: Option<Position>, record: &mut Record) -> Result<Option<String>, Hindrance>;

    /// Keeps what was applied last apart from what is only planned.
    fn keep_applied(&self, rendered: &Rendered, record: &mut Record) -> Result<(), Hindrance>;

    /// What it gives, without what is sensitive. The version of the state is written in the record.
    async fn outputs(&self, record: &mut Record) -> Result<Outputs, Hindrance>;

    /// Takes it away, when nothing is left in it. `Some`: why it isn't.
    async fn remove(&self, record: &Record) -> Result<Option<String>, Hindrance>;
}

/// What a plan depends on: the configuration, its variables, and the engine.
pub(crate) fn inputs(rendered: &Rendered, workspace: &dyn Workspace) -> String {
    let secrets = serde_json::to_string(&rendered.secrets).unwrap_or_default();
    let files = serde_json::to_string(&(&rendered.files, &rendered.version)).unwrap_or_default();
    let parts = [&rendered.configuration, &rendered.variables, &secrets, &files, &workspace.engine()];
    let text: Vec<String> = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
    Digest::of(text.join("\0").as_bytes()).hex()
}
