//! The same transactions through a stream and in-process: the same answers, writes and events.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use ccaas::{Dial, External, Options, Server};
use chaincode::memory::{MemoryState, Writes};
use chaincode::stub::{Creator, Response, Stub, StubError};
use msp::{CertificateAuthority, Enrolment, Role};
use proptest::prelude::*;
use prost::Message;
use protos::common::Block;
use protos::msp::SerializedIdentity;
use protos::peer::{ChaincodeActionPayload, Proposal, SignedProposal, Transaction};
use protos::{envelope, metadata};
use serde_json::{Value, json};
use state::agreement::Agreement;
use tokio::runtime::Runtime;

use crate::peer::PACKAGE;
use crate::proposals::{NOW, Proposed};

/// A ledger's stub: over values as they are, and what one transaction does with them.
#[derive(Default)]
struct Recorder<'a> {
    values: Option<&'a BTreeMap<String, Vec<u8>>>,
    writes: Writes,
    event: Option<(String, Vec<u8>)>,
}

impl Stub for Recorder<'_> {
    fn get_state(&mut self, key: &str) -> Result<Option<Vec<u8>>, StubError> {
        Ok(self.values.and_then(|values| values.get(key).cloned()))
    }

    fn get_state_by_range(&mut self, start: &str, end: &str) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        let all = self.values.into_iter().flatten();
        let inside = all.filter(|(key, _)| key.as_str() >= start && key.as_str() < end);
        Ok(inside.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn put_state(&mut self, key: &str, value: Vec<u8>) {
        self.writes.insert(key.to_owned(), Some(value));
    }

    fn del_state(&mut self, key: &str) {
        self.writes.insert(key.to_owned(), None);
    }

    fn set_event(&mut self, name: &str, payload: Vec<u8>) {
        self.event = Some((name.to_owned(), payload));
    }
}

/// A server of the agreement's program.
struct Serving {
    runtime: Runtime,
    server: Server,
}

static SERVING: LazyLock<Serving> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::bind("127.0.0.1:0", Options::new(PACKAGE))).unwrap();
    Serving { runtime, server }
});

/// A peer's side of it, with a stream of its own.
fn dialled() -> External {
    External::new(Dial::new(SERVING.server.address().to_string())).unwrap()
}

type Done = (Response, Writes, Option<(String, Vec<u8>)>);

/// Runs a transaction through the stream.
fn streamed(external: &External, values: &BTreeMap<String, Vec<u8>>, proposed: &Proposed) -> Done {
    let _entered = SERVING.runtime.enter();
    let mut stub = Recorder {
        values: Some(values),
        ..Recorder::default()
    };
    let response = external.run(&mut stub, &proposed.invocation(), &proposed.signed);
    (response, stub.writes, stub.event)
}

/// Runs a transaction both ways, demands the same, and takes in what it writes.
fn both(external: &External, state: &mut MemoryState, proposed: &Proposed) -> Done {
    let values = state.iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect();
    let here = state.execute(&proposed.invocation());
    let there = streamed(external, &values, proposed);
    assert_eq!(there, (here.response, here.writes.clone(), here.event));
    state.apply(&here.writes);
    there
}

static CREATORS: LazyLock<[Creator; 3]> = LazyLock::new(|| {
    ["CityMSP", "AcmeMSP", "EveMSP"].map(|msp_id| {
        let authority = CertificateAuthority::create(msp_id, "ca", NOW).unwrap();
        let enrolment = Enrolment::Member {
            name: "charter",
            role: Role::Client,
        };
        let issued = authority.enrol(msp_id, &enrolment, NOW).unwrap();
        Creator {
            msp_id: msp_id.into(),
            certificate: issued.certificate_pem.into_bytes(),
        }
    })
});

