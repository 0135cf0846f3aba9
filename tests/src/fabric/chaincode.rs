//! Charter's chaincode on a network: packaged, installed, agreed on, and served beside each peer.

use std::time::Duration;

use super::node::Endpoints;
use super::{Network, Node};
use crate::command::{self, Ended};
use crate::wait::until;

/// The chaincode's name on every channel.
const NAME: &str = chaincode::NAME;
/// How long packaging may take.
const PACKAGE: Duration = Duration::from_secs(30);

impl Network<'_> {
    /// Packages the chaincode for each member's peer, installs it there and serves it.
    ///
    /// # Panics
    /// When a peer refuses it, or a server doesn't start.
    #[track_caller]
    pub fn install_chaincode(&mut self) {
        for member in self.members() {
            let (path, id) = self.package(&member);
            let installed = self.peer(&member, &["lifecycle", "chaincode", "install", &path]).exits(0);
            installed.says(&[&id]);
            self.packages.insert(member.clone(), id);
            self.start_chaincode(&member);
        }
    }

    /// Has the members of a channel approve the chaincode's definition, and commits it.
    ///
    /// # Panics
    /// When it is not approved, or not committed.
    #[track_caller]
    pub fn commit_chaincode(&self, channel: &str, members: &[&str]) {
        let definition = definition(channel);
        for member in members {
            self.approve_chaincode(channel, member).exits(0);
        }
        let at = self.at_the_orderer();
        let peers: Vec<String> = members.iter().flat_map(|member| self.at_the_peer(member)).collect();
        let mut words = vec!["lifecycle", "chaincode", "commit"];
        words.extend(at.iter().chain(&peers).map(String::as_str));
        words.extend(definition);
        // An approval is known to the other peers a moment after its own.
        until(&format!("the chaincode is committed on {channel}"), || {
            let committed = self.peer(members[0], &words);
            match committed.code {
                Some(0) => Ok(()),
                _ => Err(committed),
            }
        });
        for member in members {
            until(&format!("{member}'s peer knows the chaincode on {channel}"), || {
                let known = self.peer(member, &["lifecycle", "chaincode", "querycommitted", "-C", channel, "-n", NAME]);
                match known.code {
                    Some(0) => Ok(()),
                    _ => Err(known),
                }
            });
        }
    }

    /// Has one member approve the chaincode's definition, with its own package.
    #[track_caller]
    pub(super) fn approve_chaincode(&self, channel: &str, member: &str) -> Ended {
        let id = self.package_id(member);
        let at = self.at_the_orderer();
        let mut words = vec!["lifecycle", "chaincode", "approveformyorg"];
        words.extend(at.iter().map(String::as_str));
        words.extend(definition(channel));
        words.extend(["--package-id", &id]);
        self.peer(member, &words)
    }

    /// Starts a member's chaincode server where it was, and waits until it is well.
    #[track_caller]
    pub fn start_chaincode(&mut self, member: &str) {
        let address = self.chaincode_address(member);
        let id = self.package_id(member);
        let mut serve = self.world.bare_command(crate::world::binary());
        serve.args(["chaincode", "serve"]);
        serve.env("CHAINCODE_ID", id).env("CHAINCODE_SERVER_ADDRESS", &address);
        if self.speaks_tls(member) {
            let organisation = self.organisation(member);
            let tls = organisation.peer().join("tls");
            serve.env("CHAINCODE_TLS_CERT", tls.join("server.crt"));
            serve.env("CHAINCODE_TLS_KEY", tls.join("server.key"));
            serve.env("CHAINCODE_CLIENT_CA_CERT", organisation.tls_ca());
        }
        let endpoints = Endpoints {
            ports: vec![self.organisation(member).chaincode],
            operations: None,
        };
        let folder = self.folder().to_owned();
        let new = || Node::new(&format!("chaincode-{member}"), folder, endpoints);
        let node = self.chaincodes.entry(member.to_owned()).or_insert_with(new);
        node.launch(serve);
        node.ready();
    }

    /// Kills a member's chaincode server at once.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    pub fn kill_chaincode(&mut self, member: &str) {
        self.chaincodes.get_mut(member).expect("the chaincode was installed").kill();
    }

    /// Where a member's chaincode server listens.
    fn chaincode_address(&self, member: &str) -> String {
        format!("127.0.0.1:{}", self.organisation(member).chaincode)
    }

    /// Whether a member's peer speaks mutual TLS with its chaincode: the first one does, the others don't, as both have to work.
    fn speaks_tls(&self, member: &str) -> bool {
        self.members().first().is_some_and(|first| first == member)
    }

    /// Packages the chaincode for a member's peer: the package's path, and its id.
    #[track_caller]
    pub(super) fn package(&self, member: &str) -> (String, String) {
        let path = self.folder().join(format!("{member}.tgz")).display().to_string();
        let mut package = self.world.bare_command(crate::world::binary());
        package.args([
            "chaincode",
            "package",
            "--label",
            NAME,
            "--address",
            &self.chaincode_address(member),
            "--out",
            &path,
        ]);
        if self.speaks_tls(member) {
            let organisation = self.organisation(member);
            let tls = organisation.client_tls();
            package.arg("--tls-ca").arg(organisation.tls_ca());
            package.arg("--client-cert").arg(tls.join("client.crt"));
            package.arg("--client-key").arg(tls.join("client.key"));
        }
        let made = command::run(package, PACKAGE).exits(0);
        (path, made.stdout.trim().to_owned())
    }

    /// The name by which a member's peer knows its package.
    #[track_caller]
    fn package_id(&self, member: &str) -> String {
        self.packages.get(member).expect("the chaincode was installed").clone()
    }

    /// The words with which `peer` is told of one more peer.
    fn at_the_peer(&self, member: &str) -> [String; 4] {
        let organisation = self.organisation(member);
        let ca = organisation.tls_ca().display().to_string();
        ["--peerAddresses".into(), organisation.address(), "--tlsRootCertFiles".into(), ca]
    }
}

/// The chaincode's definition on a channel, as words for `peer`.
fn definition(channel: &str) -> [&str; 8] {
    ["--channelID", channel, "--name", NAME, "--version", "1", "--sequence", "1"]
}
