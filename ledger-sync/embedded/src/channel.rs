//! One channel: its state, its blocks, and the thread that commits.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use msp::PemSigner;
use msp::channel::Membership;
use protos::common::Block;
use tokio::sync::{mpsc, watch};

use crate::block_file::{BlockFile, Reader};
use crate::commit::{self, Committed, Ground, Prepared};
use crate::view::View;
use crate::{LedgerError, Limits, Program, genesis, snapshot};

/// What a user may know of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// The channel's name.
    pub name: String,
    /// The MSP ids of its members, sorted.
    pub members: Vec<String>,
    /// The number of its blocks.
    pub height: u64,
}

/// How far a channel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The number of committed blocks.
    pub(crate) height: u64,
    /// The disk failed: nothing more is committed until the ledger is opened again.
    pub(crate) stopped: bool,
}

/// What readers and the committing thread share.
pub(crate) struct Core {
    pub(crate) name: String,
    pub(crate) membership: Membership,
    pub(crate) program: Program,
    pub(crate) limits: Limits,
    view: RwLock<View>,
    reader: Mutex<Reader>,
    progress: watch::Sender<Progress>,
    /// The bytes of the transactions in the queue.
    queued: AtomicUsize,
}

/// A channel that takes transactions.
pub(crate) struct Channel {
    pub(crate) core: Arc<Core>,
    queue: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// Why a transaction was not taken into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// Too many transactions wait already.
    Full,
    /// The channel no longer commits.
    Stopped,
}

impl Channel {
    /// Opens a channel from its block file and starts its committing thread.
    pub(crate) fn open(
        name: &str,
        blocks: &Path,
        program: &Program,
        limits: &Limits,
        orderer: Arc<PemSigner>,
    ) -> Result<Self, LedgerError> {
        let Opened {
            file,
            view,
            membership,
            saved,
        } = Opened::with_snapshot(name, blocks, program)?.map_or_else(|| Opened::from_the_first_block(name, blocks, program), Ok)?;
        let progress = Progress {
            height: view.tip.height,
            stopped: false,
        };
        let core = Arc::new(Core {
            name: name.to_owned(),
            membership,
            program: program.clone(),
            limits: limits.clone(),
            view: RwLock::new(view),
            reader: Mutex::new(file.reader()),
            progress: watch::Sender::new(progress),
            queued: AtomicUsize::new(0),
        });
        let (sender, receiver) = mpsc::channel(limits.queued_transactions);
        let committer = Committer {
            core: Arc::clone(&core),
            file,
            orderer,
            queue: receiver,
            snapshot: snapshot::path_of(blocks),
            saved,
        };
        let thread = std::thread::Builder::new()
            .name(format!("commit-{name}"))
            .spawn(move || committer.run())
            .map_err(LedgerError::io("start the committing thread of", blocks))?;
        Ok(Self {
            core,
            queue: Mutex::new(Some(sender)),
            committer: Mutex::new(Some(thread)),
        })
    }

    /// Puts a signed envelope into the queue.
    pub(crate) fn submit(&self, envelope: Vec<u8>) -> Result<(), NotQueued> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = queue.as_ref().ok_or(NotQueued::Stopped)?;
        let bytes = envelope.len();
        if self.core.queued.load(Ordering::Relaxed) + bytes > self.core.limits.queued_bytes {
            return Err(NotQueued::Full);
        }
        // Counted before it is sent, so that the committer never takes off what isn't there yet.
        self.core.queued.fetch_add(bytes, Ordering::Relaxed);
        sender.try_send(envelope).map_err(|error| {
            self.core.queued.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => NotQueued::Full,
                mpsc::error::TrySendError::Closed(_) => NotQueued::Stopped,
            }
        })
    }
}

/// Up to where a snapshot holds the blocks.
#[derive(Clone, Copy, Debug, Default)]
struct SavedUpTo {
    /// The end of its last block in the block file.
    offset: u64,
    /// Its own size in bytes.
    size: u64,
}

/// A channel's files, read.
struct Opened {
    file: BlockFile,
    view: View,
    membership: Membership,
    saved: SavedUpTo,
}

impl Opened {
    /// Reads the snapshot and the blocks behind it; none when there is no snapshot of these blocks.
    fn with_snapshot(name: &str, blocks: &Path, program: &Program) -> Result<Option<Self>, LedgerError> {
        let Some(loaded) = snapshot::load(&snapshot::path_of(blocks), program.name()) else {
            return Ok(None);
        };
        let mut file = BlockFile::unread(blocks)?;
        let height = loaded.view.tip.height;
        let same = |last: &Block| Membership::header_hash(last) == loaded.view.tip.header_hash;
        if !file.skip(&loaded.lengths)? || !file.stored(height.saturating_sub(1))?.as_ref().is_some_and(same) {
            tracing::warn!(
                channel = name,
                height,
                "the snapshot is not of these blocks; the state is rebuilt from them"
            );
            return Ok(None);
        }
        let Some(Ok(membership)) = file.stored(0)?.map(|first| genesis::membership(name, &first)) else {
            return Ok(None);
        };
        let (mut view, size) = (loaded.view, loaded.size);
        let saved = SavedUpTo { offset: file.end(), size };
        file.read_on(|block| replay(&mut view, program, block))?;
        Ok(Some(Self {
            file,
            view,
            membership,
            saved,
        }))
    }

