//! Submitting without loss and without doubles: a signed envelope is on disk before it is sent, and the same one is sent until its
//! outcome is known, by this process or the next.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use protos::gateway::{CommitStatusRequest, CommitStatusResponse, EndorseRequest, SignedCommitStatusRequest, SubmitRequest};
use protos::peer::TxValidationCode;
use state::ids::Channel;
use tonic::Request;

use crate::gateway::{GatewayClient, all_args};
use crate::ledger::{Committed, Fault, Resolved, Stage, SubmitError};
use crate::limits;
use crate::peers::Peer;
use crate::pending::{self, Pending, PendingError, PendingTransaction};
use crate::proposal;

/// Whether a transaction may have been sent before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// By a process that ended, or by this one.
    Perhaps,
    /// It was put on disk just now.
    Never,
}

/// Where a pending transaction ended.
enum Settled {
    /// On the ledger, as valid.
    Valid(Committed),
    /// On the ledger, without effect, because others changed what it reads.
    Conflict,
}

impl GatewayClient {
    /// Submits what is asked for, once: where the same was sent before without an answer, that transaction is taken up.
    pub(crate) async fn transact(&self, channel: &Channel, function: &str, args: &[Vec<u8>]) -> Result<Committed, SubmitError> {
        let key = pending::key(channel, function, args);
        for attempt in 1..=limits::ENDORSEMENTS {
            let found = {
                let channel = channel.clone();
                self.kept(move |pending| pending.find(&channel, key)).await?
            };
            let (transaction, sent) = match found {
                Some(found) => {
                    tracing::info!(%channel, function, tx_id = found.tx_id, "a transaction that was sent without an answer is taken up");
                    (found, Sent::Perhaps)
                }
                None => {
                    let endorsed = self.endorse(channel, function, args).await?;
                    let tx_id = endorsed.tx_id.clone();
                    let standing = self.kept(move |pending| pending.put(endorsed)).await?;
                    let sent = if standing.tx_id == tx_id { Sent::Never } else { Sent::Perhaps };
                    (standing, sent)
                }
            };
            match self.settle(&transaction, sent).await? {
                Settled::Valid(committed) => return Ok(committed),
                Settled::Conflict => pause(attempt).await,
            }
        }
        Err(SubmitError::Conflict {
            function: function.to_owned(),
            attempts: limits::ENDORSEMENTS,
        })
    }

    /// Finds out what became of a channel's pending transactions, of one function or of all.
    pub(crate) async fn resolve_pending(&self, channel: &Channel, function: Option<&str>) -> Result<Vec<Resolved>, SubmitError> {
        let mut all = {
            let channel = channel.clone();
            self.kept(move |pending| pending.list(&channel)).await?
        };
        all.retain(|transaction| function.is_none_or(|wanted| transaction.function == wanted));
        let mut resolved = Vec::with_capacity(all.len());
        for transaction in all {
            let outcome = match self.settle(&transaction, Sent::Perhaps).await {
                Ok(Settled::Valid(committed)) => Ok(committed),
                Ok(Settled::Conflict) => Err(SubmitError::Conflict {
                    function: transaction.function.clone(),
                    attempts: 1,
                }),
                Err(error) => Err(error),
            };
            resolved.push(Resolved {
                tx_id: transaction.tx_id,
                function: transaction.function,
                outcome,
            });
        }
        Ok(resolved)
    }

    /// Has a gateway collect endorsements, and signs the transaction that it puts together.
    async fn endorse(&self, channel: &Channel, function: &str, args: &[Vec<u8>]) -> Result<PendingTransaction, SubmitError> {
        let all = all_args(function, args);
        let endorsed = self
            .at_any(channel, |peer| {
                let all = &all;
                async move {
                    match self.endorse_at(&peer, channel, all.clone()).await {
                        Err(SubmitError::Endorse(fault)) => Err(fault),
                        // What was not sent, or is not to be signed, is the same at every peer.
                        other => Ok(other),
                    }
                }
            })
            .await;
        match endorsed {
            Ok(transaction) => transaction,
            Err(fault) => Err(match fault.refusal() {
                Some((status, message)) => SubmitError::Refused {
                    function: function.to_owned(),
                    status,
                    message,
                },
                None => SubmitError::Endorse(fault),
            }),
        }
    }

