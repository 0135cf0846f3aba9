//! Fabric's processes: what they are configured with, and their lives.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Organisation;
use crate::http;
use crate::serving::Running;
use crate::wait::until;

/// How much of a log a failing test repeats.
const LAST_LINES: usize = 40;

/// Where a process can be asked whether it is well.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    /// The ports that it listens on.
    pub(super) ports: Vec<u16>,
    /// The one on which it tells how it is, if it does.
    pub(super) operations: Option<u16>,
}

impl Endpoints {
    fn look(&self) -> Result<(), String> {
        for port in &self.ports {
            TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).map_err(|error| format!("port {port}: {error}"))?;
        }
        let Some(operations) = self.operations else { return Ok(()) };
        match http::get(&format!("127.0.0.1:{operations}"), "/healthz")? {
            answer if answer.status == 200 => Ok(()),
            answer => Err(format!("{} {}", answer.status, answer.body)),
        }
    }
}

/// One process of a network, which can be killed and comes back as what it was.
#[derive(Debug)]
pub struct Node {
    name: String,
    folder: PathBuf,
    endpoints: Endpoints,
    starts: usize,
    running: Option<Running>,
}

impl Node {
    pub(super) fn new(name: &str, folder: PathBuf, endpoints: Endpoints) -> Self {
        Self {
            name: name.to_owned(),
            folder,
            endpoints,
            starts: 0,
            running: None,
        }
    }

    /// Starts it, unless it runs, and does not wait for it.
    pub(super) fn launch(&mut self, command: Command) {
        if self.running.as_mut().is_some_and(Running::runs) {
            return;
        }
        self.starts += 1;
        let log = |end: &str| self.folder.join(format!("{}-{}.{end}", self.name, self.starts));
        self.running = Some(Running::start(command, log("out"), log("err")));
    }

    /// Waits until it listens on its ports and says that it is well.
    ///
    /// # Panics
    /// With its log, when it isn't in time.
    #[track_caller]
    pub(super) fn ready(&mut self) {
        until(&format!("{} is up", self.name), || {
            let running = self.running.as_mut().ok_or("it was not started")?;
            if !running.runs() {
                panic!("{} ended:\n{}", self.name, tail(&running.stderr()));
            }
            self.endpoints.look().map_err(|why| format!("{why}\n{}", tail(&running.stderr())))
        });
    }

    /// Kills it at once, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The end of what it has said since it was started last.
    pub fn log(&self) -> String {
        self.running.as_ref().map(|running| tail(&running.stderr())).unwrap_or_default()
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// Where a peer keeps everything, and the builder that it uses.
pub(super) struct PeerPlace<'a> {
    /// The folder of its blocks and state.
    pub(super) data: &'a Path,
    /// The folder of the external builder.
    pub(super) builder: &'a Path,
    /// Whom it lets speak to it.
    pub(super) clients: Clients,
    /// The first number of its release, where it tells one.
    pub(super) major: Option<u32>,
}

/// Which TLS clients peers let speak to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Everybody who knows its authority.
    All,
    /// Those with a certificate from an authority of one of its channels, or of its own organisation: mutual TLS.
    Certified,
}

