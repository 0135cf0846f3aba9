//! Turns a document into transactions: what a member says on a channel.

use chaincode::records::{AgreementRecord, MemberRecord, OrderedRecord};
use ledger_sync::{Committed, EvaluateError, Ledger, SubmitError};
use serde::{Deserialize, Serialize};
use state::acts::approvals::ProposalRecord;
use state::acts::handovers::{Becomes, HandOver};
use state::agreement::{Agreement, Role};
use state::canonical::{self, CanonicalError, Digest};
use state::ids::{Channel, MemberId, ResourceName};
use state::resource::Resource;
use thiserror::Error;

use crate::document::Document;

/// The chaincode's status for what is not there.
const NOT_THERE: i32 = 404;

/// What saying it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A transaction was committed.
    Committed {
        /// What it did, for people.
        what: String,
        /// Its id.
        tx_id: String,
        /// Its block.
        block: u64,
    },
    /// The ledger says it already.
    Already {
        /// What, for people.
        what: String,
    },
    /// It can be said only after others have.
    Waiting {
        /// For what, for people.
        what: String,
    },
}

/// It could not be said.
#[derive(Debug, Error)]
pub enum SubmissionError {
    /// The ledger could not be asked.
    #[error("cannot read channel {channel}")]
    Read {
        /// The channel.
        channel: Channel,
        /// Why.
        #[source]
        source: EvaluateError,
    },
    /// The ledger did not take it.
    #[error("channel {channel} did not take it")]
    Submit {
        /// The channel.
        channel: Channel,
        /// Why.
        #[source]
        source: SubmitError,
    },
    /// The ledger answers something else.
    #[error("the chaincode's answer can't be read")]
    Answer(#[source] serde_json::Error),
    /// It can't be encoded.
    #[error("the document can't be encoded")]
    Encode(#[from] CanonicalError),
    /// The member takes no part in the agreement.
    #[error("{0} is not a party of this agreement")]
    NotAParty(MemberId),
    /// The channel has another agreement.
    #[error("channel {channel} has another agreement: {found}, this one is {asked}")]
    Other {
        /// The channel.
        channel: Channel,
        /// The digest of the channel's.
        found: Digest,
        /// The digest of this one.
        asked: Digest,
    },
}

/// How an order treats resources that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// As a mistake: the ledger refuses it.
    Refuse,
    /// Unchanged ones are left out, changed ones are amended.
    Amend,
}

/// One page of what the ledger keeps of a kind.
#[derive(Clone, Debug, Deserialize)]
pub struct Page<T> {
    /// What stands on it.
    pub records: Vec<T>,
    /// Where the next page starts; none on the last.
    pub next: Option<String>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            next: None,
        }
    }
}

/// One member's voice on one channel.
pub struct Voice<'a> {
    /// The ledger, as the member.
    pub ledger: &'a dyn Ledger,
    /// The channel.
    pub channel: &'a Channel,
    /// The member.
    pub member: &'a MemberId,
}

