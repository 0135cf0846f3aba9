//! Running every transaction again: what takes back the trust that a policy of all members but one gives away.
//!
//! A follower keeps a [mirror](Mirror) of the chaincode's state. Before a block is taken in, each valid transaction of ours runs
//! again over it, and write set, read set, event and answer have to be what the ledger recorded; enough members have to have
//! endorsed it, and nothing that it read may have changed. A transaction that is called invalid has to be so, as far as that can
//! be told from the blocks. The chain of commit hashes is computed anew. What differs freezes the channel.
//!
//! The mirror is a cache beside the store ([`snapshot`]). It holds the state, not the history, and is made again from the blocks
//! when it is lost, torn, or not of the history that the store was made from.
//!
//! # What stays the peer's word
//! A transaction may be called a duplicate, or malformed in a way that only a peer judges, or a conflict in a range of which the
//! ledger keeps only a summary of hashes (Fabric's for more than 50 results), and be left out by that. It is counted
//! ([`Standing::undecided`]) when nothing else is wrong with it; later transactions that build on it are then conflicts, and
//! freeze the channel. A second peer ([`crate::witness`]) shows it at once.

mod commits;
mod compare;
mod conflict;
mod definition;
pub mod difference;
mod endorsement;
mod kept;
mod recorded;
pub mod snapshot;

use chaincode::memory::{MemoryState, Version};
use protos::peer::TxValidationCode;
use serde::{Deserialize, Serialize};
use state::canonical::Digest;
use state::ids::Channel;

pub use difference::{Difference, ReexecutionError};
pub(crate) use kept::Kept;
pub use recorded::Recorded;

use commits::Chain;
use conflict::{Reads, Written};
use definition::{Definitions, LIFECYCLE};
use recorded::{Other, Ours, Transaction};

use crate::verify::BlockId;

/// Whether transactions are run again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reexecution {
    /// Every transaction, before its block is taken in.
    #[default]
    Enforced,
    /// None: of a ledger whose transactions no chaincode made, as tests record them.
    Off,
}

/// What was found out by running transactions again, up to where the mirror stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The last block.
    pub block: u64,
    /// How many valid transactions of ours were run again, all the same as recorded.
    pub transactions: u64,
    /// How many are called invalid for a reason that can't be judged, with nothing else wrong with them.
    pub undecided: u64,
    /// Whether the peer writes commit hashes; those that it writes were right.
    pub commit_hashes: bool,
}

/// The state of the chaincode on a channel after a block, made by running every transaction again.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    channel: Channel,
    genesis: Digest,
    at: BlockId,
    state: MemoryState,
    definitions: Definitions,
    chain: Chain,
    transactions: u64,
    undecided: u64,
}

impl Mirror {
    /// The mirror at a channel's first block, which changes nothing.
    pub fn new(channel: &Channel, genesis: Digest) -> Self {
        Self {
            channel: channel.clone(),
            genesis,
            at: BlockId { number: 0, hash: genesis },
            state: MemoryState::new(),
            definitions: Definitions::default(),
            chain: Chain::default(),
            transactions: 0,
            undecided: 0,
        }
    }

    /// The block after which it stands.
    pub fn at(&self) -> BlockId {
        self.at
    }

    /// What was found out so far.
    pub fn standing(&self) -> Standing {
        Standing {
            block: self.at.number,
            transactions: self.transactions,
            undecided: self.undecided,
            commit_hashes: matches!(&self.chain, Chain::At(hash) if !hash.is_empty()),
        }
    }

    /// The chaincode's state.
    pub fn state(&self) -> &MemoryState {
        &self.state
    }

    /// Runs the next block's transactions again. After an error the mirror is of no more use.
    pub fn take(&mut self, number: u64, hash: Digest, recorded: &Recorded) -> Result<(), ReexecutionError> {
        let expected = self.at.number.saturating_add(1);
        if number != expected {
            return Err(ReexecutionError::Gap {
                channel: self.channel.clone(),
                expected,
                found: number,
            });
        }
        let policy = self.definitions.policy().clone();
        let mut written = Written::default();
        let mut writes = commits::Writes::default();
        for transaction in &recorded.transactions {
            match transaction {
                Transaction::Ours(ours) if ours.code == TxValidationCode::Valid => {
                    self.valid(number, ours, recorded, &policy, &written)
                        .map_err(|difference| self.differs(number, ours.tx, &ours.tx_id, difference))?;
                    self.transactions += 1;
                    for namespace in ours
                        .transaction
                        .namespaces
                        .iter()
                        .filter(|namespace| namespace.name == chaincode::NAME)
                    {
                        written.ours.extend(namespace.rwset.writes.iter().map(|write| write.key.as_str()));
                    }
                    writes.take(&ours.transaction.namespaces, number, ours.tx);
                }
                Transaction::Ours(ours) => {
                    self.invalid(ours, recorded, &policy, &written)
                        .map_err(|difference| self.differs(number, ours.tx, &ours.tx_id, difference))?;
                }
                Transaction::Other(other) => {
                    self.other(number, other, &mut written)
                        .map_err(|difference| self.differs(number, other.tx, &other.tx_id, difference))?;
                    writes.take(&other.namespaces, number, other.tx);
                }
            }
        }
        self.chain
            .advance(&recorded.flags, writes, recorded.commit_hash.as_deref())
            .map_err(|wrong| ReexecutionError::CommitHash {
                channel: self.channel.clone(),
                block: number,
                expected: wrong.expected,
                found: wrong.found,
            })?;
        self.at = BlockId { number, hash };
        Ok(())
    }

