//! A small client for the tests: builds and signs what Fabric's official clients build and sign.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaincode::stub::{Invocation, Response, Stub};
use embedded::{Ledger, MemberSpec, NetworkSpec, Options, Program, Server};
use msp::{PemSigner, Signer};
use prost::Message;
use protos::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader};
use protos::gateway::gateway_client::GatewayClient;
use protos::gateway::{
    CommitStatusRequest, CommitStatusResponse, EndorseRequest, EvaluateRequest, SignedCommitStatusRequest, SubmitRequest,
};
use protos::orderer::{SeekInfo, SeekOldest, SeekPosition, SeekSpecified, seek_position};
use protos::peer::deliver_client::DeliverClient;
use protos::peer::{
    ChaincodeHeaderExtension, ChaincodeId, ChaincodeInput, ChaincodeInvocationSpec, ChaincodeProposalPayload, ChaincodeSpec,
    DeliverResponse, Proposal, SignedProposal,
};
use protos::{prost_types::Timestamp, txid};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

pub(crate) const CHAINCODE: &str = "kv";

/// The test's chaincode: `put K V`, `get K`, `del K`, `incr K`, `count START END K` (writes how many keys there are), `first START K`.
pub(crate) fn program() -> Program {
    Program::new(CHAINCODE, answer)
}

/// Runs one transaction of the test's chaincode.
pub(crate) fn answer(stub: &mut dyn Stub, invocation: &Invocation<'_>) -> Response {
    match run(stub, invocation) {
        Ok(payload) => Response {
            status: 200,
            message: String::new(),
            payload,
        },
        Err((status, message)) => Response {
            status,
            message,
            payload: Vec::new(),
        },
    }
}

fn run(stub: &mut dyn Stub, invocation: &Invocation<'_>) -> Result<Vec<u8>, (i32, String)> {
    let args: Vec<&str> = invocation.args.iter().map(|arg| std::str::from_utf8(arg).unwrap()).collect();
    let failed = |error: chaincode::stub::StubError| (500, error.to_string());
    match args.as_slice() {
        ["put", key, value] => {
            stub.put_state(key, value.as_bytes().to_vec());
            stub.set_event("put", format!("{key}={value} by {}", invocation.creator.msp_id).into_bytes());
            Ok(Vec::new())
        }
        ["get", key] => stub.get_state(key).map_err(failed)?.ok_or((404, format!("there is no key {key}"))),
        ["del", key] => {
            stub.del_state(key);
            Ok(Vec::new())
        }
        ["incr", key] => {
            let old = stub.get_state(key).map_err(failed)?.unwrap_or_else(|| b"0".to_vec());
            let new = String::from_utf8(old).unwrap().parse::<u64>().unwrap() + 1;
            stub.put_state(key, new.to_string().into_bytes());
            Ok(new.to_string().into_bytes())
        }
        ["count", start, end, key] => {
            let count = stub.get_state_by_range(start, end).map_err(failed)?.len();
            stub.put_state(key, count.to_string().into_bytes());
            Ok(count.to_string().into_bytes())
        }
        ["first", start, key] => {
            let first = stub.get_state_page(start, "", 1).map_err(failed)?;
            let first = first.into_iter().next().map(|(key, _)| key).unwrap_or_default();
            stub.put_state(key, first.into_bytes());
            Ok(Vec::new())
        }
        ["panic"] => panic!("asked to"),
        _ => Err((400, "unknown function".into())),
    }
}

/// A network of three members: `ch-1` = {dsp, vsp1}, `ch-2` = all.
pub(crate) fn ledger(directory: &Path) -> Ledger {
    ledger_of(directory, program())
}

/// The same network, with another chaincode.
pub(crate) fn ledger_of(directory: &Path, program: Program) -> Ledger {
    let member = |name: &str, msp_id: &str| MemberSpec {
        name: name.into(),
        msp_id: msp_id.into(),
    };
    let members = vec![member("dsp", "DspMSP"), member("vsp1", "Vsp1MSP"), member("vsp2", "Vsp2MSP")];
    let options = Options {
        program,
        ..Options::default()
    };
    let ledger = Ledger::init_with(&directory.join("ledger"), &NetworkSpec { members }, options).unwrap();
    ledger.create_channel("ch-1", &["dsp", "vsp1"]).unwrap();
    ledger.create_channel("ch-2", &["dsp", "vsp1", "vsp2"]).unwrap();
    for name in ["dsp", "vsp1", "vsp2"] {
        ledger.export_identity(name, &directory.join(name)).unwrap();
    }
    ledger
}

