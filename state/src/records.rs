//! What a channel keeps beside its members, agreement and resources: one record for each thing that was said.
//!
//! A record is the same bytes in the ledger's state and in a commit on `desired/<channel>`: it names transactions by their
//! ids, since a transaction can't know the block that it will stand in. [`AnyRecord`] lists the collections; a new one is a line
//! there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::acts::accounts::RepresentationRecord;
use crate::acts::agreed::AgreedRecord;
use crate::acts::approvals::ProposalRecord;
use crate::acts::distributions::DistributionRecord;
use crate::acts::handovers::HandOverRecord;
use crate::acts::imports::ImportRecord;
use crate::acts::keys::KeyRecord;
use crate::acts::life::{ENDING, EndingRecord, PartRecord};
use crate::acts::negotiations::{NegotiationRecord, SealedRecord, sealed_id};
use crate::acts::offers::OfferRecord;
use crate::acts::ratings::RatingRecord;
use crate::acts::transfers::TransferRecord;
use crate::agreement::Agreement;
use crate::ids::{MemberId, TxId};
use crate::paths;
use crate::rules::{InForce, View};
use crate::time::Timestamp;

/// A transaction, as evidence for what it caused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    /// Its id.
    pub tx_id: TxId,
    /// Its timestamp, clamped.
    pub at: Timestamp,
    /// The member that submitted it.
    pub by: MemberId,
}

/// A kind of record.
pub trait Record: Clone + Sized + 'static {
    /// The collection's name, in keys of the ledger's state.
    const COLLECTION: Collection;
    /// The record's name in its collection: a label, or lower-case hexadecimal digits.
    fn id(&self) -> String;
    /// The record among those of all kinds.
    fn any(self) -> AnyRecord;
    /// The record, if it is of this kind.
    fn of(any: &AnyRecord) -> Option<&Self>;
}

