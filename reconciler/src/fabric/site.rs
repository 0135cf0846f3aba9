//! This member's place in a channel's network: what it works with, and how each tool has to be called for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use state::ids::{Channel, MemberId, MspId};

use super::address::Address;
use super::answers;
use super::block::FirstBlock;
use super::configtx::{self, ConfigTx};
use super::document::{ChannelDocument, MemberSite, OrdererNode, OrdererSite};
use super::error::FabricError;
use super::settings::{FabricConfig, OrdererAdmin};
use super::tools::{Call, Tool, Tools};

/// What the `peer` command needs to find in a `core.yaml`: that keys are in files. Everything else it is told.
const CORE_YAML: &str = "# Written by charter for the peer command; name another folder with config in [fabric].
peer:
  BCCSP:
    Default: SW
    SW:
      Hash: SHA2
      Security: 256
  client:
    connTimeout: 10s
";

/// What stands for the package's id where nothing is run.
pub(super) const UNKNOWN_PACKAGE: &str = "$PACKAGE_ID";

/// One member with one channel's document.
#[derive(Clone, Debug)]
pub struct Site {
    /// The member.
    pub member: MemberId,
    /// Its MSP id.
    pub msp_id: MspId,
    /// The channel.
    pub document: ChannelDocument,
    /// How the member works.
    pub settings: FabricConfig,
    /// Where the tools are.
    pub tools: Tools,
    /// The folder that belongs to this channel.
    pub folder: PathBuf,
    /// The channel's first block.
    pub block: PathBuf,
}

impl Site {
    /// Checks that a member takes part in a document's channel. Its files go to a folder of the channel's own below `folder`.
    pub fn new(
        member: &MemberId,
        msp_id: &MspId,
        document: ChannelDocument,
        settings: FabricConfig,
        tools: Tools,
        folder: &Path,
    ) -> Result<Self, FabricError> {
        let channel = &document.channel;
        let Some(party) = document.agreement.party(member) else {
            return Err(FabricError::Stranger {
                member: member.clone(),
                channel: channel.clone(),
                parties: document.members.iter().map(|site| site.member.to_string()).collect(),
            });
        };
        if party.msp != *msp_id {
            return Err(FabricError::OtherMsp {
                member: member.clone(),
                configured: msp_id.clone(),
                agreed: party.msp.clone(),
            });
        }
        let folder = folder.join("fabric").join(channel.as_str());
        Ok(Self {
            member: member.clone(),
            msp_id: msp_id.clone(),
            block: folder.join(format!("{channel}.block")),
            document,
            settings,
            tools,
            folder,
        })
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.document.channel
    }

    /// This member in the document.
    pub(super) fn own(&self) -> Result<&MemberSite, FabricError> {
        self.document
            .by_msp(self.msp_id.as_str())
            .ok_or_else(|| FabricError::Missing(format!("{} is not in the channel document", self.msp_id)))
    }

    /// This organisation's peers.
    pub(super) fn peers(&self) -> Result<Vec<Address>, FabricError> {
        Ok(if self.settings.peers.is_empty() {
            self.own()?.peers.clone()
        } else {
            self.settings.peers.clone()
        })
    }

    /// This organisation's peer that is asked, of several.
    pub(super) fn first_peer(&self) -> Result<Address, FabricError> {
        let first = self.peers()?.into_iter().next();
        first.ok_or_else(|| FabricError::Missing(format!("the channel document names no peer of {}", self.member)))
    }

    /// Writes what the tools read: `configtx.yaml`, and a `core.yaml` where the member has none of its own.
    pub(super) fn prepare(&self) -> Result<(), FabricError> {
        std::fs::create_dir_all(&self.folder).map_err(file("make", &self.folder))?;
        write(&self.folder.join(configtx::FILE_NAME), &self.configtx()?)?;
        if self.settings.config.is_none() {
            write(&self.folder.join("core.yaml"), CORE_YAML)?;
        }
        Ok(())
    }

    /// The text of `configtx.yaml`.
    pub fn configtx(&self) -> Result<String, FabricError> {
        ConfigTx::new(&self.document).to_yaml().map_err(|source| FabricError::ConfigTx {
            channel: self.channel().clone(),
            source,
        })
    }

    /// Makes the channel's first block in a file.
    pub(super) fn configtxgen(&self, into: &Path) -> Call {
        Call::new(Tool::ConfigTxGen, &[])
            .option("-configPath", self.folder.clone())
            .option("-profile", configtx::PROFILE)
            .option("-channelID", self.channel().as_str())
            .option("-outputBlock", into)
            .variable("FABRIC_CFG_PATH", self.folder.clone())
    }