/// A peer's `core.yaml`. The program `peer` reads it as a client, too.
pub(super) fn core_yaml(organisation: &Organisation, place: &PeerPlace<'_>) -> String {
    let Organisation {
        port, operations, msp_id, ..
    } = organisation;
    let name = format!("peer0.{}", organisation.domain());
    let crypto = organisation.peer();
    let (crypto, data, builder) = (crypto.display(), place.data.display(), place.builder.display());
    let chaincode_listen = super::ports::free();
    let certified = place.clients == Clients::Certified;
    // What a release's own file has. A peer doesn't start with a filter that it doesn't know.
    let window = if place.major.is_some_and(|major| major >= 3) {
        ", { name: TimeWindowCheck }"
    } else {
        ""
    };
    // Short intervals where a test would otherwise wait for gossip to notice what was killed.
    format!(
        "peer:
  id: {name}
  networkId: charter-test
  listenAddress: 127.0.0.1:{port}
  address: 127.0.0.1:{port}
  chaincodeListenAddress: 127.0.0.1:{chaincode_listen}
  localMspId: {msp_id}
  mspConfigPath: {crypto}/msp
  fileSystemPath: {data}
  gateway: {{ enabled: true, endorsementTimeout: 30s, broadcastTimeout: 30s, dialTimeout: 10s }}
  keepalive: {{ minInterval: 60s }}
  gossip:
    bootstrap: 127.0.0.1:{port}
    endpoint: 127.0.0.1:{port}
    externalEndpoint: 127.0.0.1:{port}
    useLeaderElection: false
    orgLeader: true
    aliveTimeInterval: 1s
    aliveExpirationTimeout: 5s
    reconnectInterval: 2s
    publishStateInfoInterval: 1s
    requestStateInfoInterval: 1s
    state: {{ enabled: false }}
  tls:
    enabled: true
    clientAuthRequired: {certified}
    clientRootCAs: {{ files: [{crypto}/tls/ca.crt] }}
    cert: {{ file: {crypto}/tls/server.crt }}
    key: {{ file: {crypto}/tls/server.key }}
    rootcert: {{ file: {crypto}/tls/ca.crt }}
    clientCert: {{ file: {crypto}/tls/server.crt }}
    clientKey: {{ file: {crypto}/tls/server.key }}
  BCCSP: {{ Default: SW, SW: {{ Hash: SHA2, Security: 256 }} }}
  deliveryclient: {{ reconnectTotalTimeThreshold: 3600s, reConnectBackoffThreshold: 2s, connTimeout: 3s }}
  discovery: {{ enabled: true, authCacheEnabled: true, authCacheMaxSize: 1000, authCachePurgeRetentionRatio: 0.75 }}
  handlers:
    authFilters: [{{ name: DefaultAuth }}, {{ name: ExpirationCheck }}{window}]
    decorators: [{{ name: DefaultDecorator }}]
    endorsers: {{ escc: {{ name: DefaultEndorsement }} }}
    validators: {{ vscc: {{ name: DefaultValidation }} }}
vm: {{ endpoint: '' }}
chaincode:
  externalBuilders: [{{ name: ccaas, path: {builder} }}]
  installTimeout: 60s
  startuptimeout: 20s
  executetimeout: 30s
  mode: net
  system: {{ _lifecycle: enable, cscc: enable, lscc: enable, qscc: enable }}
  logging: {{ level: info, shim: warning }}
ledger:
  state: {{ stateDatabase: goleveldb, totalQueryLimit: 100000 }}
  history: {{ enableHistoryDatabase: true }}
  snapshots: {{ rootDir: {data}/snapshots }}
operations: {{ listenAddress: '127.0.0.1:{operations}' }}
metrics: {{ provider: disabled }}
"
    )
}

/// The ports of an orderer.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrdererPorts {
    /// For clients and peers.
    pub(super) listen: u16,
    /// For `osnadmin`.
    pub(super) admin: u16,
    /// On which it tells how it is.
    pub(super) operations: u16,
}

impl OrdererPorts {
    pub(super) fn endpoints(self) -> Endpoints {
        Endpoints {
            ports: vec![self.listen, self.admin],
            operations: Some(self.operations),
        }
    }
}

/// An orderer's `orderer.yaml`.
pub(super) fn orderer_yaml(crypto: &Path, data: &Path, ports: OrdererPorts) -> String {
    let OrdererPorts { listen, admin, operations } = ports;
    let (crypto, data) = (crypto.display(), data.display());
    format!(
        "General:
  ListenAddress: 127.0.0.1
  ListenPort: {listen}
  BootstrapMethod: none
  LocalMSPID: OrdererMSP
  LocalMSPDir: {crypto}/msp
  TLS:
    Enabled: true
    PrivateKey: {crypto}/tls/server.key
    Certificate: {crypto}/tls/server.crt
    RootCAs: [{crypto}/tls/ca.crt]
  Cluster:
    ClientCertificate: {crypto}/tls/server.crt
    ClientPrivateKey: {crypto}/tls/server.key
    RootCAs: [{crypto}/tls/ca.crt]
FileLedger: {{ Location: {data} }}
Consensus: {{ WALDir: {data}/wal, SnapDir: {data}/snapshot }}
ChannelParticipation: {{ Enabled: true, MaxRequestBodySize: 1 MB }}
Admin: {{ ListenAddress: '127.0.0.1:{admin}' }}
Operations: {{ ListenAddress: '127.0.0.1:{operations}' }}
Metrics: {{ Provider: disabled }}
"
    )
}
