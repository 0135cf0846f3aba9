//! Channels as Fabric's own `configtxgen` makes them: with Raft orderers, and with Byzantine fault-tolerant ones.
//!
//! `fixtures/genesis/make` made the two blocks. Where `cryptogen` and `configtxgen` are in `FABRIC_BIN` or `PATH`, one is made anew,
//! and blocks are signed with its orderers' keys.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::channel;
use ledger_sync::{BlockVerifier, VerifyError};
use msp::channel::Membership;
use msp::{PemSigner, Signer};
use prost::Message;
use protos::common::{
    Block, BlockData, BlockHeader, BlockMetadata, Config, ConfigEnvelope, IdentifierHeader, LastConfig, Metadata, MetadataSignature,
    OrdererBlockMetadata, SignatureHeader,
};
use protos::msp::{FabricMspConfig, MspConfig};
use protos::{block, envelope, metadata};
use state::errors::chain;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/genesis")
}

fn fixture(name: &str) -> Block {
    Block::decode(std::fs::read(fixtures().join(name)).unwrap().as_slice()).unwrap()
}

fn config(genesis: &Block) -> Config {
    let bytes = &genesis.data.as_ref().unwrap().data[0];
    let opened = envelope::open(&envelope::decode_envelope(bytes).unwrap()).unwrap();
    envelope::config(&opened).unwrap()
}

#[test]
fn the_first_block_of_a_raft_channel_is_understood() {
    let genesis = fixture("raft.block");
    BlockVerifier::start(channel(), &genesis, None).unwrap();
    let membership = Membership::from_config(config(&genesis)).unwrap();
    let names = |ids: &std::collections::BTreeSet<String>| ids.iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(membership.members()), ["CityMSP", "EnergyMSP"]);
    assert_eq!(names(membership.orderers()), ["OrdererMSP"]);
    // Nobody has signed yet.
    for policy in ["Application/Readers", "Application/Endorsement", "Orderer/BlockValidation"] {
        assert!(!membership.satisfied(policy, &[]), "{policy}");
    }
    let other = "another-1".parse().unwrap();
    let error = BlockVerifier::start(other, &genesis, None).unwrap_err();
    assert!(
        matches!(&error, VerifyError::Foreign { found, .. } if found == "smart-city-1"),
        "{error}"
    );
}

#[test]
fn the_first_block_of_a_bft_channel_is_understood() {
    let genesis = fixture("bft.block");
    BlockVerifier::start(channel(), &genesis, None).unwrap();
    let membership = Membership::from_config(config(&genesis)).unwrap();
    // Three of the four orderers, each by its own certificate.
    let policy = membership.signature_policy("Orderer/BlockValidation").unwrap();
    assert_eq!(policy.identities.len(), 4);
    assert!(!membership.satisfied("Orderer/BlockValidation", &[]));
}

#[test]
fn a_block_of_a_real_channel_whose_configuration_cannot_be_read_is_named() {
    let genesis = fixture("raft.block");
    // Every cut of the configuration is refused, none of them ends the process.
    let data = genesis.data.clone().unwrap().data[0].clone();
    for length in (0..data.len()).step_by(97) {
        let mut cut = genesis.clone();
        cut.data = Some(BlockData {
            data: vec![data[..length].to_vec()],
        });
        cut.header.as_mut().unwrap().data_hash = block::data_hash(&cut.data.as_ref().unwrap().data).to_vec();
        let error = BlockVerifier::start(channel(), &cut, None).unwrap_err();
        assert!(
            matches!(&error, VerifyError::Configuration { block: 0, .. }),
            "{length}: {}",
            chain(&error)
        );
    }
}

