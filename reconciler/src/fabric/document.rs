//! The channel document: what all members of a DAO version have to say alike about its Fabric channel. It holds nothing secret, and
//! every member keeps the same copy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::agreement::Agreement;
use state::ids::{Channel, MemberId, MspId};
use thiserror::Error;

use super::address::Address;
use super::public_msp::{PublicMsp, PublicMspError};
use crate::document::{self, API_VERSION, Document, DocumentError};

/// The name of the schema in `docs/schemas/`.
pub const SCHEMA_NAME: &str = "channel";
/// The value of the document's `kind`.
pub const KIND: &str = "Channel";

/// A channel document, as it stands in its file. Relative paths are relative to that file's folder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChannelFile {
    /// The channel's name on the ledger.
    channel: Channel,
    /// The file with the agreement that this channel is for: the channel gets exactly its parties.
    agreement: PathBuf,
    /// Each party of the agreement, by its name.
    members: BTreeMap<MemberId, MemberFile>,
    /// The organisations that run the ordering service.
    #[schemars(length(min = 1, max = 16))]
    orderers: Vec<OrdererFile>,
    /// When the orderers cut a block.
    #[serde(default)]
    blocks: Blocks,
    /// The definition of the chaincode `charter` that the members approve.
    chaincode: Definition,
}

/// What the others have to know of a member.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MemberFile {
    /// Its public MSP folder: cacerts/, tlscacerts/, config.yaml, and no key.
    msp_dir: PathBuf,
    /// Its peers, as others reach them; the first is asked to endorse.
    #[schemars(length(min = 1, max = 16))]
    peers: Vec<Address>,
}

/// What the members have to know of an ordering organisation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OrdererFile {
    /// Its MSP id.
    msp: MspId,
    /// Its public MSP folder: cacerts/, tlscacerts/, config.yaml, and no key.
    msp_dir: PathBuf,
    /// Its nodes.
    #[schemars(length(min = 1, max = 16))]
    nodes: Vec<NodeFile>,
}

/// One orderer node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    /// Where peers and clients reach it.
    address: Address,
    /// Where the other nodes reach it (default: the same).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<Address>,
    /// Its TLS certificate, PEM.
    tls_cert: PathBuf,
    /// The TLS certificate that it shows to other nodes (default: the same).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_tls_cert: Option<PathBuf>,
}

/// When the orderers cut a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Blocks {
    /// Milliseconds after a block's first transaction.
    #[schemars(range(min = 10, max = 60_000))]
    pub timeout_ms: u32,
    /// Transactions in a block, at most.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_transactions: u32,
    /// Bytes of one block, at most.
    #[schemars(range(min = 1_048_576, max = 104_857_600))]
    pub max_bytes: u32,
    /// Bytes after which a block is cut.
    #[schemars(range(min = 65_536, max = 104_857_600))]
    pub preferred_bytes: u32,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            timeout_ms: 500,
            max_transactions: 500,
            max_bytes: 10 * 1024 * 1024,
            preferred_bytes: 2 * 1024 * 1024,
        }
    }
}

/// The chaincode's definition on the channel; every member approves the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The chaincode's version.
    #[schemars(regex(pattern = "^[A-Za-z0-9][-A-Za-z0-9_.+]{0,63}$"))]
    pub version: String,
    /// 1 at first, and one more with each further definition.
    #[serde(default = "first")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sequence: u32,
}

fn first() -> u32 {
    1
}

/// A member of the channel, with what is known of it.
#[derive(Clone, Debug)]
pub struct MemberSite {
    /// Its name.
    pub member: MemberId,
    /// Its MSP id, by the agreement.
    pub msp_id: MspId,
    /// Its public MSP.
    pub msp: PublicMsp,
    /// Its peers.
    pub peers: Vec<Address>,
}

/// An ordering organisation.
#[derive(Clone, Debug)]
pub struct OrdererSite {
    /// Its MSP id.
    pub msp_id: MspId,
    /// Its public MSP.
    pub msp: PublicMsp,
    /// Its nodes.
    pub nodes: Vec<OrdererNode>,
}

/// One orderer node.
#[derive(Clone, Debug)]
pub struct OrdererNode {
    /// Where peers and clients reach it.
    pub address: Address,
    /// Where the other nodes reach it.
    pub cluster: Address,
    /// Its TLS certificate.
    pub tls_cert: PathBuf,
    /// The TLS certificate that it shows to other nodes.
    pub client_tls_cert: PathBuf,
}

/// A channel document that was checked: everything it names is there and fits.
#[derive(Clone, Debug)]
pub struct ChannelDocument {
    /// The file that it was read from.
    pub path: PathBuf,
    /// The channel.
    pub channel: Channel,
    /// The agreement that it is for.
    pub agreement: Agreement,
    /// The members, in the agreement's order.
    pub members: Vec<MemberSite>,
    /// The ordering organisations.
    pub orderers: Vec<OrdererSite>,
    /// When blocks are cut.
    pub blocks: Blocks,
    /// The chaincode.
    pub chaincode: Definition,
}