    /// Administers one orderer node.
    pub(super) fn osnadmin(&self, words: &[&str], orderer: &OrdererAdmin) -> Call {
        let call = Call::new(Tool::OsnAdmin, words)
            .option("--channelID", self.channel().as_str())
            .option("-o", orderer.admin.to_string());
        match &orderer.tls {
            None => call,
            Some(tls) => call
                .option("--ca-file", tls.ca.clone())
                .option("--client-cert", tls.cert.clone())
                .option("--client-key", tls.key.clone()),
        }
    }

    /// Speaks with one of this organisation's peers, as its administrator.
    pub(super) fn peer(&self, words: &[&str], address: &Address) -> Result<Call, FabricError> {
        let config = self.settings.config.as_ref().unwrap_or(&self.folder);
        let mut call = Call::new(Tool::Peer, words)
            .variable("FABRIC_CFG_PATH", config.clone())
            .variable("CORE_PEER_LOCALMSPID", self.msp_id.as_str())
            .variable("CORE_PEER_MSPCONFIGPATH", self.settings.admin_msp.clone())
            .variable("CORE_PEER_ADDRESS", address.to_string())
            .variable("CORE_PEER_TLS_ENABLED", "true")
            .variable("CORE_PEER_TLS_ROOTCERT_FILE", self.own()?.msp.tls_ca.clone());
        if let Some(tls) = &self.settings.peer_tls {
            call = call
                .variable("CORE_PEER_TLS_CLIENTAUTHREQUIRED", "true")
                .variable("CORE_PEER_TLS_CLIENTCERT_FILE", tls.cert.clone())
                .variable("CORE_PEER_TLS_CLIENTKEY_FILE", tls.key.clone());
        }
        Ok(call)
    }

    /// The same call with an orderer to send to.
    pub(super) fn through(&self, call: &Call, orderer: &OrdererSite, node: &OrdererNode) -> Call {
        let call = call
            .clone()
            .option("-o", node.address.to_string())
            .word("--tls")
            .option("--cafile", orderer.msp.tls_ca.clone())
            .option("--connTimeout", "10s");
        match &self.settings.orderer_tls {
            None => call,
            Some(tls) => call
                .word("--clientauth")
                .option("--certfile", tls.cert.clone())
                .option("--keyfile", tls.key.clone()),
        }
    }

    /// Runs a call through the first orderer that can be reached.
    pub(super) async fn ordered(&self, call: &Call) -> Result<(), FabricError> {
        const AWAY: [&str; 3] = ["orderer client failed to connect", "no Raft leader", "SERVICE_UNAVAILABLE"];
        let mut tried = Vec::new();
        let mut last = None;
        for (orderer, node) in self.document.orderer_nodes() {
            match self.tools.run(&self.through(call, orderer, node)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.said().is_some_and(|said| AWAY.iter().any(|text| said.contains(text))) => {
                    tried.push(node.address.clone());
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(match last {
            Some(error) if tried.len() == 1 => error,
            Some(error) => FabricError::Orderers {
                tried,
                last: Box::new(error),
            },
            None => FabricError::Missing("the channel document names no orderer".into()),
        })
    }

    /// The chaincode package of this organisation.
    pub(super) fn package(&self) -> Result<&Path, FabricError> {
        let package = self.settings.package.as_deref().ok_or_else(|| {
            FabricError::Missing(
                "package is missing in [fabric] of charter.toml: the file that 'charter chaincode package' wrote for this organisation"
                    .into(),
            )
        })?;
        if package.is_file() {
            return Ok(package);
        }
        Err(FabricError::Missing(format!(
            "there is no chaincode package {}; 'charter chaincode package' writes one",
            package.display()
        )))
    }

    /// Asks for the id of this organisation's package.
    pub(super) async fn package_id(&self) -> Result<String, FabricError> {
        let call = self.package_id_call()?;
        answers::package_id(&call, &self.tools.run(&call).await?)
    }

    pub(super) fn package_id_call(&self) -> Result<Call, FabricError> {
        let call = self.peer(&["lifecycle", "chaincode", "calculatepackageid"], &self.first_peer()?)?;
        Ok(call.word(self.package()?))
    }

    /// Makes the block that the document gives, reads it, and leaves nothing behind.
    pub(super) async fn expected(&self) -> Result<FirstBlock, FabricError> {
        let path = self.folder.join(".expected.block");
        let made = self.tools.run(&self.configtxgen(&path)).await.map(drop);
        let read = made.and_then(|()| FirstBlock::read(&path, self.channel()));
        let _ = std::fs::remove_file(&path);
        read
    }
}

/// The error of a file operation.
pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FabricError {
    let path = path.to_owned();
    move |source| FabricError::File { action, path, source }
}

/// Writes a file by rename.
fn write(path: &Path, text: &str) -> Result<(), FabricError> {
    if std::fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let mut name = OsString::from(".next-");
    name.push(path.file_name().unwrap_or_default());
    let next = path.with_file_name(name);
    std::fs::write(&next, text).map_err(file("write", &next))?;
    std::fs::rename(&next, path).map_err(file("write", path))
}
