//! What the tests of this module stand on: a consortium's public files, first blocks, and tools that only pretend to be Fabric's.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use msp::CertificateAuthority;
use prost::Message;
use protos::common::{
    Block, BlockData, BlockHeader, ChannelHeader, Config, ConfigEnvelope, ConfigGroup, ConfigPolicy, ConfigValue, Envelope, Header,
    HeaderType, Payload, SignatureHeader,
};

use super::document::ChannelDocument;
use super::settings::{FabricConfig, OrdererAdmin};
use super::site::Site;
use super::tools::Tools;

const NOW: i64 = 1_780_000_000;
const FAKE: &str = include_str!("testing/fabric.sh");

/// A configuration of a few groups, as much as a comparison needs.
pub(super) fn configuration(msp_ids: &[&str]) -> ConfigGroup {
    let policy = || ConfigPolicy {
        mod_policy: "Admins".into(),
        ..ConfigPolicy::default()
    };
    let mut application = ConfigGroup {
        mod_policy: "Admins".into(),
        ..ConfigGroup::default()
    };
    application.policies.insert("Endorsement".into(), policy());
    for msp_id in msp_ids {
        let mut organisation = ConfigGroup::default();
        let value = ConfigValue {
            value: msp_id.as_bytes().to_vec(),
            ..ConfigValue::default()
        };
        organisation.values.insert("MSP".into(), value);
        application.groups.insert((*msp_id).to_owned(), organisation);
    }
    let mut root = ConfigGroup {
        mod_policy: "Admins".into(),
        ..ConfigGroup::default()
    };
    root.groups.insert("Application".into(), application);
    root
}

/// A first block with a configuration; the nonce makes it one of its own.
pub(super) fn first_block(channel: &str, group: ConfigGroup, nonce: u8) -> Vec<u8> {
    let config = ConfigEnvelope {
        config: Some(Config {
            sequence: 0,
            channel_group: Some(group),
        }),
        last_update: None,
    };
    let channel_header = ChannelHeader {
        r#type: HeaderType::Config as i32,
        channel_id: channel.to_owned(),
        ..ChannelHeader::default()
    };
    let signature_header = SignatureHeader {
        creator: Vec::new(),
        nonce: vec![nonce; 24],
    };
    let payload = Payload {
        header: Some(Header {
            channel_header: channel_header.encode_to_vec(),
            signature_header: signature_header.encode_to_vec(),
        }),
        data: config.encode_to_vec(),
    };
    let data = vec![
        Envelope {
            payload: payload.encode_to_vec(),
            signature: Vec::new(),
        }
        .encode_to_vec(),
    ];
    Block {
        header: Some(BlockHeader {
            number: 0,
            previous_hash: Vec::new(),
            data_hash: protos::block::data_hash(&data).to_vec(),
        }),
        data: Some(BlockData { data }),
        metadata: None,
    }
    .encode_to_vec()
}

/// How many members take part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Parties {
    Two,
    Three,
}

impl Parties {
    fn names(self) -> &'static [(&'static str, &'static str)] {
        const ALL: [(&str, &str); 3] = [("city", "CityMSP"), ("breeze", "BreezeMSP"), ("tram", "TramMSP")];
        match self {
            Parties::Two => &ALL[..2],
            Parties::Three => &ALL,
        }
    }

    fn version(self) -> usize {
        self.names().len() - 1
    }
}

/// A consortium in a folder: what its members share, and a network that is only pretended.
pub(super) struct Place {
    parties: Parties,
    folder: tempfile::TempDir,
}

