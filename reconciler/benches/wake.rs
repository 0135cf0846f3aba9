//! From a commit on the ledger to the first calls of a provider, through a real server, the follower, the store and a whole pass.
//!
//! `cargo bench -p reconciler --bench wake -- [--orders N]`. A second reader of the same stream tells when a block could be had: what
//! comes before is the ledger's own delay. The target is 10 ms at the median to the first call. What was taken in is durable before
//! a provider is called, so a disk that flushes slowly decides the figure: its own is printed beside it, and `TMPDIR=/dev/shm`
//! leaves it out.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is wrong")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use embedded::{MemberSpec, NetworkSpec, Server};
use futures::StreamExt;
use ledger_sync::gateway::Timeouts;
use ledger_sync::{GatewayClient, GatewayConfig, Ledger, PeerConfig, Pending};
use msp::PemSigner;
use providers::memory::Memory;
use providers::registry::Registry;
use providers::{Applied, Deleted, Invalid, Observed, Provider, ProviderError, Scope, Script, Wanted};
use reconciler::config::Config;
use reconciler::service::Service;
use reconciler::workplace::Workplace;
use serde_json::{Value, json};
use state::agreement::Agreement;
use state::ids::{Channel, Kind, ResourceName};
use state::resource::Resource;

const TARGET: Duration = Duration::from_millis(10);
/// How long nothing happens before the next order.
const QUIET: Duration = Duration::from_millis(400);

/// When a provider was called.
#[derive(Default)]
struct Calls {
    observed: Vec<Instant>,
    applied: Vec<Instant>,
}

/// A provider that notes when it is called.
struct Noted {
    inner: Memory,
    calls: Arc<Mutex<Calls>>,
}

#[async_trait]
impl Provider for Noted {
    fn kinds(&self) -> Vec<Kind> {
        self.inner.kinds()
    }

    fn validate(&self, resource: &Resource) -> Result<(), Invalid> {
        self.inner.validate(resource)
    }

    fn external(&self, scope: &Scope, resource: &Resource) -> String {
        self.inner.external(scope, resource)
    }

    fn render(&self, scope: &Scope, resource: &Resource) -> Result<Vec<Script>, Invalid> {
        self.inner.render(scope, resource)
    }

