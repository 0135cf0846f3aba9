//! The two references of a channel and the commits that go to them: whatever the batches, the same blocks give the same ids.
//!
//! `desired` moves before `reported`, both only between blocks. A process killed between the two leaves `reported` behind; it
//! goes on at the lower cursor, and each reference passes over what it has.

use serde::{Deserialize, Serialize};
use state::canonical::{self, CanonicalError, Digest};
use state::cursor::Cursor;
use state::desired::{self, LoadError};
use state::event::{Position, SCHEMA_VERSION};
use state::git::{self, Batch, CommitId, GitError, Person, Store};
use state::ids::{Channel, TxId};
use state::paths;
use state::reported;
use thiserror::Error;

use crate::decode::Decoded;
use crate::materialise::{self, Branch, Change, States};
use crate::message;
use crate::soft::{self, SoftCursor};
use crate::verify::BlockId;

/// The file that names the channel and pins its genesis block, in the first commit of both references.
pub const CHANNEL: &str = "channel.json";

/// What [`CHANNEL`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelRecord {
    /// The channel.
    pub channel: Channel,
    /// The hash of the header of its first block.
    pub genesis: Digest,
}

/// Blocks could not be taken into a store.
#[derive(Debug, Error)]
pub enum BranchError {
    /// The store failed.
    #[error("the store's references of channel {channel} could not be read or written")]
    Store {
        /// The channel.
        channel: Channel,
        /// What the store says.
        #[source]
        source: GitError,
    },
    /// A reference holds what Charter never writes.
    #[error("{reference} can't be used: {why}; rebuild it from the ledger with 'charter replay'")]
    Damaged {
        /// The reference.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// A state could not be read back.
    #[error("{reference} can't be read back")]
    Load {
        /// The reference.
        reference: String,
        /// What is wrong.
        #[source]
        source: LoadError,
    },
    /// The ledger shows another history than the one that was taken in: the channel takes nothing more, and deletes nothing.
    #[error(
        "channel {channel} is frozen: block {block} was {expected} and is {found} now; the ledger was reset or forked, find out why before anything else"
    )]
    Frozen {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// The header's hash as it was taken in.
        expected: Digest,
        /// The header's hash now.
        found: Digest,
    },
    /// A block is missing before this one.
    #[error("channel {channel}: block {found} can't be taken where block {expected} is next")]
    Gap {
        /// The channel.
        channel: Channel,
        /// The number that is next.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// An event is newer than this binary.
    #[error(
        "channel {channel} stops at transaction {position} ({tx_id}): its event has schema version {found}, this Charter knows up to {SCHEMA_VERSION}; upgrade Charter"
    )]
    Newer {
        /// The channel.
        channel: Channel,
        /// The transaction's place.
        position: Position,
        /// The transaction.
        tx_id: TxId,
        /// The schema version that the event names.
        found: u64,
    },
    /// A file could not be encoded.
    #[error("a commit of channel {channel} could not be encoded")]
    Encode {
        /// The channel.
        channel: Channel,
        /// What is wrong.
        #[source]
        source: CanonicalError,
    },
}

impl BranchError {
    /// Tells whether reading the store again and going on may help.
    pub fn transient(&self) -> bool {
        match self {
            BranchError::Store { source, .. } => matches!(
                source,
                GitError::Moved { .. } | GitError::Busy { .. } | GitError::Locked { .. } | GitError::Io { .. }
            ),
            BranchError::Gap { .. } => true,
            _ => false,
        }
    }
}

/// Where to go on reading a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The last block that both references have taken in.
    pub block: u64,
    /// Its header's hash.
    pub hash: Digest,
    /// The block that gave the configuration in force, where that is known.
    pub configuration: Option<BlockId>,
}

/// Where a channel's two references stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The last block that both have taken in.
    pub block: u64,
    /// Its header's hash.
    pub hash: Digest,
    /// The commit of `desired`, if there is one.
    pub desired: Option<CommitId>,
    /// The commit of `reported`, if there is one.
    pub reported: Option<CommitId>,
}

struct Side {
    reference: String,
    head: Option<CommitId>,
    cursor: Option<Cursor>,
    batch: Option<Batch>,
}