macro_rules! collections {
    ($($(#[$doc:meta])* $variant:ident($record:ty) = $key:literal, $folder:literal, $id:expr;)*) => {
        /// A collection of records.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Collection {
            $($(#[$doc])* $variant,)*
        }

        /// A record of any kind.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum AnyRecord {
            $($(#[$doc])* $variant(Box<$record>),)*
        }

        impl Collection {
            /// Every collection.
            pub const ALL: &[Collection] = &[$(Collection::$variant),*];

            /// What stands before a record's name in the keys of the ledger's state.
            pub fn key(self) -> &'static str {
                match self { $(Collection::$variant => $key,)* }
            }

            /// Its folder on `desired/<channel>`.
            pub fn folder(self) -> &'static str {
                match self { $(Collection::$variant => $folder,)* }
            }

            /// Reads one of its records.
            pub fn parse(self, bytes: &[u8]) -> Result<AnyRecord, serde_json::Error> {
                match self {
                    $(Collection::$variant => serde_json::from_slice(bytes).map(|record| AnyRecord::$variant(Box::new(record))),)*
                }
            }
        }

        impl AnyRecord {
            /// Its collection.
            pub fn collection(&self) -> Collection {
                match self { $(AnyRecord::$variant(_) => Collection::$variant,)* }
            }

            /// Its name in the collection.
            pub fn id(&self) -> String {
                match self { $(AnyRecord::$variant(record) => record.id(),)* }
            }
        }

        $(
            impl Record for $record {
                const COLLECTION: Collection = Collection::$variant;
                fn id(&self) -> String {
                    let id: fn(&$record) -> String = $id;
                    id(self)
                }
                fn any(self) -> AnyRecord {
                    AnyRecord::$variant(Box::new(self))
                }
                fn of(any: &AnyRecord) -> Option<&Self> {
                    match any {
                        AnyRecord::$variant(record) => Some(record),
                        _ => None,
                    }
                }
            }
        )*
    };
}

collections! {
    /// What members offer on a market.
    Offer(OfferRecord) = "offer", "offers", |record| record.offer.id.to_string();
    /// Changes that have to be approved.
    Proposal(ProposalRecord) = "proposal", "proposals", |record| record.proposed.tx_id.to_string();
    /// The keys that terms are sealed to.
    Key(KeyRecord) = "key", "keys", |record| record.member.to_string();
    /// Negotiations, without their terms.
    Negotiation(NegotiationRecord) = "negotiation", "negotiations", |record| record.id.to_string();
    /// Terms, sealed to the parties of their negotiation.
    Sealed(SealedRecord) = "sealed", "sealed", |record| sealed_id(&record.id, record.round);
    /// Members that are DAOs.
    Representation(RepresentationRecord) = "representation", "representations", |record| record.member.to_string();
    /// Agreements that members say to have made.
    Agreed(AgreedRecord) = "agreed", "agreed", |record| AgreedRecord::name(record.agreed.agreement);
    /// Members' parts that were closed.
    Part(PartRecord) = "part", "parts", |record| record.member.to_string();
    /// The end of the agreement.
    Ending(EndingRecord) = "ending", "ending", |_| ENDING.to_owned();
    /// Transfers of rights.
    Transfer(TransferRecord) = "transfer", "transfers", |record| record.proposed.tx_id.to_string();
    /// Profits that were divided.
    Distribution(DistributionRecord) = "distribution", "distributions", |record| record.distribution.period.to_string();
    /// What other channels' resources give.
    Import(ImportRecord) = "import", "imports", |record| record.import.name.to_string();
    /// What was handed over to another version.
    HandOver(HandOverRecord) = "hand-over", "hand-overs", |record| record.handed.tx_id.to_string();
    /// What members say of each other.
    Rating(RatingRecord) = "rating", "ratings", |record| RatingRecord::name(record.rating.agreement, &record.rated.by, &record.rating.member);
}

impl AnyRecord {
    /// Its key in the ledger's state.
    pub fn key(&self) -> String {
        key(self.collection(), &self.id())
    }

    /// Its file on `desired/<channel>`.
    pub fn path(&self) -> String {
        paths::record(self.collection().folder(), &self.id())
    }
}

/// The key of a record in the ledger's state.
pub fn key(collection: Collection, id: &str) -> String {
    format!("{}/{id}", collection.key())
}

/// Where records are read from: the ledger's state, or a follower's.
pub trait Books: View {
    /// A record of a collection by its name.
    fn record(&mut self, collection: Collection, id: &str) -> Result<Option<AnyRecord>, Self::Error>;
    /// The agreement that is in force.
    fn agreement(&mut self) -> Result<Option<Agreement>, Self::Error>;
    /// When a member accepted it.
    fn accepted(&mut self, member: &MemberId) -> Result<Option<Timestamp>, Self::Error>;
    /// A member's last sign of life: the time of its last report that the ledger keeps the time of.
    fn heard(&mut self, member: &MemberId) -> Result<Option<Timestamp>, Self::Error>;
    /// All resources in force, by name.
    fn all_ordered(&mut self) -> Result<Vec<InForce>, Self::Error>;
}

/// Reads a record of a kind.
pub fn get<T: Record, B: Books + ?Sized>(books: &mut B, id: &str) -> Result<Option<T>, B::Error> {
    Ok(books.record(T::COLLECTION, id)?.as_ref().and_then(T::of).cloned())
}

/// The records of a channel, as a follower keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(BTreeMap<(Collection, String), AnyRecord>);

impl Records {
    /// A record by its collection and name.
    pub fn get(&self, collection: Collection, id: &str) -> Option<&AnyRecord> {
        self.0.get(&(collection, id.to_owned()))
    }

    /// A record of a kind.
    pub fn of<T: Record>(&self, id: &str) -> Option<&T> {
        self.get(T::COLLECTION, id).and_then(T::of)
    }

    /// All records of a kind, by name.
    pub fn all<T: Record>(&self) -> impl Iterator<Item = &T> {
        self.0
            .range((T::COLLECTION, String::new())..)
            .take_while(|((collection, _), _)| *collection == T::COLLECTION)
            .filter_map(|(_, record)| T::of(record))
    }

    /// All records, by collection and name.
    pub fn iter(&self) -> impl Iterator<Item = &AnyRecord> {
        self.0.values()
    }

    /// Takes a record in, in the place of the one of its name.
    pub fn put(&mut self, record: AnyRecord) {
        self.0.insert((record.collection(), record.id()), record);
    }
}