/// The folder with Fabric's tools: `FABRIC_BIN`, or one of `PATH`. Says so where there is none.
fn tools() -> Option<PathBuf> {
    let has_all = |folder: &PathBuf| ["cryptogen", "configtxgen"].iter().all(|name| folder.join(name).is_file());
    let named = std::env::var_os("FABRIC_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named.into_iter().chain(std::env::split_paths(&path)).find(has_all);
    if found.is_none() {
        eprintln!("skipped: cryptogen and configtxgen are not in FABRIC_BIN or PATH");
    }
    found
}

fn orderer(place: &Path, number: usize) -> PemSigner {
    let folder = format!("crypto/ordererOrganizations/orderer.example/orderers/o{number}.orderer.example/msp");
    let folder = place.join(folder);
    // Fabric's tools leave keys open to everybody.
    let key = std::fs::read_dir(folder.join("keystore")).unwrap().next().unwrap().unwrap().path();
    let certificate = std::fs::read_dir(folder.join("signcerts")).unwrap().next().unwrap().unwrap().path();
    PemSigner::new("OrdererMSP", &std::fs::read(certificate).unwrap(), &std::fs::read(key).unwrap()).unwrap()
}

/// Who signs a block, and how.
enum By<'a> {
    Certificate(&'a PemSigner),
    Number(u32, &'a PemSigner),
}

fn signed(previous: &Block, data: Vec<Vec<u8>>, last_config: u64, by: &[By<'_>]) -> Block {
    let before = previous.header.as_ref().unwrap();
    let header = BlockHeader {
        number: before.number + 1,
        previous_hash: block::header_hash(before).to_vec(),
        data_hash: block::data_hash(&data).to_vec(),
    };
    let value = OrdererBlockMetadata {
        last_config: Some(LastConfig { index: last_config }),
        consenter_metadata: Vec::new(),
    }
    .encode_to_vec();
    let signatures = by.iter().map(|by| {
        let (signed, signer, by_number) = match by {
            By::Certificate(signer) => {
                let named = SignatureHeader {
                    creator: signer.identity(),
                    nonce: vec![1; 24],
                };
                (named.encode_to_vec(), signer, false)
            }
            By::Number(identifier, signer) => {
                let named = IdentifierHeader {
                    identifier: *identifier,
                    nonce: vec![1; 24],
                };
                (named.encode_to_vec(), signer, true)
            }
        };
        let signature = signer.sign(&metadata::signed_bytes(&value, &signed, &header)).unwrap();
        let empty = Vec::new();
        let (signature_header, identifier_header) = if by_number { (empty, signed) } else { (signed, empty) };
        MetadataSignature {
            signature_header,
            signature,
            identifier_header,
        }
    });
    let slot = Metadata {
        signatures: signatures.collect(),
        value: value.clone(),
    };
    Block {
        metadata: Some(BlockMetadata {
            metadata: vec![slot.encode_to_vec(), Vec::new(), vec![0; data.len()], Vec::new(), Vec::new()],
        }),
        header: Some(header),
        data: Some(BlockData { data }),
    }
}

/// The genesis block's transaction again, with its configuration changed.
fn reconfigured(genesis: &Block, change: impl FnOnce(&mut Config)) -> Vec<Vec<u8>> {
    let bytes = &genesis.data.as_ref().unwrap().data[0];
    let mut outer = envelope::decode_envelope(bytes).unwrap();
    let mut payload = protos::common::Payload::decode(outer.payload.as_slice()).unwrap();
    let mut config = config(genesis);
    change(&mut config);
    payload.data = ConfigEnvelope {
        config: Some(config),
        last_update: None,
    }
    .encode_to_vec();
    outer.payload = payload.encode_to_vec();
    vec![outer.encode_to_vec()]
}

fn made(profile: &str, place: &Path) -> Option<Block> {
    let tools = tools()?;
    let mut path = vec![tools];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let done = Command::new(fixtures().join("make"))
        .args([profile.as_ref(), place.as_os_str()])
        .env("PATH", std::env::join_paths(path).unwrap())
        .output()
        .unwrap();
    if !done.status.success() && profile == "bft" {
        eprintln!("skipped: this configtxgen is older than 3.0, and knows no Byzantine fault-tolerant orderers");
        return None;
    }
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(Block::decode(std::fs::read(place.join(format!("{profile}.block"))).unwrap().as_slice()).unwrap())
}

#[test]
fn blocks_and_new_configurations_of_raft_orderers_are_believed() {
    let place = tempfile::tempdir().unwrap();
    let Some(genesis) = made("raft", place.path()) else { return };
    let (one, two) = (orderer(place.path(), 1), orderer(place.path(), 2));
    let start = || BlockVerifier::start(channel(), &genesis, None).unwrap();
    let none = || vec![b"not ours".to_vec()];
    let refused = |error: VerifyError| chain(&error);
    let mut first = signed(&genesis, none(), 0, &[By::Certificate(&one)]);
    // Called invalid, so that nobody looks into it.
    first.metadata.as_mut().unwrap().metadata[2] = vec![11];
    let mut verifier = start();
    verifier.verify(&first).unwrap().unwrap();
    // A number counts where the channel's capabilities say so, and this one's don't.
    let mut numbered = signed(&first, none(), 0, &[By::Number(1, &one)]);
    numbered.metadata.as_mut().unwrap().metadata[2] = vec![11];
    let said = refused(verifier.verify(&numbered).unwrap_err());
    assert!(said.contains("no orderer number 1"), "{said}");
    // A peer's certificate of a member is no orderer's.
    let member = place
        .path()
        .join("crypto/peerOrganizations/city.example/peers/peer0.city.example/msp");
    let read = |folder: &str| std::fs::read(std::fs::read_dir(member.join(folder)).unwrap().next().unwrap().unwrap().path()).unwrap();
    let peer = PemSigner::new("CityMSP", &read("signcerts"), &read("keystore")).unwrap();
    let mut verifier = start();
    let said = refused(
        verifier
            .verify(&signed(&genesis, none(), 0, &[By::Certificate(&peer)]))
            .unwrap_err(),
    );
    assert!(said.contains("not signed by the channel's orderers"), "{said}");
    // A member leaves; the block says so itself, and so do those after it.
    let smaller = reconfigured(&genesis, |config| {
        config.sequence += 1;
        let groups = &mut config.channel_group.as_mut().unwrap().groups;
        groups.get_mut("Application").unwrap().groups.remove("EnergyMSP");
    });
    let changed = signed(&genesis, smaller.clone(), 1, &[By::Certificate(&two)]);
    let mut verifier = start();
    verifier.verify(&changed).unwrap().unwrap();
    assert_eq!(verifier.configuration().number, 1);
    let mut stale = signed(&changed, none(), 0, &[By::Certificate(&one)]);
    stale.metadata.as_mut().unwrap().metadata[2] = vec![11];
    let said = refused(verifier.verify(&stale).unwrap_err());
    assert!(said.contains("configuration in block 0") && said.contains("in block 1"), "{said}");
    // The peer's code of a configuration is not asked: its orderers' word is.
    let mut flipped = changed.clone();
    flipped.metadata.as_mut().unwrap().metadata[2] = vec![254];
    let mut verifier = start();
    verifier.verify(&flipped).unwrap().unwrap();
    assert_eq!(verifier.configuration().number, 1);
    // One that is not the next.
    let again = reconfigured(&genesis, |_| {});
    let said = refused(start().verify(&signed(&genesis, again, 1, &[By::Certificate(&one)])).unwrap_err());
    assert!(said.contains("its sequence is 0"), "{said}");
    // A configuration block that is left out is noticed at the next block.
    let mut after = signed(&genesis, none(), 7, &[By::Certificate(&one)]);
    after.metadata.as_mut().unwrap().metadata[2] = vec![11];
    let said = refused(start().verify(&after).unwrap_err());
    assert!(said.contains("configuration in block 7"), "{said}");
}

#[test]
fn an_orderer_whose_certificate_is_revoked_signs_no_more() {
    let place = tempfile::tempdir().unwrap();
    let Some(genesis) = made("raft", place.path()) else { return };
    let (one, two) = (orderer(place.path(), 1), orderer(place.path(), 2));
    let ca = place.path().join("crypto/ordererOrganizations/orderer.example/ca");
    let read = |name: &str| std::fs::read(ca.join(name)).unwrap();
    let ca = msp::CertificateAuthority::from_pem(&read("ca.orderer.example-cert.pem"), &read("priv_sk")).unwrap();
    let list = ca.revoke(&[one.certificate()], one.certificate().not_before()).unwrap();
    let revoking = reconfigured(&genesis, |config| {
        config.sequence += 1;
        let orderers = config.channel_group.as_mut().unwrap().groups.get_mut("Orderer").unwrap();
        let value = orderers.groups.get_mut("OrdererMSP").unwrap().values.get_mut("MSP").unwrap();
        let mut outer = MspConfig::decode(value.value.as_slice()).unwrap();
        let mut inner = FabricMspConfig::decode(outer.config.as_slice()).unwrap();
        inner.revocation_list = vec![list.into_bytes()];
        outer.config = inner.encode_to_vec();
        value.value = outer.encode_to_vec();
    });
    // The configuration that revokes it may still be its own.
    let changed = signed(&genesis, revoking, 1, &[By::Certificate(&one)]);
    let mut verifier = BlockVerifier::start(channel(), &genesis, None).unwrap();
    verifier.verify(&changed).unwrap().unwrap();
    let next = |by: &PemSigner| {
        let mut block = signed(&changed, vec![b"not ours".to_vec()], 1, &[By::Certificate(by)]);
        block.metadata.as_mut().unwrap().metadata[2] = vec![11];
        block
    };
    verifier.verify(&next(&two)).unwrap().unwrap();
    let mut verifier = BlockVerifier::start(channel(), &genesis, None).unwrap();
    verifier.verify(&changed).unwrap().unwrap();
    let said = chain(&verifier.verify(&next(&one)).unwrap_err());
    assert!(said.contains("its certificate was revoked"), "{said}");
}

#[test]
fn a_quorum_of_bft_orderers_is_believed_and_fewer_are_not() {
    let place = tempfile::tempdir().unwrap();
    let Some(genesis) = made("bft", place.path()) else { return };
    let all: Vec<PemSigner> = (1..=4).map(|number| orderer(place.path(), number)).collect();
    let by = |numbers: &[u32]| {
        let signers = numbers.iter().map(|number| By::Number(*number, &all[*number as usize - 1]));
        let mut block = signed(&genesis, vec![b"not ours".to_vec()], 0, &signers.collect::<Vec<_>>());
        block.metadata.as_mut().unwrap().metadata[2] = vec![11];
        BlockVerifier::start(channel(), &genesis, None).unwrap().verify(&block)
    };
    by(&[1, 2, 3]).unwrap().unwrap();
    by(&[2, 4, 3, 1]).unwrap().unwrap();
    for few in [&[][..], &[1], &[1, 2], &[3, 3, 3]] {
        let error = by(few).unwrap_err();
        assert!(matches!(error, VerifyError::Signatures { block: 1, .. }), "{few:?}: {error}");
    }
    // Another orderer's key under the third one's number.
    let wrong = [By::Number(1, &all[0]), By::Number(2, &all[1]), By::Number(3, &all[3])];
    let block = signed(&genesis, vec![b"not ours".to_vec()], 0, &wrong);
    BlockVerifier::start(channel(), &genesis, None).unwrap().verify(&block).unwrap_err();
}