/// Takes verified blocks of one channel into its two references.
pub struct Materialiser {
    store: Store,
    channel: Channel,
    genesis: Digest,
    states: States,
    desired: Side,
    reported: Side,
    resume: Option<Resume>,
    last: Option<(u64, Digest)>,
}

impl Materialiser {
    /// Reads both references of a channel whose first block has this hash.
    pub fn load(store: &Store, channel: &Channel, genesis: Digest) -> Result<Self, BranchError> {
        let mut loader = desired::Loader::new(channel.clone());
        let (desired, pinned_desired, files) = Side::load(store, channel, paths::desired_ref(channel), desired::File::read)?;
        files.into_iter().for_each(|file| loader.take(file));
        let mut desired_state = loader.finish().map_err(|source| desired.unusable(source))?;
        let mut loader = reported::Loader::new(channel.clone());
        let (reported, pinned_reported, files) = Side::load(store, channel, paths::reported_ref(channel), reported::File::read)?;
        files.into_iter().for_each(|file| loader.take(file));
        let reported_state = loader.finish();
        for expected in [pinned_desired, pinned_reported].into_iter().flatten() {
            if expected != genesis {
                return Err(BranchError::Frozen {
                    channel: channel.clone(),
                    block: 0,
                    expected,
                    found: genesis,
                });
            }
        }
        let resume = resume(store, channel, &desired, &reported);
        desired_state.hear(&reported_state);
        Ok(Self {
            store: store.clone(),
            channel: channel.clone(),
            genesis,
            states: States {
                desired: desired_state,
                reported: reported_state,
            },
            desired,
            reported,
            resume,
            last: None,
        })
    }

    /// The block after which to go on; none: from the start.
    pub fn resume(&self) -> Option<Resume> {
        self.resume
    }

    /// The two states with everything that was taken.
    pub fn states(&self) -> &States {
        &self.states
    }

    /// About how many bytes of memory the unwritten commits hold.
    pub fn size(&self) -> usize {
        [&self.desired, &self.reported]
            .into_iter()
            .filter_map(|side| side.batch.as_ref())
            .map(Batch::size)
            .sum()
    }

    /// Where both references stand; none before anything was taken.
    pub fn standing(&self) -> Option<Standing> {
        let read = self.last.or_else(|| self.resume.map(|resume| (resume.block, resume.hash)));
        // A reference that is ahead after a crash stands at no position yet that the other has reached.
        let (block, hash) = read.filter(|(block, _)| {
            let ahead = |side: &Side| side.cursor.as_ref().is_some_and(|cursor| cursor.position.block > *block);
            !ahead(&self.desired) && !ahead(&self.reported)
        })?;
        Some(Standing {
            block,
            hash,
            desired: self.desired.head,
            reported: self.reported.head,
        })
    }

    /// Takes the next block. One that was taken already changes nothing; one that leaves a gap is refused.
    ///
    /// After an error the state in memory may be ahead of the store: load it again.
    pub fn take_block(&mut self, number: u64, hash: Digest, decoded: &[Decoded]) -> Result<(), BranchError> {
        self.check_history(number, hash)?;
        match self.last {
            Some((last, _)) if number <= last => return Ok(()),
            Some((last, _)) => self.expect(last.saturating_add(1), number)?,
            None => self.expect(self.resume.map_or(1, |resume| resume.block.saturating_add(1)), number)?,
        }
        // A block is taken whole or not at all: going on after a cursor relies on it.
        for one in decoded {
            if let Decoded::Newer { position, tx_id, found } = one {
                return Err(BranchError::Newer {
                    channel: self.channel.clone(),
                    position: *position,
                    tx_id: tx_id.clone(),
                    found: *found,
                });
            }
        }
        for one in decoded {
            self.take(hash, one)?;
        }
        self.last = Some((number, hash));
        Ok(())
    }

    fn expect(&self, expected: u64, found: u64) -> Result<(), BranchError> {
        if found <= expected {
            return Ok(());
        }
        Err(BranchError::Gap {
            channel: self.channel.clone(),
            expected,
            found,
        })
    }

