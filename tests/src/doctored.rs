//! The blocks of an embedded ledger, doctored by those who hold all its keys: what members who agree on a lie, and an orderer who
//! helps them, could make of a channel.

use std::fs::OpenOptions;
use std::io::Write;

use msp::{PemSigner, Signer};
use prost::Message;
use protos::commit_hash::{Update, Version, commit_hash};
use protos::common::{
    Block, BlockData, BlockHeader, BlockMetadataIndex, ChannelHeader, Envelope, Header, HeaderType, LastConfig, Metadata,
    MetadataSignature, OrdererBlockMetadata, Payload, SignatureHeader,
};
use protos::kvrwset::{KvWrite, KvrwSet};
use protos::peer::{
    ChaincodeAction, ChaincodeActionPayload, ChaincodeEndorsedAction, ChaincodeEvent, ChaincodeHeaderExtension, ChaincodeId,
    ChaincodeInput, ChaincodeInvocationSpec, ChaincodeProposalPayload, ChaincodeSpec, Endorsement, ProposalResponsePayload, Response,
    Transaction, TransactionAction,
};
use protos::prost_types::Timestamp as Moment;
use protos::rwset::{NsReadWriteSet, TxReadWriteSet};
use protos::{block, metadata, txid};
use state::canonical::{self, Digest};
use state::event::{CloudEvent, EventBody};
use state::ids::{Channel, MemberId, TxId};
use state::time::Timestamp;

use crate::{Recording, World};

/// Appends a block to a channel of a ledger that doesn't run: a transaction of `member` that only reads, and that its endorsers say
/// retired a resource. Every signature, hash and code of it is right. Returns its number.
///
/// # Panics
/// When the world has no such ledger.
pub fn retire(world: &World, channel: &Channel, member: &MemberId, msp_id: &str, resource: &str) -> u64 {
    let ledger = world.data().join("ledger");
    let path = ledger.join("channels").join(channel.as_str()).join("blocks");
    let blocks = Recording::of_embedded(&path);
    let last = blocks.blocks().last().expect("a channel has a first block");
    let organisations = ledger.join("organisations");
    let signer = |folder: std::path::PathBuf, msp_id: &str| {
        PemSigner::from_msp_dir(&folder, msp_id).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    };
    let creator = signer(world.member(member.as_str()).join("identity/msp"), msp_id);
    let peer = signer(organisations.join(member.as_str()).join("peer"), msp_id);
    let orderer = signer(organisations.join("orderer/orderer"), "OrdererMSP");

    let number = blocks.height();
    let key = format!("resource/{resource}");
    let data = vec![transaction(channel, member, resource, &key, &creator, &peer)];
    let header = BlockHeader {
        number,
        previous_hash: last
            .header
            .as_ref()
            .map(|header| block::header_hash(header).to_vec())
            .unwrap_or_default(),
        data_hash: block::data_hash(&data).to_vec(),
    };
    let update = Update {
        namespace: chaincode::NAME,
        collection: "",
        key: key.as_bytes(),
        value: None,
        version: Version { block: number, tx: 0 },
    };
    let previous = metadata::commit_hash(last).ok().flatten().unwrap_or_default();
    let hash = commit_hash(&[0], [update], &previous);
    let mut slots = metadata::empty();
    slots.metadata[BlockMetadataIndex::Signatures as usize] = ordered(&header, &orderer);
    slots.metadata[BlockMetadataIndex::TransactionsFilter as usize] = vec![0];
    slots.metadata[BlockMetadataIndex::CommitHash as usize] = Metadata {
        value: hash.to_vec(),
        signatures: Vec::new(),
    }
    .encode_to_vec();
    let block = Block {
        header: Some(header),
        data: Some(BlockData { data }),
        metadata: Some(slots),
    };
    append(&path, number, &block.encode_to_vec());
    number
}

/// Appends a record to a block file: marker, length, number, checksum, body.
fn append(path: &std::path::Path, number: u64, body: &[u8]) {
    let length = u32::try_from(body.len()).expect("a block is far below 4 GiB").to_le_bytes();
    let number = number.to_le_bytes();
    let checksum = Digest::of(&[&length[..], &number, body].concat());
    let record = [b"BLK1", &length[..], &number, &checksum.as_bytes()[..8], body].concat();
    let mut file = OpenOptions::new().append(true).open(path).expect("the block file is there");
    file.write_all(&record).expect("the block file can be written");
}

