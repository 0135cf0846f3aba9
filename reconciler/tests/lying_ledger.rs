//! A ledger that lies tears nothing down: the channel freezes, what was verified last is kept in order, and a person decides.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ledger_sync::testing::{LyingPeer, MemoryNetwork};
use ledger_sync::{Ledger, frozen};
use protos::common::BlockMetadataIndex;
use protos::metadata;
use protos::peer::TxValidationCode as Code;
use providers::Provider;
use providers::memory::Memory;
use providers::registry::Registry;
use reconciler::config::Config;
use reconciler::control::{ChannelStatus, Control};
use reconciler::service::Service;
use reconciler::workplace::Workplace;
use serde_json::{Value, json};
use state::agreement::Agreement;
use state::git::Store;
use state::ids::Channel;

const CITY: &str = "CityMSP";
const ENERGY: &str = "EnergyMSP";

fn channel() -> Channel {
    "smart-city-1".parse().unwrap()
}

fn text(value: &Value) -> Vec<Vec<u8>> {
    vec![value.to_string().into_bytes()]
}

fn order(names: &[&str]) -> Vec<Vec<u8>> {
    let resource = |name: &&str| json!({ "name": name, "kind": "memory/object", "owner": "city", "spec": { "size": 2 } });
    text(&json!({ "resources": names.iter().map(resource).collect::<Vec<_>>() }))
}

async fn submit(network: &Arc<MemoryNetwork>, msp: &str, function: &str, args: Vec<Vec<u8>>) {
    network.ledger(msp).submit(&channel(), function, args).await.unwrap();
}

/// Two members, an agreement in force, and two resources.
async fn founded() -> Arc<MemoryNetwork> {
    let network = MemoryNetwork::new(&channel(), &[CITY, ENERGY]).unwrap();
    let agreement: Agreement = serde_json::from_value(json!({
        "dao": "smart-city", "version": 1,
        "parties": [
            { "member": "city", "msp": CITY, "role": "data-service-provider" },
            { "member": "energy", "msp": ENERGY, "role": "value-service-provider", "beta": "0.80" },
        ],
        "effective": { "from": "2020-01-01T00:00:00Z" },
        "limits": { "resources": 100 },
    }))
    .unwrap();
    let register = |member: &str, role: &str| text(&json!({ "member": member, "role": role }));
    submit(&network, CITY, "register", register("city", "data-service-provider")).await;
    submit(&network, ENERGY, "register", register("energy", "value-service-provider")).await;
    submit(&network, CITY, "constitute", vec![serde_json::to_vec(&agreement).unwrap()]).await;
    submit(&network, ENERGY, "accept", text(&json!({ "digest": agreement.digest().unwrap() }))).await;
    submit(&network, CITY, "order", order(&["kept", "spare"])).await;
    network
}

fn config(folder: &Path) -> Config {
    let text = r#"
        member = "city"
        [ledger]
        endpoint = "https://localhost:1"
        tls_ca = "none.pem"
        msp_id = "CityMSP"
        msp = "none"
        channels = ["smart-city-1"]
        [service]
        interval_seconds = 1
    "#;
    let path = folder.join("charter.toml");
    std::fs::write(&path, text).unwrap();
    Config::read(&path).unwrap()
}

/// The city's Charter on a ledger and on a memory.
struct City {
    config: Config,
    store: Store,
    memory: Arc<Memory>,
    network: Arc<MemoryNetwork>,
}

impl City {
    fn serve(&self, ledger: &Arc<dyn Ledger>) -> Service {
        let opened = |config: &Config| {
            Ok(Workplace {
                config: config.clone(),
                store: self.store.clone(),
                signer: self.network.signer(CITY).unwrap(),
                registry: Arc::new(Registry::new(vec![self.memory.clone() as Arc<dyn Provider>]).unwrap()),
            })
        };
        Service::start_at(&self.config, ledger, None, opened).unwrap()
    }

    fn size(&self, name: &str) -> Option<Value> {
        let found = self.memory.objects().get(&format!("smart-city-1/{name}"))?.spec.to_value();
        Some(found["size"].clone())
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to this: {what}");
}

fn of(service: &Service) -> ChannelStatus {
    service.status().borrow().channels.get(&channel()).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lie_retires_stays_until_a_person_has_looked() {
    let network = founded().await;
    let folder = tempfile::tempdir().unwrap();
    let city = City {
        config: config(folder.path()),
        store: Store::init(&folder.path().join("store.git")).unwrap(),
        memory: Arc::new(Memory::new()),
        network: network.clone(),
    };
    // A peer that calls a conflicting retirement valid, while it lies.
    let lies = Arc::new(AtomicBool::new(true));
    let lying = Arc::clone(&lies);
    let ledger: Arc<dyn Ledger> = Arc::new(LyingPeer::new(Arc::new(network.ledger(CITY)), move |block| {
        let conflicts = metadata::validation_flags(block).is_ok_and(|codes| codes.contains(&(Code::MvccReadConflict as u8)));
        if conflicts && lying.load(Ordering::SeqCst) {
            block.metadata.as_mut().unwrap().metadata[BlockMetadataIndex::TransactionsFilter as usize].fill(Code::Valid as u8);
        }
    }));
    let service = city.serve(&ledger);
    until("both are there", || city.memory.objects().len() == 2).await;
    until("it is reported", || of(&service).pass.is_some_and(|pass| pass.converged)).await;
    assert!(of(&service).rerun.unwrap().transactions >= 5);

    let more = network.draft(CITY, "order", &order(&["more"])).unwrap();
    let retirement = network.draft(CITY, "retire", &text(&json!({ "resources": ["kept"] }))).unwrap();
    network.commit(vec![more, retirement]).unwrap();
    until("the channel is frozen", || of(&service).frozen.is_some()).await;
    let why = of(&service).frozen.unwrap();
    assert!(
        why.contains("that is a conflict") && why.contains("frozen until somebody has found out why"),
        "{why}"
    );
    let desired = city.store.head(&state::paths::desired_ref(&channel())).unwrap();
    // What was verified last is kept in order.
    city.memory.set("smart-city-1/kept", "size", json!(9));
    until("drift is healed", || city.size("kept") == Some(json!(2))).await;
    city.memory.take("smart-city-1/spare");
    until("what went away is made again", || city.size("spare") == Some(json!(2))).await;
    service.stop().await;

    // A restart changes nothing, whatever the peer says now.
    lies.store(false, Ordering::SeqCst);
    let service = city.serve(&ledger);
    until("it says so after a restart", || of(&service).frozen.as_ref() == Some(&why)).await;
    city.memory.set("smart-city-1/kept", "size", json!(9));
    until("drift is healed", || city.size("kept") == Some(json!(2))).await;
    assert_eq!(city.store.head(&state::paths::desired_ref(&channel())).unwrap(), desired);
    assert_eq!(city.memory.calls().delete, 0);
    assert_eq!(city.size("more"), None);

    // A person has found out why, and the peer is honest again.
    assert_eq!(frozen::thaw(&city.store, &channel()).unwrap().unwrap().reason, why);
    Control::new(city.config.folder()).wake().unwrap();
    until("what was ordered is made", || city.size("more") == Some(json!(2))).await;
    until("it is frozen no more", || of(&service).frozen.is_none()).await;
    assert_eq!(city.size("kept"), Some(json!(2)));
    assert_eq!(city.memory.calls().delete, 0);
    service.stop().await;
}
