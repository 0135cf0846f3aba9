//! A whole network: it starts, gets channels, and lets each of its processes be killed and come back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::node::{self, OrdererPorts, PeerPlace};
use super::{Binaries, Clients, Node, Organisation, builder, channel, organisation, ports};
use crate::World;
use crate::command::{self, Ended};
use crate::wait::until;

/// How long one of Fabric's commands may take.
const COMMAND: Duration = Duration::from_secs(90);
/// How Fabric writes its logs: plainly.
const LOG_FORMAT: &str = "%{time:15:04:05.000} %{level:.4s} [%{module}] %{message}";

/// An orderer, and a peer for each member of the example.
pub struct Network<'a> {
    pub(super) world: &'a World,
    pub(super) binaries: Binaries,
    folder: PathBuf,
    organisations: Vec<Organisation>,
    pub(super) orderer_ports: OrdererPorts,
    pub(super) clients: Clients,
    orderer: Node,
    peers: BTreeMap<String, Node>,
    pub(super) chaincodes: BTreeMap<String, Node>,
    /// The ids of the members' packages, as their peers know them.
    pub(super) packages: BTreeMap<String, String>,
}

impl<'a> Network<'a> {
    /// Starts the processes of the example's members, and waits until all are well. There are no channels yet.
    ///
    /// # Panics
    /// When one doesn't start.
    #[track_caller]
    pub fn start(world: &'a World, binaries: &Binaries) -> Self {
        Self::start_for(world, binaries, Clients::All)
    }

    /// Does what [`start`](Self::start) does, with peers that let only some speak to them.
    #[track_caller]
    pub fn start_for(world: &'a World, binaries: &Binaries, clients: Clients) -> Self {
        let folder = world.root().join("fabric");
        let crypto = folder.join("crypto");
        std::fs::create_dir_all(folder.join("orderer")).expect("the world's folder can be written");
        let example = reconciler::network::Network::read(&crate::world::smart_city()).expect("the example can be read");
        let organisations: Vec<Organisation> = example.members.iter().map(|member| Organisation::new(member, &crypto)).collect();
        let orderer_ports = OrdererPorts {
            listen: ports::free(),
            admin: ports::free(),
            operations: ports::free(),
        };
        let peer = |one: &Organisation| {
            let node = Node::new(&format!("peer-{}", one.member), folder.clone(), one.endpoints());
            (one.member.clone(), node)
        };
        let mut network = Self {
            world,
            binaries: binaries.clone(),
            orderer: Node::new("orderer", folder.clone(), orderer_ports.endpoints()),
            peers: organisations.iter().map(peer).collect(),
            chaincodes: BTreeMap::new(),
            packages: BTreeMap::new(),
            orderer_ports,
            organisations,
            folder,
            clients,
        };
        network.configure(&crypto);
        network.start_orderer();
        for member in network.members() {
            network.launch_peer(&member);
        }
        for peer in network.peers.values_mut() {
            peer.ready();
        }
        network.orderer.ready();
        network
    }

    fn configure(&self, crypto: &Path) {
        let config = self.write("crypto.yaml", &organisation::crypto_config(&self.organisations));
        let mut generate = self.command("cryptogen");
        generate.arg("generate").arg("--config").arg(config).arg("--output").arg(crypto);
        command::run(generate, COMMAND).exits(0);
        let orderer = self.folder.join("orderer");
        let yaml = node::orderer_yaml(&organisation::orderer(crypto), &orderer.join("data"), self.orderer_ports);
        self.write("orderer/orderer.yaml", &yaml);
        let builder = self.folder.join("ccaas");
        builder::write(&builder);
        let release = self.binaries.release();
        let major = release.and_then(|release| release.split('.').next()?.parse().ok());
        for one in &self.organisations {
            let data = self.peer_folder(&one.member).join("data");
            let place = PeerPlace {
                data: &data,
                builder: &builder,
                clients: self.clients,
                major,
            };
            self.write(&format!("{}/core.yaml", one.member), &node::core_yaml(one, &place));
        }
    }