pub(crate) async fn serve(ledger: &Ledger) -> Server {
    Server::bind(ledger.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) chaincode: &'static str,
    pub(crate) signer: std::sync::Arc<PemSigner>,
    pub(crate) gateway: GatewayClient<Channel>,
    pub(crate) deliver: DeliverClient<Channel>,
}

#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) tx_id: String,
    pub(crate) envelope: Envelope,
}

impl Client {
    pub(crate) async fn connect(directory: &Path, member: &str, msp_id: &str, server: &Server) -> Self {
        let identity = directory.join(member);
        let signer = PemSigner::from_msp_dir(&identity.join("msp"), msp_id).unwrap();
        let ca = Certificate::from_pem(std::fs::read(identity.join("tls-ca.pem")).unwrap());
        let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{}", server.address())).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        let most = protos::MAX_GRPC_MESSAGE_BYTES;
        Self {
            chaincode: CHAINCODE,
            signer: std::sync::Arc::new(signer),
            gateway: GatewayClient::new(channel.clone()).max_decoding_message_size(most),
            deliver: DeliverClient::new(channel).max_decoding_message_size(most),
        }
    }

    pub(crate) fn header(&self, kind: HeaderType, channel: &str, seconds: i64, extension: Vec<u8>) -> (Header, String) {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let mut nonce = vec![0; txid::NONCE_BYTES];
        nonce[..8].copy_from_slice(&NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_le_bytes());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        nonce[8..24].copy_from_slice(&since.as_nanos().to_le_bytes());
        let creator = self.signer.identity();
        let tx_id = txid::tx_id(&nonce, &creator);
        let channel_header = ChannelHeader {
            r#type: kind as i32,
            timestamp: Some(Timestamp { seconds, nanos: 0 }),
            channel_id: channel.into(),
            tx_id: tx_id.clone(),
            extension,
            ..ChannelHeader::default()
        };
        let signature_header = SignatureHeader { creator, nonce };
        let header = Header {
            channel_header: channel_header.encode_to_vec(),
            signature_header: signature_header.encode_to_vec(),
        };
        (header, tx_id)
    }

    pub(crate) fn propose(&self, channel: &str, chaincode: &str, args: &[&str]) -> (SignedProposal, String) {
        self.propose_bytes(channel, chaincode, args.iter().map(|arg| arg.as_bytes().to_vec()).collect())
    }

    fn propose_bytes(&self, channel: &str, chaincode: &str, args: Vec<Vec<u8>>) -> (SignedProposal, String) {
        let chaincode_id = Some(ChaincodeId {
            name: chaincode.into(),
            ..ChaincodeId::default()
        });
        let extension = ChaincodeHeaderExtension {
            chaincode_id: chaincode_id.clone(),
        }
        .encode_to_vec();
        let (header, tx_id) = self.header(HeaderType::EndorserTransaction, channel, now(), extension);
        let input = ChaincodeInput {
            args,
            ..ChaincodeInput::default()
        };
        let spec = ChaincodeSpec {
            chaincode_id,
            input: Some(input),
            ..ChaincodeSpec::default()
        };
        let payload = ChaincodeProposalPayload {
            input: ChaincodeInvocationSpec {
                chaincode_spec: Some(spec),
            }
            .encode_to_vec(),
            transient_map: [("secret".to_owned(), b"hidden".to_vec())].into(),
        };
        let proposal = Proposal {
            header: header.encode_to_vec(),
            payload: payload.encode_to_vec(),
            ..Proposal::default()
        };
        let proposal_bytes = proposal.encode_to_vec();
        let signature = self.signer.sign(&proposal_bytes).unwrap();
        (SignedProposal { proposal_bytes, signature }, tx_id)
    }

    pub(crate) async fn evaluate(&mut self, channel: &str, chaincode: &str, args: &[&str]) -> Result<Vec<u8>, Status> {
        let args = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        self.evaluate_bytes(channel, chaincode, args).await
    }