    fn check_history(&self, number: u64, hash: Digest) -> Result<(), BranchError> {
        let taken = [&self.desired, &self.reported]
            .into_iter()
            .filter_map(|side| side.cursor.as_ref())
            .map(|cursor| (cursor.position.block, cursor.block_hash));
        let resumed = self.resume.map(|resume| (resume.block, resume.hash));
        for (block, expected) in taken.chain(resumed).chain(self.last).chain([(0, self.genesis)]) {
            if block == number && expected != hash {
                return Err(BranchError::Frozen {
                    channel: self.channel.clone(),
                    block,
                    expected,
                    found: hash,
                });
            }
        }
        Ok(())
    }

    fn take(&mut self, block_hash: Digest, decoded: &Decoded) -> Result<(), BranchError> {
        let branch = match decoded {
            Decoded::Event { event, .. } => materialise::branch_of(&event.body),
            Decoded::Quarantine(quarantine) => materialise::quarantine_branch(quarantine),
            // Refused with its whole block.
            Decoded::Newer { .. } => return Ok(()),
        };
        let before = self.side(branch).cursor.as_ref();
        if before.is_some_and(|cursor| decoded.position() <= cursor.position) {
            return Ok(());
        }
        // What is quarantined has no version of its own that could be believed.
        let inherited = before.map_or(1, |cursor| cursor.schema);
        let encode = |source| BranchError::Encode {
            channel: self.channel.clone(),
            source,
        };
        let (change, schema) = match decoded {
            Decoded::Event { event, schema } => (self.states.take(event).map_err(encode)?, *schema),
            Decoded::Quarantine(quarantine) => (materialise::quarantine(quarantine).map_err(encode)?, inherited),
            Decoded::Newer { .. } => return Ok(()),
        };
        let cursor = Cursor {
            channel: self.channel.clone(),
            position: change.position,
            tx_id: change.tx_id.clone(),
            block_hash,
            schema,
        };
        self.commit(&change, cursor)
    }

    fn side(&self, branch: Branch) -> &Side {
        match branch {
            Branch::Desired => &self.desired,
            Branch::Reported => &self.reported,
        }
    }

    fn commit(&mut self, change: &Change, cursor: Cursor) -> Result<(), BranchError> {
        let channel = &self.channel;
        let encode = |source| BranchError::Encode {
            channel: channel.clone(),
            source,
        };
        let failed = |source| BranchError::Store {
            channel: channel.clone(),
            source,
        };
        let side = match change.branch {
            Branch::Desired => &mut self.desired,
            Branch::Reported => &mut self.reported,
        };
        let batch = side.batch(&self.store).map_err(failed)?;
        if batch.head().is_none() {
            let record = ChannelRecord {
                channel: channel.clone(),
                genesis: self.genesis,
            };
            batch.put(CHANNEL, &canonical::document(&record).map_err(encode)?).map_err(failed)?;
        }
        for file in &change.files {
            match &file.bytes {
                Some(bytes) => batch.put(&file.path, bytes).map_err(failed)?,
                None => batch.remove(&file.path).map_err(failed)?,
            };
        }
        batch
            .put(paths::CURSOR, &canonical::document(&cursor).map_err(encode)?)
            .map_err(failed)?;
        let author = Person {
            name: change.author.name.clone(),
            email: format!("{}@{}", change.author.name, change.author.msp),
            seconds: change.at.seconds(),
        };
        let committer = Person {
            name: "Charter".into(),
            email: "charter@ledger".into(),
            seconds: change.at.seconds(),
        };
        batch
            .commit(&author, &committer, &message::render(channel, change), None)
            .map_err(failed)?;
        side.cursor = Some(cursor);
        Ok(())
    }

    /// Writes everything that was taken: one pack, then `desired`, then `reported`. Durable on return.
    pub fn flush(&mut self) -> Result<(), BranchError> {
        let failed = |source| BranchError::Store {
            channel: self.channel.clone(),
            source,
        };
        let mut batches = Vec::new();
        let mut heads = [self.desired.head, self.reported.head];
        for (side, head) in [&mut self.desired, &mut self.reported].into_iter().zip(&mut heads) {
            if let Some(batch) = side.batch.take() {
                *head = batch.head();
                batches.push(batch);
            }
        }
        git::finish(batches).map_err(failed)?;
        [self.desired.head, self.reported.head] = heads;
        Ok(())
    }

