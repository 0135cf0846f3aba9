//! `actual/<channel>`: what this member owns, saw and ran, and its reports on their way, as signed commits.
//!
//! It is the only reference that is the member's own, and only its controller moves it, by compare-and-swap: a second one finds
//! the reference moved and stops. What is put here is staged in memory; [`Actual::commit`] makes it durable.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use providers::Script;
use state::canonical::{self, CanonicalError, Digest};
use state::desired::LoadError;
use state::git::{CommitId, GitError, Person, Store};
use state::ids::{Channel, Kind, MemberId, ResourceName};
use state::inventory::{Entry, Inventory};
use state::observation::Observation;
use state::paths::{self, FileChange};
use state::plan::Plan;
use state::report::{Envelope, StepOutcome, StepReport};
use state::time::Timestamp;
use thiserror::Error;

use crate::view::{self, ViewError};

/// Signs a commit's bytes with the member's ledger key, in OpenSSH's format.
pub type CommitSigner = dyn Fn(&[u8]) -> Result<String, Box<dyn std::error::Error + Send + Sync>> + Send + Sync;

const OBSERVATIONS: &str = "observations";
const SCRIPTS: &str = "scripts";
const OUTBOX: &str = "outbox";
const PLAN: &str = "plan.json";
const UNREPORTED: &str = "unreported.json";
/// The most steps that wait for a report, while the ledger is away.
const MAX_UNREPORTED: usize = 5_000;
/// How many names a commit's title spells out.
const NAMED: usize = 3;

/// `actual/<channel>` could not be read or written.
#[derive(Debug, Error)]
pub enum ActualError {
    /// The store failed.
    #[error("the member's own record of channel {channel} can't be read or written")]
    Store {
        /// The channel.
        channel: Channel,
        /// What the store answered.
        #[source]
        source: GitError,
    },
    /// A file is not what Charter writes.
    #[error("the member's own record of channel {channel} is damaged")]
    Damaged {
        /// The channel.
        channel: Channel,
        /// Which file, and how.
        #[source]
        source: LoadError,
    },
    /// A file that is not JSON of its kind.
    #[error("{path} of the member's own record is not what Charter writes; look at it with 'git show {reference}:{path}'")]
    File {
        /// Its path.
        path: String,
        /// The reference.
        reference: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody else wrote to it.
    #[error("{reference} was moved by another Charter of this member: run one at a time")]
    Moved {
        /// The reference.
        reference: String,
    },
    /// Something has no canonical form.
    #[error("the member's own record can't be encoded")]
    Encode(#[from] CanonicalError),
    /// The commit was interrupted.
    #[error("writing the member's own record was interrupted")]
    Interrupted,
}

/// A report on its way to the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its number in the member's chain.
    pub sequence: u64,
    /// The digest of its payload.
    pub digest: Digest,
    /// The signed report.
    pub envelope: Envelope,
}

/// The member's own record of one channel.
pub struct Actual {
    store: Store,
    channel: Channel,
    reference: String,
    head: Option<CommitId>,
    inventory: Inventory,
    /// None until they are needed: a plan doesn't need them.
    observations: Option<BTreeMap<ResourceName, Observation>>,
    outbox: Option<Outgoing>,
    /// Read when it is asked for first.
    plan: OnceLock<Option<Digest>>,
    /// What was carried out and is in no report yet.
    unreported: Vec<StepReport>,
    /// Each resource's last step. Only in memory: after a restart a repeated failure is told once more.
    last_step: BTreeMap<ResourceName, StepReport>,
    /// The number of the report that the ledger refused for good as it is. Only in memory: after a restart it is tried again.
    refused: Option<u64>,
    staged: BTreeMap<String, Option<Vec<u8>>>,
}

/// Who writes a commit, and when.
pub struct Author<'a> {
    /// The member.
    pub member: &'a MemberId,
    /// When, by the member's clock.
    pub at: Timestamp,
    /// Signs it; none: the commit is unsigned.
    pub sign: Option<Arc<CommitSigner>>,
}