/// A channel document can't be used. Nothing was done.
#[derive(Debug, Error)]
pub enum ChannelDocumentError {
    /// It can't be read, or doesn't fit its schema.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The agreement's file holds something else, or breaks its own rules.
    #[error("{}: agreement {}: {message}", .path.display(), .agreement.display())]
    Agreement {
        /// The channel document.
        path: PathBuf,
        /// The agreement's file.
        agreement: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A clause is wrong.
    #[error("{}: {message}", .path.display())]
    Clause {
        /// The channel document.
        path: PathBuf,
        /// The clause, and what is wrong with it.
        message: String,
    },
    /// An organisation's MSP folder can't be used.
    #[error("{}: the MSP folder of {msp_id} can't be used", .path.display())]
    Msp {
        /// The channel document.
        path: PathBuf,
        /// The organisation.
        msp_id: MspId,
        /// Why.
        #[source]
        source: Box<PublicMspError>,
    },
}

/// The document's JSON schema.
pub fn schema() -> Schema {
    let mut schema = schema_for!(ChannelFile);
    schema.insert("title".into(), Value::String("Charter Channel".into()));
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert("apiVersion".into(), serde_json::json!({ "const": API_VERSION }));
        properties.insert("kind".into(), serde_json::json!({ "const": KIND }));
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.extend(["apiVersion".into(), "kind".into()]);
    }
    schema
}

impl ChannelDocument {
    /// Reads and checks a channel document, its agreement, and the MSP folders that it names.
    pub fn read(path: &Path) -> Result<Self, ChannelDocumentError> {
        let mut value = document::yaml(path, &document::text(path)?)?;
        document::fits(path, SCHEMA_NAME, &schema(), &value)?;
        if let Value::Object(map) = &mut value {
            map.remove("apiVersion");
            map.remove("kind");
        }
        let clause = |message: String| ChannelDocumentError::Clause {
            path: path.to_owned(),
            message,
        };
        let file: ChannelFile = serde_json::from_value(value).map_err(|error| clause(error.to_string()))?;
        let absolute = std::path::absolute(path).map_err(|source| DocumentError::Read {
            path: path.to_owned(),
            source,
        })?;
        let folder = absolute.parent().map(Path::to_owned).unwrap_or_default();
        let agreement = agreement(path, &folder.join(&file.agreement))?;
        let members = members(path, &folder, &agreement, &file.members)?;
        let mut orderers = Vec::new();
        for orderer in &file.orderers {
            let nodes = orderer.nodes.iter().map(|node| OrdererNode {
                address: node.address.clone(),
                cluster: node.cluster.as_ref().unwrap_or(&node.address).clone(),
                tls_cert: folder.join(&node.tls_cert),
                client_tls_cert: folder.join(node.client_tls_cert.as_ref().unwrap_or(&node.tls_cert)),
            });
            orderers.push(OrdererSite {
                msp_id: orderer.msp.clone(),
                msp: public_msp(path, &orderer.msp, &folder.join(&orderer.msp_dir))?,
                nodes: nodes.collect(),
            });
        }
        let document = Self {
            path: path.to_owned(),
            channel: file.channel,
            agreement,
            members,
            orderers,
            blocks: file.blocks,
            chaincode: file.chaincode,
        };
        document.check().map_err(clause)?;
        Ok(document)
    }

    /// How many members have to endorse, approve or administer: all but one, so that none can veto its own closure.
    pub fn enough(&self) -> usize {
        self.members.len().saturating_sub(1).max(1)
    }

    /// A member by its MSP id.
    pub fn by_msp(&self, msp_id: &str) -> Option<&MemberSite> {
        self.members.iter().find(|site| site.msp_id.as_str() == msp_id)
    }

    /// Every orderer node with the organisation that runs it, in the document's order.
    pub fn orderer_nodes(&self) -> impl Iterator<Item = (&OrdererSite, &OrdererNode)> {
        self.orderers
            .iter()
            .flat_map(|site| site.nodes.iter().map(move |node| (site, node)))
    }