    pub(crate) async fn evaluate_bytes(&mut self, channel: &str, chaincode: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, Status> {
        let (proposal, transaction_id) = self.propose_bytes(channel, chaincode, args);
        let request = EvaluateRequest {
            transaction_id,
            channel_id: channel.into(),
            proposed_transaction: Some(proposal),
            ..EvaluateRequest::default()
        };
        Ok(self.gateway.evaluate(request).await?.into_inner().result.unwrap().payload)
    }

    pub(crate) async fn endorse_proposal(&mut self, channel: &str, proposal: SignedProposal) -> Result<Envelope, Status> {
        let request = EndorseRequest {
            channel_id: channel.into(),
            proposed_transaction: Some(proposal),
            ..EndorseRequest::default()
        };
        Ok(self.gateway.endorse(request).await?.into_inner().prepared_transaction.unwrap())
    }

    /// Endorses and signs.
    pub(crate) async fn prepare(&mut self, channel: &str, args: &[&str]) -> Result<Prepared, Status> {
        let (proposal, tx_id) = self.propose(channel, self.chaincode, args);
        let mut envelope = self.endorse_proposal(channel, proposal).await?;
        envelope.signature = self.signer.sign(&envelope.payload).unwrap();
        Ok(Prepared { tx_id, envelope })
    }

    pub(crate) async fn submit(&mut self, channel: &str, prepared: &Prepared) -> Result<(), Status> {
        let request = SubmitRequest {
            transaction_id: prepared.tx_id.clone(),
            channel_id: channel.into(),
            prepared_transaction: Some(prepared.envelope.clone()),
        };
        self.gateway.submit(request).await.map(|_| ())
    }

    pub(crate) async fn status(&mut self, channel: &str, tx_id: &str) -> Result<CommitStatusResponse, Status> {
        let request = CommitStatusRequest {
            transaction_id: tx_id.into(),
            channel_id: channel.into(),
            identity: self.signer.identity(),
        }
        .encode_to_vec();
        let signature = self.signer.sign(&request).unwrap();
        let answer = self.gateway.commit_status(SignedCommitStatusRequest { request, signature });
        let waited = tokio::time::timeout(Duration::from_secs(20), answer).await;
        Ok(waited.expect("the status comes in time")?.into_inner())
    }

    /// Endorses, submits and waits for the commit.
    pub(crate) async fn transact(&mut self, channel: &str, args: &[&str]) -> CommitStatusResponse {
        let prepared = self.prepare(channel, args).await.unwrap();
        self.submit(channel, &prepared).await.unwrap();
        self.status(channel, &prepared.tx_id).await.unwrap()
    }

    pub(crate) fn seek(&self, channel: &str, info: &SeekInfo, seconds: i64) -> Envelope {
        let (header, _) = self.header(HeaderType::DeliverSeekInfo, channel, seconds, Vec::new());
        let payload = Payload {
            header: Some(header),
            data: info.encode_to_vec(),
        }
        .encode_to_vec();
        let signature = self.signer.sign(&payload).unwrap();
        Envelope { payload, signature }
    }

    pub(crate) async fn blocks(&mut self, request: Envelope) -> tonic::Streaming<DeliverResponse> {
        // The request stream stays open: the server serves further seeks on it.
        let requests = futures::StreamExt::chain(tokio_stream::once(request), futures::stream::pending());
        self.deliver.deliver(requests).await.unwrap().into_inner()
    }

    #[allow(dead_code, reason = "not every test file reads filtered blocks")]
    pub(crate) async fn filtered_blocks(&mut self, request: Envelope) -> tonic::Streaming<DeliverResponse> {
        let requests = futures::StreamExt::chain(tokio_stream::once(request), futures::stream::pending());
        self.deliver.deliver_filtered(requests).await.unwrap().into_inner()
    }
}

pub(crate) fn from_oldest_to(stop: u64) -> SeekInfo {
    SeekInfo {
        start: Some(SeekPosition {
            r#type: Some(seek_position::Type::Oldest(SeekOldest {})),
        }),
        stop: Some(specified(stop)),
        ..SeekInfo::default()
    }
}

pub(crate) fn specified(number: u64) -> SeekPosition {
    SeekPosition {
        r#type: Some(seek_position::Type::Specified(SeekSpecified { number })),
    }
}