impl Actual {
    /// Loads the record of a channel: empty if there is none yet.
    pub fn load(store: &Store, channel: &Channel) -> Result<Self, ActualError> {
        let reference = paths::actual_ref(channel);
        let stored = |source| ActualError::Store {
            channel: channel.clone(),
            source,
        };
        let head = store.head(&reference).map_err(stored)?;
        let mut actual = Self {
            store: store.clone(),
            channel: channel.clone(),
            reference,
            head,
            inventory: Inventory::default(),
            observations: None,
            outbox: None,
            plan: OnceLock::new(),
            unreported: Vec::new(),
            last_step: BTreeMap::new(),
            refused: None,
            staged: BTreeMap::new(),
        };
        let Some(head) = head else {
            actual.observations = Some(BTreeMap::new());
            return Ok(actual);
        };
        actual.inventory = view::inventory(store, head).map_err(|source| actual.viewed(source))?;
        let mut outgoing = None;
        store
            .read_all(head, OUTBOX, |path, bytes| {
                let envelope: Envelope = serde_json::from_slice(bytes).map_err(|source| Reading::File(actual.not_ours(path, source)))?;
                if let Ok((report, digest)) = envelope.report() {
                    outgoing = Some(Outgoing {
                        sequence: report.sequence,
                        digest,
                        envelope,
                    });
                }
                Ok::<(), Reading>(())
            })
            .map_err(|error| actual.reading(error))?;
        actual.outbox = outgoing;
        if let Some(bytes) = store.read(head, UNREPORTED).map_err(stored)? {
            actual.unreported = serde_json::from_slice(&bytes).map_err(|source| actual.not_ours(UNREPORTED, source))?;
        }
        Ok(actual)
    }

    fn damaged(&self, source: LoadError) -> ActualError {
        ActualError::Damaged {
            channel: self.channel.clone(),
            source,
        }
    }

    fn viewed(&self, error: ViewError) -> ActualError {
        match error {
            ViewError::Git(source) => self.stored(source),
            ViewError::Load(source) => self.damaged(source),
            ViewError::Cursor(source) => self.not_ours(paths::CURSOR, source),
        }
    }

    fn not_ours(&self, path: &str, source: serde_json::Error) -> ActualError {
        ActualError::File {
            path: path.to_owned(),
            reference: self.reference.clone(),
            source,
        }
    }

    fn reading(&self, error: Reading) -> ActualError {
        match error {
            Reading::File(error) => error,
            Reading::Git(source) => self.stored(source),
        }
    }

    fn stored(&self, source: GitError) -> ActualError {
        match source {
            GitError::Moved { reference, .. } => ActualError::Moved { reference },
            source => ActualError::Store {
                channel: self.channel.clone(),
                source,
            },
        }
    }

    /// The commit that it was loaded from, or made last.
    pub fn head(&self) -> Option<CommitId> {
        self.head
    }

    /// What this member owns outside.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The report on its way, if there is one.
    pub fn outbox(&self) -> Option<&Outgoing> {
        self.outbox.as_ref()
    }

    /// The digest of the plan that was executed last.
    ///
    /// After a start it is read from the plan itself, which tells of each step: only a report asks for it.
    pub fn plan(&self) -> Result<Option<Digest>, ActualError> {
        #[derive(serde::Deserialize)]
        struct Executed {
            digest: Digest,
        }
        if let Some(known) = self.plan.get() {
            return Ok(*known);
        }
        let Some(head) = self.head else { return Ok(None) };
        let bytes = self.store.read(head, PLAN).map_err(|source| self.stored(source))?;
        let executed = bytes.map(|bytes| serde_json::from_slice::<Executed>(&bytes).map_err(|source| self.not_ours(PLAN, source)));
        let digest = executed.transpose()?.map(|executed| executed.digest);
        Ok(*self.plan.get_or_init(|| digest))
    }

    /// Records what is owned.
    pub fn record(&mut self, entry: Entry) -> Result<(), CanonicalError> {
        if let Some(change) = self.inventory.record(entry)? {
            self.stage(change);
        }
        Ok(())
    }

    /// Forgets what is no longer there, or no longer ours, with the scripts that made it.
    pub fn forget(&mut self, kind: &Kind, name: &ResourceName) {
        if let Some(change) = self.inventory.forget(name) {
            self.stage(change);
        }
        self.staged.insert(scripts_of(kind, name), None);
    }