    fn check(&self) -> Result<(), String> {
        let ids = || {
            let orderers = self.orderers.iter().map(|site| &site.msp_id);
            self.members.iter().map(|site| &site.msp_id).chain(orderers)
        };
        if let Some(msp_id) = ids().find(|msp_id| msp_id.as_str().contains('_')) {
            return Err(format!(
                "{msp_id} holds a '_': Fabric's policies take letters, digits, '.' and '-' in an MSP id; that organisation needs another one"
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        for site in &self.orderers {
            if !seen.insert(&site.msp_id) {
                return Err(format!("orderers: {} stands twice; put its nodes together", site.msp_id));
            }
        }
        for (_, node) in self.orderer_nodes() {
            for path in [&node.tls_cert, &node.client_tls_cert] {
                if !path.is_file() {
                    return Err(format!("orderers: {}: there is no certificate {}", node.address, path.display()));
                }
            }
        }
        if self.blocks.preferred_bytes > self.blocks.max_bytes {
            return Err("blocks: preferred_bytes is more than max_bytes".into());
        }
        Ok(())
    }
}

fn agreement(path: &Path, file: &Path) -> Result<Agreement, ChannelDocumentError> {
    let wrong = |message: String| ChannelDocumentError::Agreement {
        path: path.to_owned(),
        agreement: file.to_owned(),
        message,
    };
    match Document::read(file)? {
        Document::Agreement(agreement) => {
            agreement.check().map_err(|error| wrong(error.to_string()))?;
            Ok(*agreement)
        }
        _ => Err(wrong("this document is no agreement".into())),
    }
}

/// The members in the agreement's order: exactly its parties.
fn members(
    path: &Path,
    folder: &Path,
    agreement: &Agreement,
    files: &BTreeMap<MemberId, MemberFile>,
) -> Result<Vec<MemberSite>, ChannelDocumentError> {
    let clause = |message: String| ChannelDocumentError::Clause {
        path: path.to_owned(),
        message,
    };
    if let Some(stranger) = files.keys().find(|member| agreement.party(member).is_none()) {
        return Err(clause(format!(
            "members: {stranger} is no party of {} version {}: a channel has exactly the parties of its agreement",
            agreement.dao, agreement.version
        )));
    }
    let mut sites = Vec::new();
    for party in &agreement.parties {
        let file = files.get(&party.member).ok_or_else(|| {
            clause(format!(
                "members: {} is missing, a party of {} version {}",
                party.member, agreement.dao, agreement.version
            ))
        })?;
        sites.push(MemberSite {
            member: party.member.clone(),
            msp_id: party.msp.clone(),
            msp: public_msp(path, &party.msp, &folder.join(&file.msp_dir))?,
            peers: file.peers.clone(),
        });
    }
    Ok(sites)
}

fn public_msp(path: &Path, msp_id: &MspId, folder: &Path) -> Result<PublicMsp, ChannelDocumentError> {
    PublicMsp::read(folder).map_err(|source| ChannelDocumentError::Msp {
        path: path.to_owned(),
        msp_id: msp_id.clone(),
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::testing::{Parties, Place};

    fn refused(from: &str, to: &str) -> String {
        let place = Place::new(Parties::Two);
        place.edit(from, to);
        state::errors::chain(&ChannelDocument::read(&place.channel_file()).unwrap_err())
    }

    #[test]
    fn a_channel_has_exactly_the_parties_of_its_agreement() {
        let place = Place::new(Parties::Two);
        let document = place.document();
        let names: Vec<&str> = document.members.iter().map(|site| site.member.as_str()).collect();
        assert_eq!((names.as_slice(), document.enough()), (&["city", "breeze"][..], 1));
        let error = refused("  breeze: {", "  tram: {");
        assert!(error.contains("tram is no party of smart-city version 1"), "{error}");
        let error = refused("  breeze: { msp_dir: msp/breeze, peers: [\"peer0.breeze:7051\"] }\n", "");
        assert!(error.contains("breeze is missing"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_clause() {
        for (change, clause) in [
            (("chaincode:", "colour: red\nchaincode:"), "colour"),
            (("peer0.city:7051", "--evil"), "/members/city/peers/0"),
            (("version: \"1.0\"", "version: \"--x\""), "/chaincode/version"),
            (("kind: Channel", "kind: Order"), "/kind"),
            (("msp: OrdererMSP", "msp: Orderer_MSP"), "Orderer_MSP holds a '_'"),
            (("tls/orderer.pem", "tls/other.pem"), "there is no certificate"),
            (("msp_dir: msp/city", "msp_dir: msp/nobody"), "no such folder"),
            (
                ("agreement: agreement.yaml", "agreement: channel.yaml"),
                "this kind is not one of Agreement",
            ),
            (
                ("chaincode:", "blocks: { max_bytes: 1048576, preferred_bytes: 2097152 }\nchaincode:"),
                "preferred_bytes",
            ),
        ] {
            let error = refused(change.0, change.1);
            assert!(error.contains(clause), "{clause}: {error}");
        }
    }

    #[test]
    fn a_folder_with_a_private_key_is_refused() {
        let place = Place::new(Parties::Two);
        let keystore = place.path().join("msp/city/keystore");
        std::fs::create_dir_all(&keystore).unwrap();
        std::fs::write(keystore.join("priv_sk"), "key").unwrap();
        let error = state::errors::chain(&ChannelDocument::read(&place.channel_file()).unwrap_err());
        assert!(error.contains("keystore/") && error.contains("CityMSP"), "{error}");
    }

    #[test]
    fn an_organisation_without_node_ous_is_refused() {
        let place = Place::new(Parties::Two);
        std::fs::write(place.path().join("msp/city/config.yaml"), "NodeOUs:\n  Enable: false\n").unwrap();
        let error = state::errors::chain(&ChannelDocument::read(&place.channel_file()).unwrap_err());
        assert!(error.contains("NodeOUs"), "{error}");
    }
}