fn ordered(header: &BlockHeader, orderer: &PemSigner) -> Vec<u8> {
    let value = OrdererBlockMetadata {
        last_config: Some(LastConfig { index: 0 }),
        consenter_metadata: Vec::new(),
    }
    .encode_to_vec();
    let signature_header = SignatureHeader {
        creator: orderer.identity(),
        nonce: vec![9; txid::NONCE_BYTES],
    }
    .encode_to_vec();
    let signature = orderer
        .sign(&metadata::signed_bytes(&value, &signature_header, header))
        .expect("the key signs");
    let signatures = vec![MetadataSignature {
        signature_header,
        signature,
        identifier_header: Vec::new(),
    }];
    Metadata { value, signatures }.encode_to_vec()
}

fn transaction(channel: &Channel, member: &MemberId, resource: &str, key: &str, creator: &PemSigner, peer: &PemSigner) -> Vec<u8> {
    let chaincode = ChaincodeId {
        name: chaincode::NAME.into(),
        ..ChaincodeId::default()
    };
    let at = Timestamp::clamped(i64::try_from(std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())).unwrap_or(0));
    let identity = creator.identity();
    let nonce = vec![7; txid::NONCE_BYTES];
    let tx_id = txid::tx_id(&nonce, &identity);
    let channel_header = ChannelHeader {
        r#type: HeaderType::EndorserTransaction as i32,
        timestamp: Some(Moment {
            seconds: at.seconds(),
            nanos: 0,
        }),
        channel_id: channel.to_string(),
        tx_id: tx_id.clone(),
        extension: ChaincodeHeaderExtension {
            chaincode_id: Some(chaincode.clone()),
        }
        .encode_to_vec(),
        ..ChannelHeader::default()
    };
    let header = Header {
        channel_header: channel_header.encode_to_vec(),
        signature_header: SignatureHeader { creator: identity, nonce }.encode_to_vec(),
    };
    let invocation = ChaincodeInvocationSpec {
        chaincode_spec: Some(ChaincodeSpec {
            chaincode_id: Some(chaincode.clone()),
            input: Some(ChaincodeInput {
                args: vec![b"head".to_vec(), member.as_str().into()],
                ..ChaincodeInput::default()
            }),
            ..ChaincodeSpec::default()
        }),
    };
    let proposed = ChaincodeProposalPayload {
        input: invocation.encode_to_vec(),
        ..ChaincodeProposalPayload::default()
    }
    .encode_to_vec();
    let hash = Digest::of(&[header.channel_header.as_slice(), &header.signature_header, &proposed].concat());
    let response_payload = ProposalResponsePayload {
        proposal_hash: hash.as_bytes().to_vec(),
        extension: said(channel, member, resource, key, &tx_id, at, chaincode).encode_to_vec(),
    }
    .encode_to_vec();
    let endorser = peer.identity();
    let signature = peer
        .sign(&[response_payload.as_slice(), &endorser].concat())
        .expect("the key signs");
    let action = ChaincodeActionPayload {
        chaincode_proposal_payload: proposed,
        action: Some(ChaincodeEndorsedAction {
            proposal_response_payload: response_payload,
            endorsements: vec![Endorsement { endorser, signature }],
        }),
    };
    let actions = vec![TransactionAction {
        header: header.signature_header.clone(),
        payload: action.encode_to_vec(),
    }];
    let payload = Payload {
        header: Some(header),
        data: Transaction { actions }.encode_to_vec(),
    }
    .encode_to_vec();
    let signature = creator.sign(&payload).expect("the key signs");
    Envelope { payload, signature }.encode_to_vec()
}

/// What the endorsers say that the chaincode did.
fn said(
    channel: &Channel,
    member: &MemberId,
    resource: &str,
    key: &str,
    tx_id: &str,
    at: Timestamp,
    chaincode: ChaincodeId,
) -> ChaincodeAction {
    let body = EventBody::ResourcesRetired {
        resources: vec![resource.parse().expect("a resource's name")],
    };
    let event_name = body.kind().to_owned();
    let id = TxId::new(tx_id).expect("it was just computed");
    let event = CloudEvent::new(channel, id, member.clone(), at, body);
    let event = ChaincodeEvent {
        chaincode_id: chaincode.name.clone(),
        tx_id: tx_id.to_owned(),
        event_name,
        payload: canonical::bytes(&event).expect("an event has a canonical form"),
    };
    let set = KvrwSet {
        writes: vec![KvWrite {
            key: key.to_owned(),
            is_delete: true,
            value: Vec::new(),
        }],
        ..KvrwSet::default()
    };
    let results = TxReadWriteSet {
        data_model: 0,
        ns_rwset: vec![NsReadWriteSet {
            namespace: chaincode.name.clone(),
            rwset: set.encode_to_vec(),
            collection_hashed_rwset: Vec::new(),
        }],
    };
    ChaincodeAction {
        results: results.encode_to_vec(),
        events: event.encode_to_vec(),
        response: Some(Response {
            status: 200,
            ..Response::default()
        }),
        chaincode_id: Some(chaincode),
    }
}