    /// Keeps the scripts that are run for a resource.
    pub fn keep_scripts(&mut self, kind: &Kind, name: &ResourceName, scripts: Vec<Script>) {
        let folder = scripts_of(kind, name);
        for script in scripts {
            self.staged.insert(format!("{folder}/{}", script.name), Some(script.bytes));
        }
    }

    /// Keeps what was observed: only what differs from the last time is written.
    pub fn observe(&mut self, observed: &BTreeMap<ResourceName, Observation>) -> Result<(), ActualError> {
        let before = match self.observations.take() {
            Some(before) => before,
            None => self.load_observations()?,
        };
        for (name, observation) in observed {
            if before.get(name) != Some(observation) {
                let bytes = canonical::document(observation)?;
                self.staged.insert(paths::named(OBSERVATIONS, name), Some(bytes));
            }
        }
        if before == *observed {
            self.observations = Some(before);
            return Ok(());
        }
        for name in before.keys().filter(|name| !observed.contains_key(*name)) {
            self.staged.insert(paths::named(OBSERVATIONS, name), None);
        }
        self.observations = Some(observed.clone());
        Ok(())
    }

    fn load_observations(&self) -> Result<BTreeMap<ResourceName, Observation>, ActualError> {
        let Some(head) = self.head else { return Ok(BTreeMap::new()) };
        let read = |path: &str, bytes: &[u8]| {
            let observation: Observation = serde_json::from_slice(bytes).map_err(|source| Reading::File(self.not_ours(path, source)))?;
            let name = path.rsplit('/').next().and_then(|last| last.strip_suffix(".json")).unwrap_or(path);
            let name = ResourceName::new(name).map_err(|_| Reading::File(self.damaged(LoadError::Misplaced(path.to_owned()))))?;
            Ok::<_, Reading>((name, observation))
        };
        let all = self.store.read_each(head, OBSERVATIONS, read);
        Ok(all.map_err(|error| self.reading(error))?.into_iter().collect())
    }

    /// Keeps the plan that is executed. How things stood before it is in the observations of the same history.
    pub fn execute(&mut self, plan: &Plan) -> Result<(), CanonicalError> {
        let executed = Plan {
            statuses: BTreeMap::new(),
            ..plan.clone()
        };
        self.staged.insert(PLAN.to_owned(), Some(canonical::document(&executed)?));
        self.plan = OnceLock::from(Some(plan.digest));
        Ok(())
    }

    /// Remembers that the ledger refused a report for good as it is: another one may take its number.
    pub fn refuse(&mut self, sequence: u64) {
        self.refused = Some(sequence);
    }

    /// Whether the ledger refused the report of this number for good as it is.
    pub fn is_refused(&self, sequence: u64) -> bool {
        self.refused == Some(sequence)
    }

    /// What was carried out and is in no report yet.
    pub fn unreported(&self) -> &[StepReport] {
        &self.unreported
    }

    /// Remembers what was carried out until a report tells of it. A try that goes on or fails like the one before is no news.
    pub fn carried_out(&mut self, steps: Vec<StepReport>) -> Result<(), CanonicalError> {
        let before = self.unreported.len();
        for step in steps {
            let repeated = step.outcome != StepOutcome::Done && self.last_step.get(&step.resource).is_some_and(|last| same(last, &step));
            self.last_step.insert(step.resource.clone(), step.clone());
            if !repeated {
                self.unreported.push(step);
            }
        }
        if self.unreported.len() == before {
            return Ok(());
        }
        let over = self.unreported.len().saturating_sub(MAX_UNREPORTED);
        if over > 0 {
            tracing::warn!(channel = %self.channel, steps = over, "the oldest steps that no report tells of are dropped; they stay in the history of actual/");
            self.unreported.drain(..over);
        }
        self.stage_unreported()
    }

    fn stage_unreported(&mut self) -> Result<(), CanonicalError> {
        let bytes = if self.unreported.is_empty() {
            None
        } else {
            Some(canonical::document(&self.unreported)?)
        };
        self.staged.insert(UNREPORTED.to_owned(), bytes);
        Ok(())
    }

    /// Puts a report on its way. It stays there until it was seen on the ledger.
    pub fn send(&mut self, outgoing: Outgoing) -> Result<(), CanonicalError> {
        self.clear_outbox();
        let bytes = canonical::document(&outgoing.envelope)?;
        self.staged.insert(outbox_path(outgoing.sequence), Some(bytes));
        self.outbox = Some(outgoing);
        self.refused = None;
        Ok(())
    }