    async fn observe(&self, scope: &Scope, wanted: &[Wanted<'_>]) -> Observed {
        self.calls.lock().unwrap().observed.push(Instant::now());
        self.inner.observe(scope, wanted).await
    }

    async fn apply(&self, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
        self.calls.lock().unwrap().applied.push(Instant::now());
        self.inner.apply(scope, resource).await
    }

    async fn delete(&self, scope: &Scope, kind: &Kind, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
        self.inner.delete(scope, kind, name, external).await
    }

    async fn release(&self, scope: &Scope, kind: &Kind, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
        self.inner.release(scope, kind, name, external).await
    }
}

fn main() {
    let mut orders = 50;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--orders" {
            orders = args.next().and_then(|value| value.parse().ok()).unwrap_or(orders).max(1);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (observed, applied) = runtime.block_on(measure(orders));
    println!("{orders} orders, one at a time, on a quiet channel; from a block that can be had to");
    let flush = percentile(&flushes(), 50);
    for (what, times) in [("the first call of a provider", observed), ("the first change", applied)] {
        let (p50, p95) = (percentile(&times, 50), percentile(&times, 95));
        println!(
            "{what:<30} p50 {:>6.2} ms ({:>4.2} of the target), p95 {:>6.2} ms",
            p50.as_secs_f64() * 1e3,
            p50.as_secs_f64() / TARGET.as_secs_f64(),
            p95.as_secs_f64() * 1e3
        );
    }
    println!("one flush of a small file here p50 {:>6.2} ms", flush.as_secs_f64() * 1e3);
}

/// How long it takes to make a small file durable where the store was.
fn flushes() -> Vec<Duration> {
    let place = tempfile::tempdir().unwrap();
    (0..40)
        .map(|n| {
            let started = Instant::now();
            let mut file = std::fs::File::create(place.path().join(n.to_string())).unwrap();
            std::io::Write::write_all(&mut file, &[7; 2_000]).unwrap();
            file.sync_all().unwrap();
            started.elapsed()
        })
        .collect()
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

async fn measure(orders: usize) -> (Vec<Duration>, Vec<Duration>) {
    let place = tempfile::tempdir().unwrap();
    let channel: Channel = "bench-1".parse().unwrap();
    let members = ["city", "energy"].map(|name| MemberSpec {
        name: name.into(),
        msp_id: msp_of(name),
    });
    let ledger = embedded::Ledger::init(&place.path().join("ledger"), &NetworkSpec { members: members.into() }).unwrap();
    ledger.create_channel(channel.as_str(), &["city", "energy"]).unwrap();
    for name in ["city", "energy"] {
        ledger.export_identity(name, &place.path().join(name)).unwrap();
    }
    let server = Server::bind(ledger, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let client = |name: &str| -> Arc<dyn Ledger> { Arc::new(connect(&place.path().join(name), name, &server)) };
    let (city, energy) = (client("city"), client("energy"));
    agree(&city, &energy, &channel).await;

    let folder = place.path().join("city");
    let config = format!(
        "member = \"city\"\n[ledger]\nendpoint = \"{}\"\ntls_ca = \"tls-ca.pem\"\nmsp_id = \"CityMSP\"\nmsp = \"msp\"\nchannels = \
         [\"bench-1\"]\n[service]\ninterval_seconds = 3600\n",
        endpoint(&server)
    );
    std::fs::write(folder.join("charter.toml"), config).unwrap();
    let config = Config::read(&folder.join("charter.toml")).unwrap();
    let calls = Arc::new(Mutex::new(Calls::default()));
    let noted: Arc<dyn Provider> = Arc::new(Noted {
        inner: Memory::new(),
        calls: Arc::clone(&calls),
    });
    let service = Service::start_at(&config, &client("city"), None, |config| {
        let mut place = Workplace::open(config)?;
        place.registry = Arc::new(Registry::new(vec![noted]).expect("there is one provider"));
        Ok(place)
    })
    .unwrap();
    let mut status = service.status();
    let converged = |status: &reconciler::control::ServiceStatus| {
        let pass = status.channels.get(&channel).and_then(|one| one.pass.as_ref());
        pass.is_some_and(|pass| pass.converged && pass.error.is_none())
    };
    status.wait_for(converged).await.unwrap();

    let height = city.height(&channel).await.unwrap();
    let mut blocks = energy.blocks(&channel, height).await.unwrap();
    let (mut observed, mut applied) = (Vec::new(), Vec::new());
    for n in 0..orders {
        tokio::time::sleep(QUIET).await;
        // What a report brought is read past.
        while tokio::time::timeout(Duration::ZERO, blocks.next()).await.is_ok() {}
        *calls.lock().unwrap() = Calls::default();
        let resource = json!({ "name": format!("r{n}"), "kind": "memory/object", "owner": "city", "spec": { "input": n } });
        let order = json!({ "resources": [resource] }).to_string().into_bytes();
        let submitting = energy.submit(&channel, "order", vec![order]);
        let (block, done) = tokio::join!(
            async {
                blocks.next().await.unwrap().unwrap();
                Instant::now()
            },
            submitting
        );
        done.unwrap();
        let (first, change) = loop {
            let both = {
                let calls = calls.lock().unwrap();
                calls.observed.first().copied().zip(calls.applied.first().copied())
            };
            if let Some(both) = both {
                break both;
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        };
        observed.push(first.saturating_duration_since(block));
        applied.push(change.saturating_duration_since(block));
    }
    service.stop().await;
    server.stop().await.unwrap();
    (observed, applied)
}

fn msp_of(name: &str) -> String {
    format!("{}{}MSP", name[..1].to_uppercase(), &name[1..])
}

fn endpoint(server: &Server) -> String {
    format!("https://localhost:{}", server.address().port())
}

fn connect(folder: &Path, name: &str, server: &Server) -> GatewayClient {
    let config = GatewayConfig {
        peers: vec![PeerConfig {
            endpoint: endpoint(server),
            tls_ca_pem: std::fs::read(folder.join("tls-ca.pem")).unwrap(),
            server_name: None,
        }],
        client_tls: None,
        timeouts: Timeouts::default(),
        pending: Pending::new(folder.join("pending")),
    };
    let signer = PemSigner::from_msp_dir(&folder.join("msp"), &msp_of(name)).unwrap();
    GatewayClient::connect(config, Arc::new(signer)).unwrap()
}

async fn agree(city: &Arc<dyn Ledger>, energy: &Arc<dyn Ledger>, channel: &Channel) {
    let text = |value: &Value| vec![value.to_string().into_bytes()];
    let agreement = json!({
        "dao": "bench", "version": 1,
        "parties": [
            { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
            { "member": "energy", "msp": "EnergyMSP", "role": "value-service-provider", "beta": "0.80" },
        ],
        "effective": { "from": "2020-01-01T00:00:00Z" },
    });
    let parsed: Agreement = serde_json::from_value(agreement.clone()).unwrap();
    for (ledger, name, role) in [
        (city, "city", "data-service-provider"),
        (energy, "energy", "value-service-provider"),
    ] {
        let argument = text(&json!({ "member": name, "role": role }));
        ledger.submit(channel, "register", argument).await.unwrap();
    }
    city.submit(channel, "constitute", text(&agreement)).await.unwrap();
    let digest = json!({ "digest": parsed.digest().unwrap() });
    energy.submit(channel, "accept", text(&digest)).await.unwrap();
}