    /// Reads all blocks.
    fn from_the_first_block(name: &str, blocks: &Path, program: &Program) -> Result<Self, LedgerError> {
        let mut view = View::default();
        let mut membership = None;
        let file = BlockFile::open(blocks, |block| {
            if view.tip.height == 0 {
                membership = Some(genesis::membership(name, block).map_err(|error| error.to_string())?);
            }
            replay(&mut view, program, block)
        })?;
        let membership = membership.ok_or_else(|| LedgerError::Corrupt {
            path: blocks.to_owned(),
            offset: 0,
            block: 0,
            reason: "it holds no configuration block".into(),
        })?;
        Ok(Self {
            file,
            view,
            membership,
            saved: SavedUpTo::default(),
        })
    }
}

fn replay(view: &mut View, program: &Program, block: &Block) -> Result<(), String> {
    let (updates, committed, tip) = commit::replay(&view.tip, program.name(), block)?;
    view.advance(updates, committed, tip);
    Ok(())
}

impl Drop for Channel {
    /// Commits what is queued and waits for the thread, so that nobody writes once the directory's lock is gone.
    fn drop(&mut self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(channel = self.core.name, "the committing thread had panicked");
        }
    }
}

impl Core {
    /// Locks one consistent view for reading. Don't hold it across an await.
    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        // A view is changed by infallible steps only, so one left by a panicking thread is whole.
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn committed(&self, tx_id: &str) -> Option<Committed> {
        self.view().index.get(tx_id).copied()
    }

    /// Looks a block's number up by its header's hash.
    pub(crate) fn number_of(&self, header_hash: &[u8]) -> Option<u64> {
        let hash: &[u8; 32] = header_hash.try_into().ok()?;
        self.view().hashes.get(hash).copied()
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(crate) fn info(&self) -> ChannelInfo {
        ChannelInfo {
            name: self.name.clone(),
            members: self.membership.members().iter().cloned().collect(),
            height: self.progress.borrow().height,
        }
    }

    /// Reads committed blocks from number `from` on: some, if there are any.
    pub(crate) async fn blocks(&self, from: u64) -> Result<Vec<Block>, LedgerError> {
        const COUNT: usize = 64;
        const BYTES: u64 = 4 * 1024 * 1024;
        let plan = self.reader().plan(from, COUNT, BYTES);
        let failed = |error: tokio::task::JoinError| LedgerError::Io {
            action: "read the blocks of",
            path: self.name.clone().into(),
            source: std::io::Error::other(error),
        };
        tokio::task::spawn_blocking(move || plan.read()).await.map_err(failed)?
    }

    /// Reads one committed block, if there is one of this number. It blocks on the disk.
    pub(crate) fn block(&self, number: u64) -> Result<Option<Block>, LedgerError> {
        let plan = self.reader().plan(number, 1, 0);
        Ok(plan.read()?.pop())
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one writer of a channel.
struct Committer {
    core: Arc<Core>,
    file: BlockFile,
    orderer: Arc<PemSigner>,
    queue: mpsc::Receiver<Vec<u8>>,
    snapshot: PathBuf,
    saved: SavedUpTo,
}

impl Committer {
    fn run(mut self) {
        // A start that read a long history shall be the last such one.
        self.save();
        while let Some(first) = self.queue.blocking_recv() {
            let batch = self.batch(first);
            if let Err(error) = self.commit(batch) {
                tracing::error!(
                    channel = self.core.name,
                    error = &error as &dyn std::error::Error,
                    "the channel stops: a block could not be committed; free the disk and start the ledger again"
                );
                self.core.progress.send_modify(|progress| progress.stopped = true);
                return;
            }
            self.save();
        }
    }

    /// Saves the state when enough blocks came since: as many bytes as the last snapshot has, so that saving stays a fraction of
    /// what is written anyway.
    fn save(&mut self) {
        let since = self.file.end() - self.saved.offset;
        if since < self.core.limits.snapshot_bytes.max(self.saved.size) {
            return;
        }
        let saved = snapshot::save(
            &self.snapshot,
            self.core.program.name(),
            &self.core.view(),
            self.file.lengths().collect(),
        );
        let size = saved.unwrap_or_else(|error| {
            // Nothing is lost: the next start reads more blocks.
            tracing::warn!(
                channel = self.core.name,
                error = &error as &dyn std::error::Error,
                "the state could not be saved; the next start takes longer"
            );
            self.saved.size
        });
        self.saved = SavedUpTo {
            offset: self.file.end(),
            size,
        };
    }

    /// Takes what waits already. While a block is flushed the next one fills, so a quiet channel commits at once and a busy
    /// one in large blocks, with no timer.
    fn batch(&mut self, first: Vec<u8>) -> Vec<Vec<u8>> {
        let mut bytes = first.len();
        let mut batch = vec![first];
        while batch.len() < self.core.limits.block_transactions && bytes < self.core.limits.block_bytes {
            let Ok(envelope) = self.queue.try_recv() else { break };
            bytes += envelope.len();
            batch.push(envelope);
        }
        self.core.queued.fetch_sub(bytes, Ordering::Relaxed);
        batch
    }

    fn commit(&mut self, envelopes: Vec<Vec<u8>>) -> Result<(), LedgerError> {
        let prepared = {
            let view = self.core.view();
            let ground = Ground {
                channel: &self.core.name,
                program: self.core.program.name(),
                membership: &self.core.membership,
                tip: &view.tip,
            };
            let known = |tx_id: &str| view.index.contains_key(tx_id);
            commit::prepare(&ground, envelopes, &view.state, known, self.orderer.as_ref())?
        };
        self.file.append(&prepared.block)?;
        let Prepared {
            updates, committed, tip, ..
        } = prepared;
        let height = tip.height;
        if let Some(place) = self.file.last_place() {
            self.core.reader().extend(place);
        }
        {
            let mut view = self.core.view.write().unwrap_or_else(PoisonError::into_inner);
            view.advance(updates, committed, tip);
        }
        self.core.progress.send_modify(|progress| progress.height = height);
        Ok(())
    }
}