    /// Takes the report off its way, because the ledger has it: what it tells of is told.
    pub fn recorded(&mut self) -> Result<(), CanonicalError> {
        let told = self
            .outbox
            .as_ref()
            .and_then(|sent| sent.envelope.report().ok())
            .map_or(0, |(report, _)| report.steps.len());
        self.clear_outbox();
        if told > 0 {
            self.unreported.drain(..told.min(self.unreported.len()));
            self.stage_unreported()?;
        }
        Ok(())
    }

    /// Takes the report off its way: it was seen on the ledger, or another one took its number.
    pub fn clear_outbox(&mut self) {
        if let Some(sent) = self.outbox.take() {
            self.staged.insert(outbox_path(sent.sequence), None);
        }
    }

    fn stage(&mut self, change: FileChange) {
        self.staged.insert(change.path, change.bytes);
    }

    /// Whether something is staged that a commit would look at.
    pub fn is_dirty(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Makes what was staged durable as one commit. Tells the commit; none when nothing changed.
    ///
    /// # Errors
    /// [`ActualError::Moved`] if another process of this member wrote meanwhile. What was staged is lost then: load anew.
    pub async fn commit(&mut self, author: &Author<'_>, message: String) -> Result<Option<CommitId>, ActualError> {
        if self.staged.is_empty() {
            return Ok(None);
        }
        let staged = std::mem::take(&mut self.staged);
        let person = Person {
            name: author.member.to_string(),
            email: format!("{}@charter.invalid", author.member),
            seconds: author.at.seconds(),
        };
        let sign = author.sign.clone();
        let (store, reference, expected) = (self.store.clone(), self.reference.clone(), self.head);
        let written =
            tokio::task::spawn_blocking(move || write(&store, &reference, expected, staged, &person, &message, sign.as_deref())).await;
        let head = written
            .map_err(|_| ActualError::Interrupted)?
            .map_err(|source| self.stored(source))?;
        let changed = head != self.head;
        self.head = head;
        Ok(head.filter(|_| changed))
    }
}

/// Whether a step tells the same as the one before it, in whichever plan.
fn same(last: &StepReport, step: &StepReport) -> bool {
    let plan = last.plan;
    *last == StepReport { plan, ..step.clone() }
}

fn write(
    store: &Store,
    reference: &str,
    expected: Option<CommitId>,
    staged: BTreeMap<String, Option<Vec<u8>>>,
    person: &Person,
    message: &str,
    sign: Option<&CommitSigner>,
) -> Result<Option<CommitId>, GitError> {
    let mut batch = store.batch(reference)?;
    if batch.head() != expected {
        return Err(GitError::Moved {
            reference: reference.to_owned(),
            expected,
            found: batch.head(),
        });
    }
    let mut changed = false;
    for (path, bytes) in staged {
        changed |= match bytes {
            Some(bytes) => batch.put(&path, &bytes)?,
            None => batch.remove(&path)?,
        };
    }
    if !changed {
        return Ok(expected);
    }
    let head = match sign {
        Some(sign) => batch.commit(person, person, message, Some(&|bytes: &[u8]| sign(bytes)))?,
        None => batch.commit(person, person, message, None)?,
    };
    state::git::finish(vec![batch])?;
    Ok(Some(head))
}

/// Lets a visitor of files fail with either error.
enum Reading {
    Git(GitError),
    File(ActualError),
}

impl From<GitError> for Reading {
    fn from(source: GitError) -> Self {
        Reading::Git(source)
    }
}

fn scripts_of(kind: &Kind, name: &ResourceName) -> String {
    let file = paths::resource(SCRIPTS, kind, name);
    file.strip_suffix(".json").unwrap_or(&file).to_owned()
}

fn outbox_path(sequence: u64) -> String {
    format!("{OUTBOX}/{sequence}.dsse.json")
}

/// Names for a commit's title: the first few, and how many more.
pub fn names<'a>(all: impl IntoIterator<Item = &'a ResourceName>) -> String {
    let all: Vec<&ResourceName> = all.into_iter().collect();
    let mut text = all.iter().take(NAMED).map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        text.push_str(&format!(" and {} more", all.len() - NAMED));
    }
    text
}