    /// Makes a channel with these members of the example, and has their peers join it.
    ///
    /// # Panics
    /// When one of Fabric's programs refuses.
    #[track_caller]
    pub fn channel(&self, name: &str, members: &[&str]) {
        let organisations: Vec<&Organisation> = members.iter().map(|member| self.organisation(member)).collect();
        let yaml = channel::configtx(&organisations, &self.crypto(), self.orderer_ports.listen);
        self.write(&format!("{name}/configtx.yaml"), &yaml);
        let block = self.folder.join(name).join("genesis.block");
        let mut generate = self.command("configtxgen");
        generate.env("FABRIC_CFG_PATH", self.folder.join(name));
        generate
            .args(["-profile", channel::PROFILE, "-channelID", name, "-outputBlock"])
            .arg(&block);
        command::run(generate, COMMAND).exits(0);
        let mut join = self.command("osnadmin");
        join.args(["channel", "join", "--channelID", name, "--config-block"]).arg(&block);
        join.args(["-o", &format!("127.0.0.1:{}", self.orderer_ports.admin)]);
        command::run(join, COMMAND).exits(0).says(&["Status: 201"]);
        for member in members {
            let block = block.display().to_string();
            self.peer(member, &["channel", "join", "-b", &block]).exits(0);
        }
        until(&format!("the orderer leads {name}"), || {
            let info = self.peer(members[0], &["channel", "getinfo", "-c", name]);
            let mut list = self.command("osnadmin");
            list.args(["channel", "list", "--channelID", name]);
            list.args(["-o", &format!("127.0.0.1:{}", self.orderer_ports.admin)]);
            let listed = command::run(list, COMMAND);
            match listed.stdout.contains("\"active\"") && info.code == Some(0) {
                true => Ok(()),
                false => Err(format!("{listed}\n{info}")),
            }
        });
    }

    /// Runs Fabric's `peer` as a member's administrator.
    #[track_caller]
    pub fn peer(&self, member: &str, words: &[&str]) -> Ended {
        let mut peer = self.command("peer");
        peer.env("FABRIC_CFG_PATH", self.peer_folder(member));
        peer.env("CORE_PEER_MSPCONFIGPATH", self.organisation(member).admin());
        peer.args(words);
        command::run(peer, COMMAND)
    }

    /// The words with which `peer` is told where the orderer is.
    pub(super) fn at_the_orderer(&self) -> Vec<String> {
        let ca = organisation::orderer(&self.crypto()).join("tls/ca.crt");
        let address = format!("127.0.0.1:{}", self.orderer_ports.listen);
        let host = channel::orderer_host();
        [
            "-o",
            &address,
            "--ordererTLSHostnameOverride",
            &host,
            "--tls",
            "--cafile",
            &ca.display().to_string(),
        ]
        .map(str::to_owned)
        .into()
    }

    /// A member's organisation.
    ///
    /// # Panics
    /// When there is no such member.
    #[track_caller]
    pub fn organisation(&self, member: &str) -> &Organisation {
        let found = self.organisations.iter().find(|one| one.member == member);
        found.expect("the member takes part in the example")
    }

    /// The names of the members.
    pub fn members(&self) -> Vec<String> {
        self.organisations.iter().map(|one| one.member.clone()).collect()
    }

    /// The folder that everything is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills the orderer at once.
    pub fn kill_orderer(&mut self) {
        self.orderer.kill();
    }

    /// Starts the orderer where it was, and waits until it is well.
    #[track_caller]
    pub fn start_orderer(&mut self) {
        let mut command = self.command("orderer");
        command.env("FABRIC_CFG_PATH", self.folder.join("orderer"));
        self.orderer.launch(command);
        self.orderer.ready();
    }

    /// Kills a member's peer at once.
    ///
    /// # Panics
    /// When there is no such member.
    #[track_caller]
    pub fn kill_peer(&mut self, member: &str) {
        self.peers.get_mut(member).expect("every member has a peer").kill();
    }

    /// Starts a member's peer where it was, and waits until it is well.
    #[track_caller]
    pub fn start_peer(&mut self, member: &str) {
        self.launch_peer(member);
        self.peers.get_mut(member).expect("every member has a peer").ready();
    }

    fn launch_peer(&mut self, member: &str) {
        let mut command = self.command("peer");
        command.env("FABRIC_CFG_PATH", self.peer_folder(member)).args(["node", "start"]);
        self.peers.get_mut(member).expect("every member has a peer").launch(command);
    }

    /// One of Fabric's programs in this world.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = self.world.bare_command(self.binaries.program(program));
        command
            .current_dir(&self.folder)
            .env("FABRIC_LOGGING_SPEC", "info")
            .env("FABRIC_LOGGING_FORMAT", LOG_FORMAT);
        command
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        let parent = path.parent().expect("it is below the network's folder");
        std::fs::create_dir_all(parent).expect("the world's folder can be written");
        std::fs::write(&path, text).expect("the world's folder can be written");
        path
    }

    pub(super) fn crypto(&self) -> PathBuf {
        self.folder.join("crypto")
    }

    fn peer_folder(&self, member: &str) -> PathBuf {
        self.folder.join(member)
    }
}