    fn differs(&self, block: u64, tx: u32, tx_id: &str, difference: Difference) -> ReexecutionError {
        ReexecutionError::Transaction {
            channel: self.channel.clone(),
            block,
            tx,
            tx_id: difference::shortened(tx_id),
            source: Box::new(difference),
        }
    }

    /// Holds a valid transaction to what the chaincode makes of it, and takes in what it writes.
    fn valid(
        &mut self,
        block: u64,
        ours: &Ours,
        recorded: &Recorded,
        policy: &endorsement::Policy,
        written: &Written<'_>,
    ) -> Result<(), Difference> {
        self.endorsed(ours, recorded, policy).map_or(Ok(()), |endorsed| endorsed.check())?;
        if let Reads::Changed(difference) = conflict::reads(&ours.transaction.namespaces, &self.state, &self.definitions, written) {
            return Err(difference);
        }
        let writes = compare::rerun(&self.channel, ours, &self.state)?;
        let version = Version {
            block,
            tx: u64::from(ours.tx),
        };
        self.state.apply_at(writes, version);
        Ok(())
    }

    /// How a transaction's endorsements stand to a policy; none where the policy can't be judged here.
    fn endorsed(&self, ours: &Ours, recorded: &Recorded, policy: &endorsement::Policy) -> Option<endorsement::Endorsed> {
        match (&ours.endorsed, policy) {
            (Some(endorsed), endorsement::Policy::Channel) => Some(endorsed.clone()),
            _ => recorded
                .membership
                .as_ref()
                .and_then(|membership| endorsement::by_definition(membership, policy, &ours.transaction)),
        }
    }

    /// Holds a transaction that is called invalid to its code.
    fn invalid(&mut self, ours: &Ours, recorded: &Recorded, policy: &endorsement::Policy, written: &Written<'_>) -> Result<(), Difference> {
        use TxValidationCode as Code;
        let reads = conflict::reads(&ours.transaction.namespaces, &self.state, &self.definitions, written);
        let called = Difference::CalledInvalid { code: ours.code };
        match (ours.code, reads) {
            // An invalid transaction that could not be valid anyway hides nothing.
            (_, Reads::Changed(_)) => Ok(()),
            (Code::MvccReadConflict | Code::PhantomReadConflict, Reads::Unchanged) => Err(called),
            (code, _) => {
                let made = |membership: &std::sync::Arc<_>| ours.is_made_by_its_creator(membership);
                let endorsed = self.endorsed(ours, recorded, policy);
                let unjudged = endorsed.is_none();
                let could_be_valid = recorded.membership.as_ref().is_some_and(made)
                    && endorsed.is_none_or(|endorsed| endorsed.check().is_ok())
                    && compare::rerun(&self.channel, ours, &self.state).is_ok();
                match code {
                    Code::BadCreatorSignature | Code::BadProposalTxid if could_be_valid => Err(called),
                    Code::EndorsementPolicyFailure if could_be_valid && !unjudged => Err(called),
                    _ => {
                        self.undecided += u64::from(could_be_valid);
                        Ok(())
                    }
                }
            }
        }
    }

    /// Takes in what another chaincode's valid transaction writes to the lifecycle. It may write nothing of ours.
    fn other<'a>(&mut self, block: u64, other: &'a Other, written: &mut Written<'a>) -> Result<(), Difference> {
        let version = Version {
            block,
            tx: u64::from(other.tx),
        };
        for namespace in &other.namespaces {
            let set = &namespace.rwset;
            if namespace.name == chaincode::NAME {
                let keys = set.writes.iter().map(|write| &write.key);
                let mut keys = keys.chain(set.metadata_writes.iter().map(|write| &write.key));
                if let Some(key) = keys.next() {
                    return Err(Difference::Foreign {
                        chaincode: difference::shortened(&other.chaincode),
                        key: difference::shortened(key),
                    });
                }
            }
            if namespace.name == LIFECYCLE {
                self.definitions.take(set, version);
                let keys = set.writes.iter().map(|write| write.key.as_str());
                written
                    .lifecycle
                    .extend(keys.chain(set.metadata_writes.iter().map(|write| write.key.as_str())));
            }
        }
        Ok(())
    }
}