fn agreement() -> Value {
    json!({
        "dao": "air-quality",
        "version": 1,
        "parties": [
            { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
            { "member": "acme", "msp": "AcmeMSP", "role": "value-service-provider", "beta": "0.8" },
        ],
        "effective": { "from": "2026-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z" },
        "limits": { "resources": 500 },
    })
}

fn call(number: u64, by: usize, function: &str, argument: &Value) -> Proposed {
    let args = [function.as_bytes().to_vec(), argument.to_string().into_bytes()];
    Proposed::new(number, &CREATORS[by], &args)
}

/// What makes an agreement between the first two members.
fn agreed() -> Vec<Proposed> {
    let digest = serde_json::from_value::<Agreement>(agreement()).unwrap().digest().unwrap();
    vec![
        call(1, 0, "register", &json!({ "member": "city", "role": "data-service-provider" })),
        call(2, 1, "register", &json!({ "member": "acme", "role": "value-service-provider" })),
        call(3, 0, "constitute", &agreement()),
        call(4, 1, "accept", &json!({ "digest": digest })),
    ]
}

fn resource(name: &str, owner: &str, depends_on: &[String]) -> Value {
    json!({ "name": name, "kind": "machine/file", "owner": owner, "depends_on": depends_on })
}

#[test]
fn an_agreements_life_is_the_same_through_a_stream() {
    let external = dialled();
    let mut state = MemoryState::new();
    let mut number = 10;
    for proposed in agreed() {
        assert_eq!(both(&external, &mut state, &proposed).0.status, 200);
    }
    let mut done = |by: usize, function: &str, argument: &Value| {
        number += 1;
        both(&external, &mut state, &call(number, by, function, argument))
    };
    // More than two pages of a range, and dependents of one resource for more than one.
    let mut all = vec![resource("root", "city", &[])];
    all.extend((0..230).map(|number| resource(&format!("leaf-{number}"), "city", &["root".to_owned()])));
    let (response, writes, event) = done(0, "order", &json!({ "resources": all }));
    assert_eq!(response.status, 200, "{}", response.message);
    assert!(writes.len() > 400 && event.is_some());
    for limit in [1, 99, 100, 101, 200, 231, 1000] {
        let (response, writes, _) = done(1, "resources", &json!({ "limit": limit }));
        let listed: Value = serde_json::from_slice(&response.payload).unwrap();
        assert_eq!(listed["resources"].as_array().unwrap().len(), limit.min(231));
        assert!(writes.is_empty());
    }
    let (response, writes, event) = done(0, "retire", &json!({ "resources": ["root"] }));
    assert!(
        response.status >= 400 && writes.is_empty() && event.is_none(),
        "others depend on it: {response:?}"
    );
    assert_eq!(done(0, "retire", &json!({ "resources": ["leaf-7"] })).0.status, 200);
}

#[test]
fn a_recorded_ledger_is_written_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ledgers/v1");
    let bytes = std::fs::read(folder.join("life.blocks")).unwrap();
    let mut rest = bytes.as_slice();
    let external = dialled();
    let mut values = BTreeMap::new();
    let mut compared = 0;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (block, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        rest = after;
        let block = Block::decode(block).unwrap();
        let flags = metadata::validation_flags(&block).unwrap().to_vec();
        for (data, flag) in block.data.unwrap().data.iter().zip(flags) {
            let opened = envelope::open(&envelope::decode_envelope(data).unwrap()).unwrap();
            let Ok(recorded) = envelope::endorsed(&opened) else {
                continue;
            };
            assert_eq!(flag, 0, "this recording holds valid transactions only");
            let transaction = Transaction::decode(opened.data.as_slice()).unwrap();
            let payload = ChaincodeActionPayload::decode(transaction.actions[0].payload.as_slice()).unwrap();
            let identity = SerializedIdentity::decode(opened.signature.creator.as_slice()).unwrap();
            let proposal = Proposal {
                header: opened.header.encode_to_vec(),
                payload: payload.chaincode_proposal_payload,
                extension: Vec::new(),
            };
            let proposed = Proposed {
                channel: opened.channel.channel_id.clone(),
                tx_id: opened.channel.tx_id.clone(),
                seconds: opened.seconds().unwrap(),
                creator: Creator {
                    msp_id: identity.mspid,
                    certificate: identity.id_bytes,
                },
                args: recorded.invocation.args.clone(),
                signed: SignedProposal {
                    proposal_bytes: proposal.encode_to_vec(),
                    signature: Vec::new(),
                },
            };
            let (response, writes, event) = streamed(&external, &values, &proposed);
            assert_eq!(
                (response.status, &response.payload),
                (recorded.response.status, &recorded.response.payload)
            );
            let written = recorded.namespaces.iter().flat_map(|namespace| &namespace.rwset.writes);
            let written: Writes = written
                .map(|write| (write.key.clone(), (!write.is_delete).then(|| write.value.clone())))
                .collect();
            assert_eq!(writes, written);
            assert_eq!(event, recorded.event.map(|event| (event.event_name, event.payload)));
            for (key, value) in writes {
                match value {
                    Some(value) => values.insert(key, value),
                    None => values.remove(&key),
                };
            }
            compared += 1;
        }
    }
    assert!(compared > 10, "{compared} transactions");
}

/// One call that anybody might think of: its submitter, function and argument.
fn a_call() -> impl Strategy<Value = (usize, String, Vec<u8>)> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned);
    let one = (
        name(),
        prop::sample::select(vec!["city", "acme", "eve"]),
        prop::collection::vec(name(), 0..2),
    );
    let some = prop::collection::vec(one.prop_map(|(name, owner, on)| resource(&name, owner, &on)), 1..4);
    let names = prop::collection::vec(name(), 1..3).prop_map(|names| json!({ "resources": names }));
    let json = prop_oneof![
        6 => some.clone().prop_map(|resources| ("order", json!({ "resources": resources }))),
        3 => some.prop_map(|resources| ("amend", json!({ "resources": resources }))),
        3 => names.prop_map(|names| ("retire", names)),
        2 => (1..5u32).prop_map(|limit| ("resources", json!({ "limit": limit }))),
        1 => Just(("constitute", agreement())),
        1 => Just(("agreement", json!({}))),
    ];
    let good = json.prop_map(|(function, argument)| (function.to_owned(), argument.to_string().into_bytes()));
    let bad = (
        prop::sample::select(chaincode::FUNCTIONS.to_vec()),
        prop::collection::vec(any::<u8>(), 0..100),
    )
        .prop_map(|(function, bytes)| (function.to_owned(), bytes));
    (0..3usize, prop_oneof![6 => good, 1 => bad]).prop_map(|(by, (function, bytes))| (by, function, bytes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is submitted, good or bad.
    #[test]
    fn the_same_transactions_do_the_same(calls in prop::collection::vec(a_call(), 1..25)) {
        let external = dialled();
        let mut state = MemoryState::new();
        for proposed in agreed() {
            both(&external, &mut state, &proposed);
        }
        for (number, (by, function, bytes)) in calls.into_iter().enumerate() {
            let proposed = Proposed::new(number as u64 + 10, &CREATORS[by], &[function.into_bytes(), bytes]);
            both(&external, &mut state, &proposed);
        }
    }
}