    async fn endorse_at(&self, peer: &Peer, channel: &Channel, all: Vec<Vec<u8>>) -> Result<PendingTransaction, SubmitError> {
        let signer = self.signer.as_ref();
        let proposed = proposal::propose(signer, channel, &self.chaincode, all, self.now()?)?;
        let mut request = Request::new(EndorseRequest {
            transaction_id: proposed.tx_id.clone(),
            channel_id: channel.to_string(),
            proposed_transaction: Some(proposed.signed(signer)?),
            endorsing_organizations: Vec::new(),
        });
        request.set_timeout(self.timeouts.endorse);
        let mut stub = self.stub(peer);
        let answer = Self::call(Stage::Endorse, peer, self.timeouts.endorse, stub.endorse(request)).await;
        let answer = answer.map_err(SubmitError::Endorse)?;
        let mut envelope = answer.prepared_transaction.ok_or_else(|| SubmitError::Answer {
            endpoint: peer.endpoint.clone(),
            what: "a transaction",
        })?;
        let other = |source| SubmitError::Other {
            endpoint: peer.endpoint.clone(),
            source,
        };
        // What is signed has to be what was proposed: the gateway could put anything together.
        proposed.check(&envelope).map_err(other)?;
        envelope.signature = signer.sign(&envelope.payload)?;
        PendingTransaction::read(channel, envelope).map_err(|error| other(error.into()))
    }

    async fn send(&self, peer: &Peer, transaction: &PendingTransaction) -> Result<(), Fault> {
        let mut request = Request::new(SubmitRequest {
            transaction_id: transaction.tx_id.clone(),
            channel_id: transaction.channel.to_string(),
            prepared_transaction: Some(transaction.envelope.clone()),
        });
        request.set_timeout(self.timeouts.submit);
        let mut stub = self.stub(peer);
        Self::call(Stage::Submit, peer, self.timeouts.submit, stub.submit(request))
            .await
            .map(drop)
    }

    async fn commit_status(
        &self,
        peer: &Peer,
        transaction: &PendingTransaction,
        within: Duration,
    ) -> Result<CommitStatusResponse, SubmitError> {
        let request = CommitStatusRequest {
            transaction_id: transaction.tx_id.clone(),
            channel_id: transaction.channel.to_string(),
            identity: self.signer.identity(),
        }
        .encode_to_vec();
        let signature = self.signer.sign(&request)?;
        let mut request = Request::new(SignedCommitStatusRequest { request, signature });
        request.set_timeout(within);
        let mut stub = self.stub(peer);
        let call = Self::call(Stage::CommitStatus, peer, within, stub.commit_status(request));
        call.await.map_err(|source| SubmitError::Unknown {
            tx_id: transaction.tx_id.clone(),
            source,
        })
    }

    /// Brings a pending transaction to its end. Sending the same envelope again is harmless: a ledger takes it once.
    ///
    /// It is forgotten when it is on the ledger, or when it certainly never will be.
    async fn settle(&self, transaction: &PendingTransaction, sent: Sent) -> Result<Settled, SubmitError> {
        let status = match self.outcome(transaction, sent).await {
            Err(error @ SubmitError::Submit { .. }) => {
                self.forget(transaction).await?;
                return Err(error);
            }
            other => other?,
        };
        self.forget(transaction).await?;
        // A code that this binary doesn't know is no word of validity, as in blocks.
        let code = TxValidationCode::try_from(status.result).unwrap_or(TxValidationCode::InvalidOtherReason);
        match code {
            TxValidationCode::Valid => Ok(Settled::Valid(Committed {
                tx_id: transaction.tx_id.clone(),
                block: status.block_number,
                code: TxValidationCode::Valid,
            })),
            TxValidationCode::MvccReadConflict | TxValidationCode::PhantomReadConflict => Ok(Settled::Conflict),
            code => Err(SubmitError::Invalid {
                tx_id: transaction.tx_id.clone(),
                block: status.block_number,
                code,
            }),
        }
    }

