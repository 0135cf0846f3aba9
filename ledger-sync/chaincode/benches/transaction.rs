//! One transaction of the chaincode over a state in memory, without the ledger around it: orders among many resources, offers among many.
//!
//! `cargo bench -p chaincode --bench transaction -- [--resources N] [--offers N] [--rounds N]`. Quote the ratios of one run, never times
//! across runs. The target is 100 µs for each at 1,000 resources and 10,000 offers.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is wrong")]

use std::time::{Duration, Instant};

use chaincode::memory::MemoryState;
use chaincode::stub::{Creator, Invocation};
use serde_json::{Value, json};

/// The moment of every transaction, within the agreement's dates.
const NOW: i64 = 1_800_000_000;
/// What one transaction may take.
const TARGET: Duration = Duration::from_micros(100);

struct Sizes {
    resources: usize,
    offers: usize,
    rounds: usize,
}

fn sizes() -> Sizes {
    let mut sizes = Sizes {
        resources: 1_000,
        offers: 10_000,
        rounds: 2_000,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let field = match arg.as_str() {
            "--resources" => &mut sizes.resources,
            "--offers" => &mut sizes.offers,
            "--rounds" => &mut sizes.rounds,
            // What cargo itself passes on.
            _ => continue,
        };
        *field = args.next().and_then(|value| value.parse().ok()).unwrap_or(*field).max(1);
    }
    sizes
}

/// A channel's state, and who speaks on it.
struct Channel {
    state: MemoryState,
    transactions: u64,
}

fn creator(msp: &str) -> Creator {
    Creator {
        msp_id: msp.into(),
        // Only a report's signature is held against it.
        certificate: Vec::new(),
    }
}

fn args(function: &str, argument: &Value) -> Vec<Vec<u8>> {
    vec![function.into(), argument.to_string().into_bytes()]
}

impl Channel {
    fn run(&self, creator: &Creator, args: &[Vec<u8>]) -> chaincode::memory::Execution {
        let tx_id = format!("{:064x}", self.transactions + 1);
        let done = self.state.execute(&Invocation {
            channel: "bench",
            tx_id: &tx_id,
            seconds: NOW,
            creator,
            args,
        });
        assert_eq!(done.response.status, 200, "{}", done.response.message);
        done
    }

    fn commit(&mut self, creator: &Creator, function: &str, argument: &Value) {
        let done = self.run(creator, &args(function, argument));
        self.state.apply(&done.writes);
        self.transactions += 1;
    }

    /// The median time of a transaction that is run again and again; what it would write is dropped.
    fn median(&self, rounds: usize, creator: &Creator, args: &[Vec<u8>]) -> Duration {
        let mut times: Vec<Duration> = (0..rounds)
            .map(|_| {
                let started = Instant::now();
                let done = self.run(creator, args);
                let took = started.elapsed();
                std::hint::black_box(done);
                took
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    }
}

fn offer(name: &str) -> Value {
    json!({
        "id": name, "kind": "data-set", "title": "Air quality of every street, each minute", "keywords": ["air", "street"],
        "terms": { "beta": "0.7", "days": 365, "regions": ["eu"], "conditions": ["Only for planning of routes"] },
    })
}

fn resource(name: &str, on: &[String]) -> Value {
    json!({
        "name": name, "kind": "machine/file", "owner": "city", "depends_on": on,
        "spec": { "path": format!("etc/{name}.conf"), "content": "version = 1\n", "mode": "0640" },
    })
}

/// A channel that has both, so that neither gets slower by the other.
fn channel(sizes: &Sizes, city: &Creator, acme: &Creator) -> Channel {
    let mut channel = Channel {
        state: MemoryState::new(),
        transactions: 0,
    };
    let agreement = json!({
        "dao": "bench", "version": 1,
        "parties": [
            { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
            { "member": "acme", "msp": "AcmeMSP", "role": "value-service-provider", "beta": "0.8" },
        ],
        "effective": { "from": "2020-01-01T00:00:00Z" },
        "limits": { "resources": 100_000 },
    });
    let digest = serde_json::from_value::<state::agreement::Agreement>(agreement.clone())
        .unwrap()
        .digest()
        .unwrap();
    channel.commit(city, "register", &json!({ "member": "city", "role": "data-service-provider" }));
    channel.commit(acme, "register", &json!({ "member": "acme", "role": "value-service-provider" }));
    channel.commit(city, "constitute", &agreement);
    channel.commit(acme, "accept", &json!({ "digest": digest }));
    for n in 0..sizes.resources {
        let on = if n == 0 { vec![] } else { vec![format!("r{}", n / 2)] };
        channel.commit(city, "order", &json!({ "resources": [resource(&format!("r{n}"), &on)] }));
    }
    for n in 0..sizes.offers {
        channel.commit(city, "publish", &offer(&format!("offer-{n}")));
    }
    channel
}

fn main() {
    let sizes = sizes();
    let (city, acme) = (creator("CityMSP"), creator("AcmeMSP"));
    let channel = channel(&sizes, &city, &acme);
    println!(
        "{} resources, {} offers, {} rounds, medians",
        sizes.resources, sizes.offers, sizes.rounds
    );
    let last = format!("r{}", sizes.resources - 1);
    let middle = format!("r{}", sizes.resources / 2);
    let first = json!({ "resources": [resource("r0", &[])] });
    let order = json!({ "resources": [resource("new", &[last.clone(), middle.clone()])] });
    for (what, args) in [
        ("order a resource with two dependencies", args("order", &order)),
        ("amend a resource that others need", args("amend", &first)),
        (
            "retire a resource that nothing needs",
            args("retire", &json!({ "resources": [last] })),
        ),
        ("publish an offer", args("publish", &offer("new"))),
        ("amend an offer", args("republish", &offer("offer-0"))),
        ("withdraw an offer", args("withdraw", &json!({ "id": "offer-0" }))),
    ] {
        let took = channel.median(sizes.rounds, &city, &args);
        println!(
            "{what:<42} {:>8.1} µs   {:>5.2} of the target of 100 µs",
            took.as_nanos() as f64 / 1_000.0,
            took.as_nanos() as f64 / TARGET.as_nanos() as f64
        );
    }
}