impl Place {
    pub(super) fn new(parties: Parties) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { parties, folder };
        let path = place.path();
        let write = |name: &str, text: &str| {
            let file = path.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        for (name, _) in parties.names().iter().chain(&[("orderer", "OrdererMSP")]) {
            let authority = CertificateAuthority::create(name, &format!("ca.{name}"), NOW).unwrap();
            write(&format!("msp/{name}/cacerts/ca.pem"), authority.certificate_pem());
            write(&format!("msp/{name}/tlscacerts/tls.pem"), authority.certificate_pem());
            write(&format!("msp/{name}/config.yaml"), "NodeOUs:\n  Enable: true\n");
        }
        write("tls/orderer.pem", "certificate");
        write("package.tgz", "package");
        let version = parties.version();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/smart-city/v{version}/agreement.yaml"));
        write("agreement.yaml", &std::fs::read_to_string(example).unwrap());
        let mut members = String::new();
        for (name, _) in parties.names() {
            members.push_str(&format!("  {name}: {{ msp_dir: msp/{name}, peers: [\"peer0.{name}:7051\"] }}\n"));
        }
        write(
            "channel.yaml",
            &format!(
                "apiVersion: charter/v1\nkind: Channel\nchannel: smart-city-{version}\nagreement: agreement.yaml\nmembers:\n{members}\
                 orderers:\n  - msp: OrdererMSP\n    msp_dir: msp/orderer\n    nodes:\n      - {{ address: \"orderer:7050\", tls_cert: \
                 tls/orderer.pem }}\nchaincode: {{ version: \"1.0\" }}\n"
            ),
        );
        place.fake();
        place
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn channel_file(&self) -> PathBuf {
        self.path().join("channel.yaml")
    }

    pub(super) fn document(&self) -> ChannelDocument {
        ChannelDocument::read(&self.channel_file()).unwrap()
    }

    /// Changes the channel document's text.
    pub(super) fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.channel_file()).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(self.channel_file(), text.replace(from, to)).unwrap();
    }

    /// A member's place, with the pretended tools. The first member runs the orderer.
    pub(super) fn site(&self, member: &str) -> Site {
        let (_, msp_id) = self.parties.names().iter().find(|(name, _)| *name == member).unwrap();
        let orderers = (member == "city").then(|| OrdererAdmin {
            admin: "127.0.0.1:7053".parse().unwrap(),
            tls: None,
        });
        let settings = FabricConfig {
            bin: None,
            config: None,
            admin_msp: self.path().join(format!("secret/{member}")),
            package: Some(self.path().join("package.tgz")),
            peers: Vec::new(),
            peer_tls: None,
            orderer_tls: None,
            orderers: orderers.into_iter().collect(),
            timeout_seconds: 20,
        };
        let tools = Tools::new(Some(&self.path().join("bin")), None, Duration::from_secs(20));
        let folder = self.path().join("members").join(member);
        Site::new(
            &member.parse().unwrap(),
            &msp_id.parse().unwrap(),
            self.document(),
            settings,
            tools,
            &folder,
        )
        .unwrap()
    }

    /// Has the effect with this number fail: `before` it happens, `after`, or because the network is `settling`.
    pub(super) fn fail(&self, number: usize, when: &str) {
        std::fs::write(self.state().join("fail"), format!("{number} {when}\n")).unwrap();
    }

    /// What was changed on the network, in its order.
    pub(super) fn effects(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.state().join("effects")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Every run of a tool, in its order.
    pub(super) fn runs(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.state().join("runs")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// The folder in which the network is pretended.
    pub(super) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    fn fake(&self) {
        let (bin, state) = (self.path().join("bin"), self.state());
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(state.join("msp_of")).unwrap();
        let script = FAKE.replace("@STATE@", &state.display().to_string());
        for tool in ["configtxgen", "osnadmin", "peer"] {
            let path = bin.join(tool);
            std::fs::write(&path, &script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let channel = format!("smart-city-{}", self.parties.version());
        let ids: Vec<&str> = self.parties.names().iter().map(|(_, msp_id)| *msp_id).collect();
        for nonce in [0, 1] {
            let block = first_block(&channel, configuration(&ids), nonce);
            std::fs::write(state.join(format!("block.{nonce}")), block).unwrap();
        }
        for (name, msp_id) in self.parties.names() {
            std::fs::write(state.join(format!("msp_of/peer0.{name}:7051")), msp_id).unwrap();
        }
        for (file, text) in [("count", "0\n"), ("made", "0\n"), ("fail", "0 never\n")] {
            std::fs::write(state.join(file), text).unwrap();
        }
        let enough = OsString::from((ids.len() - 1).max(1).to_string());
        std::fs::write(state.join("enough"), enough.as_encoded_bytes()).unwrap();
    }
}