    /// Sends one signed envelope until its outcome is known. [`SubmitError::Submit`] means that it is not, and will not be, on the
    /// ledger.
    async fn outcome(&self, transaction: &PendingTransaction, sent: Sent) -> Result<CommitStatusResponse, SubmitError> {
        let tx_id = || transaction.tx_id.clone();
        let within = self.timeouts.commit;
        let mut sent = sent;
        if sent == Sent::Perhaps {
            // What is on the ledger is known at once, and needs no second copy there.
            let peer = self.peers.present(&transaction.channel);
            let asked = self.commit_status(&peer, transaction, limits::KNOWN.min(within)).await;
            if let Ok(status) = asked {
                return Ok(status);
            }
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            // An orderer that is killed loses what it has said yes to and not yet written, and nobody is told.
            let within = if attempt == 1 { limits::ORDERED.min(within) } else { within };
            let peer = self.peers.present(&transaction.channel);
            let source = match self.send(&peer, transaction).await {
                Ok(()) => None,
                // The orderer was asked and said no.
                Err(fault) if !fault.transient() => {
                    if sent == Sent::Never {
                        return Err(SubmitError::Submit {
                            tx_id: tx_id(),
                            source: fault,
                        });
                    }
                    return self.after_refusal(&peer, transaction, fault).await;
                }
                Err(fault) => Some(fault),
            };
            // Even a call that failed may have reached the orderer.
            sent = Sent::Perhaps;
            let source = match source {
                Some(fault) => fault,
                None => match self.commit_status(&peer, transaction, within).await {
                    // A second copy may be seen before the index of the first is asked.
                    Ok(status) if status.result() == TxValidationCode::DuplicateTxid && attempt <= limits::RESENDS => {
                        pause(attempt).await;
                        match self.commit_status(&peer, transaction, within).await {
                            Ok(first) if first.result() != TxValidationCode::DuplicateTxid => return Ok(first),
                            Ok(_) => continue,
                            Err(SubmitError::Unknown { source, .. }) => source,
                            Err(error) => return Err(error),
                        }
                    }
                    Ok(status) => return Ok(status),
                    Err(SubmitError::Unknown { source, .. }) => source,
                    Err(error) => return Err(error),
                },
            };
            if attempt > limits::RESENDS || !source.transient() {
                return Err(SubmitError::Unknown { tx_id: tx_id(), source });
            }
            tracing::debug!(
                tx_id = transaction.tx_id,
                attempt,
                "the outcome of a transaction is not known; the same envelope is sent again"
            );
            self.peers.leave(&transaction.channel, &peer.endpoint);
            pause(attempt).await;
        }
    }

    /// Finds the outcome of a transaction that the orderer refuses now, and may have taken before. Without a commit in the whole
    /// time that is given to one, it has no outcome, and can't get one any more: nobody takes it.
    async fn after_refusal(
        &self,
        peer: &Arc<Peer>,
        transaction: &PendingTransaction,
        refused: Fault,
    ) -> Result<CommitStatusResponse, SubmitError> {
        match self.commit_status(peer, transaction, self.timeouts.commit).await {
            Err(SubmitError::Unknown { source, .. }) if source.code == tonic::Code::DeadlineExceeded => Err(SubmitError::Submit {
                tx_id: transaction.tx_id.clone(),
                source: refused,
            }),
            other => other,
        }
    }

    async fn forget(&self, transaction: &PendingTransaction) -> Result<(), SubmitError> {
        let settled = transaction.clone();
        self.kept(move |pending| pending.settled(&settled)).await
    }

    /// Works on the pending transactions, away from the runtime's own threads.
    async fn kept<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Pending) -> Result<T, PendingError> + Send + 'static,
    ) -> Result<T, SubmitError> {
        let pending = self.pending.clone();
        let done = tokio::task::spawn_blocking(move || work(&pending)).await;
        Ok(done.map_err(|_| PendingError::Interrupted)??)
    }
}

async fn pause(attempt: u32) {
    tokio::time::sleep(crate::follow::jittered(Duration::from_millis(50) * 2u32.pow(attempt.min(6)))).await;
}