    /// Writes the soft cursor, when both references stand at one position.
    pub fn save(&self, configuration: BlockId) -> std::io::Result<()> {
        let Some(standing) = self.standing() else { return Ok(()) };
        let soft = SoftCursor {
            block: standing.block,
            block_hash: standing.hash,
            desired: standing.desired,
            reported: standing.reported,
            configuration,
        };
        soft::write(&self.store, &self.channel, &soft)
    }
}

/// A file of a reference: one that says where it stands, or one of its state.
enum File<T> {
    Cursor(Cursor),
    Channel(ChannelRecord),
    Of(T),
}

impl Side {
    fn load<T: Send>(
        store: &Store,
        channel: &Channel,
        reference: String,
        read: impl Fn(&str, &[u8]) -> Result<T, LoadError> + Sync,
    ) -> Result<(Self, Option<Digest>, Vec<T>), BranchError> {
        let failed = |source| BranchError::Store {
            channel: channel.clone(),
            source,
        };
        let mut side = Self {
            head: store.head(&reference).map_err(failed)?,
            reference,
            cursor: None,
            batch: None,
        };
        let Some(head) = side.head else {
            return Ok((side, None, Vec::new()));
        };
        let files = store.read_each(head, "", |path, bytes| {
            let json = |error| Visit::Json(path.to_owned(), error);
            Ok(match path {
                paths::CURSOR => File::Cursor(serde_json::from_slice(bytes).map_err(json)?),
                CHANNEL => File::Channel(serde_json::from_slice(bytes).map_err(json)?),
                _ => File::Of(read(path, bytes).map_err(Visit::Load)?),
            })
        });
        let files = files.map_err(|visit| match visit {
            Visit::Git(source) => failed(source),
            Visit::Load(source) => side.unusable(source),
            Visit::Json(path, error) => side.damaged(format!("{path} is not what Charter writes: {error}")),
        })?;
        let mut pinned: Option<ChannelRecord> = None;
        let mut state = Vec::with_capacity(files.len());
        for file in files {
            match file {
                File::Cursor(cursor) => side.cursor = Some(cursor),
                File::Channel(record) => pinned = Some(record),
                File::Of(file) => state.push(file),
            }
        }
        let record = pinned.ok_or_else(|| side.damaged(format!("it has no {CHANNEL}")))?;
        let cursor = side
            .cursor
            .as_ref()
            .ok_or_else(|| side.damaged(format!("it has no {}", paths::CURSOR)))?;
        if record.channel != *channel || cursor.channel != *channel {
            return Err(side.damaged(format!("it is of channel {}", record.channel)));
        }
        Ok((side, Some(record.genesis), state))
    }

    fn damaged(&self, why: String) -> BranchError {
        BranchError::Damaged {
            reference: self.reference.clone(),
            why,
        }
    }

    fn unusable(&self, source: LoadError) -> BranchError {
        BranchError::Load {
            reference: self.reference.clone(),
            source,
        }
    }

    /// The batch that is being built. It starts where the state in memory stands, or not at all.
    fn batch(&mut self, store: &Store) -> Result<&mut Batch, GitError> {
        if self.batch.is_none() {
            let batch = store.batch(&self.reference)?;
            if batch.head() != self.head {
                return Err(GitError::Moved {
                    reference: self.reference.clone(),
                    expected: self.head,
                    found: batch.head(),
                });
            }
            self.batch = Some(batch);
        }
        Ok(self.batch.as_mut().expect("it was put there just above"))
    }
}

/// Why reading a reference stopped.
enum Visit {
    Git(GitError),
    Load(LoadError),
    Json(String, serde_json::Error),
}

impl From<GitError> for Visit {
    fn from(error: GitError) -> Self {
        Visit::Git(error)
    }
}

/// Finds the last block that both references have: the soft cursor's if it counts, else the lower cursor's.
fn resume(store: &Store, channel: &Channel, desired: &Side, reported: &Side) -> Option<Resume> {
    if let Some(soft) = soft::read(store, channel).filter(|soft| soft.desired == desired.head && soft.reported == reported.head) {
        return Some(Resume {
            block: soft.block,
            hash: soft.block_hash,
            configuration: Some(soft.configuration),
        });
    }
    let (desired, reported) = (desired.cursor.as_ref()?, reported.cursor.as_ref()?);
    let lower = if desired.position <= reported.position { desired } else { reported };
    Some(Resume {
        block: lower.position.block,
        hash: lower.block_hash,
        configuration: None,
    })
}