impl Voice<'_> {
    /// Says a document.
    pub async fn say(&self, document: &Document, present: Present) -> Result<Vec<Said>, SubmissionError> {
        match document {
            Document::Agreement(agreement) => self.agree(agreement).await,
            Document::Order(resources) if present == Present::Amend => self.order_or_amend(resources).await,
            Document::Order(resources) => Ok(vec![self.order(resources).await?]),
            Document::Amendment(resources) => Ok(vec![self.resources("amend", "amended", resources).await?]),
            Document::Retirement(names) => {
                let listed = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let committed = self.submit("retire", &serde_json::json!({ "resources": names })).await?;
                Ok(vec![self.changed("retire", "retired", &listed, committed).await])
            }
            Document::Offer(offer) => self.offer(offer, present).await,
        }
    }

    /// Binds the member's name to its MSP, as the agreement says, unless it is bound already.
    pub async fn register(&self, agreement: &Agreement) -> Result<Said, SubmissionError> {
        let party = agreement
            .party(self.member)
            .ok_or_else(|| SubmissionError::NotAParty(self.member.clone()))?;
        if self.read::<MemberRecord>("member", self.member.as_str()).await?.is_some() {
            return Ok(Said::Already {
                what: format!("{} is registered", self.member),
            });
        }
        self.register_as(party.role).await
    }

    /// Binds the member's name to its MSP, as somebody who brings this.
    pub async fn register_as(&self, role: Role) -> Result<Said, SubmissionError> {
        let committed = self
            .submit("register", &serde_json::json!({ "member": self.member, "role": role }))
            .await?;
        Ok(said(format!("registered as {role}"), committed))
    }

    /// Says something by one function of the chaincode; `what` tells people what it did.
    pub async fn act<T: Serialize>(&self, function: &str, argument: &T, what: String) -> Result<Said, SubmissionError> {
        Ok(said(what, self.submit(function, argument).await?))
    }

    /// Orders new resources.
    pub async fn order(&self, resources: &[Resource]) -> Result<Said, SubmissionError> {
        self.resources("order", "ordered", resources).await
    }

    /// Hands resources over to another version's channel.
    pub async fn hand_over(&self, hand_over: &HandOver) -> Result<Said, SubmissionError> {
        let committed = self.submit("hand_over", hand_over).await?;
        let listed: Vec<String> = hand_over
            .leaving()
            .map(|(name, _)| match hand_over.becomes(name) {
                Some(Becomes::Carried(there)) => format!("{name} carried as {there}"),
                Some(Becomes::Replaced(by)) => format!("{name} replaced by {by}"),
                Some(Becomes::Retired) | None => format!("{name} retired"),
            })
            .collect();
        let listed = format!("to {}: {}", hand_over.to, listed.join(", "));
        Ok(self.changed("hand over", "handed over", &listed, committed).await)
    }

    /// Reads what the ledger keeps under a name, if there is something.
    pub async fn find<T: serde::de::DeserializeOwned>(&self, function: &str, name: &str) -> Result<Option<T>, SubmissionError> {
        self.read(function, name).await
    }

    /// Reads one page of what the ledger keeps.
    pub async fn page<T: serde::de::DeserializeOwned>(
        &self,
        function: &str,
        page: &chaincode::arguments::RecordPage,
    ) -> Result<Page<T>, SubmissionError> {
        let found = self.ask(function, vec![canonical::bytes(page)?]).await?;
        Ok(found.unwrap_or_default())
    }

    async fn agree(&self, agreement: &Agreement) -> Result<Vec<Said>, SubmissionError> {
        let asked = agreement.digest()?;
        let title = format!("{} v{}", agreement.dao, agreement.version);
        let mut all = vec![self.register(agreement).await?];
        let standing: Option<AgreementRecord> = self.read_all("agreement").await?;
        let Some(record) = standing else {
            let mut missing = Vec::new();
            for party in &agreement.parties {
                if self.read::<MemberRecord>("member", party.member.as_str()).await?.is_none() {
                    missing.push(party.member.to_string());
                }
            }
            if !missing.is_empty() {
                all.push(Said::Waiting {
                    what: format!(
                        "{} to register on {}; then submit the agreement again",
                        missing.join(", "),
                        self.channel
                    ),
                });
                return Ok(all);
            }
            let committed = self.submit("constitute", agreement).await?;
            all.push(said(format!("put {title} before the members, and accepted it"), committed));
            return Ok(all);
        };
        if record.digest != asked {
            return Err(SubmissionError::Other {
                channel: self.channel.clone(),
                found: record.digest,
                asked,
            });
        }
        if record.accepted.contains_key(self.member) {
            all.push(Said::Already {
                what: format!("{} has accepted {title}", self.member),
            });
            return Ok(all);
        }
        let last = record.accepted.len() + 1 == record.agreement.parties.len();
        let committed = self.submit("accept", &serde_json::json!({ "digest": asked })).await?;
        all.push(said(
            format!("accepted {title}{}", if last { ": it is in force" } else { "" }),
            committed,
        ));
        Ok(all)
    }

    async fn order_or_amend(&self, resources: &[Resource]) -> Result<Vec<Said>, SubmissionError> {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for resource in resources {
            match self.read::<OrderedRecord>("resource", resource.name.as_str()).await? {
                None => new.push(resource.clone()),
                Some(ordered) if ordered.retired.is_some() => new.push(resource.clone()),
                Some(ordered) if ordered.resource != *resource => changed.push(resource.clone()),
                Some(_) => {}
            }
        }
        let mut all = Vec::new();
        if !new.is_empty() {
            all.push(self.order(&new).await?);
        }
        if !changed.is_empty() {
            all.push(self.resources("amend", "amended", &changed).await?);
        }
        if all.is_empty() {
            all.push(Said::Already {
                what: format!("{} are ordered", names(resources.iter().map(|resource| &resource.name))),
            });
        }
        Ok(all)
    }

    async fn resources(&self, function: &str, word: &str, resources: &[Resource]) -> Result<Said, SubmissionError> {
        let committed = self.submit(function, &serde_json::json!({ "resources": resources })).await?;
        let listed = names(resources.iter().map(|resource| &resource.name));
        Ok(self.changed(function, word, &listed, committed).await)
    }

    /// Tells what a committed change did: it is in force, or waits for approvals.
    async fn changed(&self, function: &str, word: &str, listed: &str, committed: Committed) -> Said {
        // It is on the ledger whatever becomes of this question.
        let found = self.find::<ProposalRecord>("proposal", &committed.tx_id).await;
        match found.ok().flatten() {
            Some(_) => {
                let id = committed.tx_id.get(..12).unwrap_or(&committed.tx_id);
                let what = format!("proposed to {function} {listed}: it waits for approvals, charter approvals show {id}");
                said(what, committed)
            }
            None => said(format!("{word} {listed}"), committed),
        }
    }

    async fn submit<T: Serialize>(&self, function: &str, argument: &T) -> Result<Committed, SubmissionError> {
        let argument = canonical::bytes(argument)?;
        self.ledger
            .submit(self.channel, function, vec![argument])
            .await
            .map_err(|source| SubmissionError::Submit {
                channel: self.channel.clone(),
                source,
            })
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, function: &str, name: &str) -> Result<Option<T>, SubmissionError> {
        self.ask(function, vec![name.as_bytes().to_vec()]).await
    }

    async fn read_all<T: serde::de::DeserializeOwned>(&self, function: &str) -> Result<Option<T>, SubmissionError> {
        self.ask(function, Vec::new()).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, function: &str, args: Vec<Vec<u8>>) -> Result<Option<T>, SubmissionError> {
        match self.ledger.evaluate(self.channel, function, args).await {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(SubmissionError::Answer),
            Err(EvaluateError::Refused { status: NOT_THERE, .. }) => Ok(None),
            Err(source) => Err(SubmissionError::Read {
                channel: self.channel.clone(),
                source,
            }),
        }
    }
}

fn said(what: String, committed: Committed) -> Said {
    Said::Committed {
        what,
        tx_id: committed.tx_id,
        block: committed.block,
    }
}

fn names<'a>(all: impl Iterator<Item = &'a ResourceName>) -> String {
    let all: Vec<&str> = all.map(ResourceName::as_str).collect();
    match all.as_slice() {
        [first @ .., last] if first.len() >= 5 => format!("{} resources, the last {last}", first.len() + 1),
        all => all.join(", "),
    }
}
