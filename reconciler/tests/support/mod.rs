//! A channel whose events a test makes up: the state in memory, and the same in a real git store.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ledger_sync::{BlockStream, Committed, EvaluateError, Fault, Ledger, StreamError, SubmitError};
use providers::Scope;
use serde_json::{Value, json};
use state::agreement::{Agreement, Effective, Limits, Party, Role};
use state::canonical::{self, Digest};
use state::cursor::Cursor;
use state::desired::DesiredState;
use state::event::{EventBody, LedgerEvent, Position, Provenance};
use state::git::{Person, Store};
use state::ids::{Channel, DaoId, Kind, MemberId, MspId, ResourceName, TxId, Version};
use state::paths::{self, FileChange};
use state::report::{Condition, Envelope, Report, ResourceStatus, whole};
use state::reported::ReportedState;
use state::resource::Resource;
use state::time::Timestamp;

pub const START: i64 = 1_769_817_600;

pub fn channel() -> Channel {
    Channel::new("smart-city-1").unwrap()
}

pub fn city() -> MemberId {
    MemberId::new("city").unwrap()
}

pub fn traffic() -> MemberId {
    MemberId::new("traffic").unwrap()
}

pub fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

pub fn kind() -> Kind {
    Kind::new("memory/object").unwrap()
}

pub fn scope() -> Scope {
    Scope::new(channel(), city())
}

fn msp_of(member: &MemberId) -> MspId {
    MspId::new(if *member == city() { "CityMSP" } else { "TrafficMSP" }).unwrap()
}

/// A resource of the city from a JSON object; `owner` and `kind` may be left out.
pub fn resource(value: Value) -> Resource {
    let mut map = value.as_object().unwrap().clone();
    map.entry("owner").or_insert(json!("city"));
    map.entry("kind").or_insert(json!("memory/object"));
    serde_json::from_value(Value::Object(map)).unwrap()
}

/// The ledger of a channel, as far as a reconciler sees it.
pub struct Chain {
    pub desired: DesiredState,
    pub reported: ReportedState,
    pub block: u64,
    store: Option<Store>,
}

impl Chain {
    /// Two members with an agreement in force.
    pub fn new(store: Option<Store>) -> Self {
        let mut chain = Self {
            desired: DesiredState::new(channel()),
            reported: ReportedState::new(channel()),
            block: 0,
            store,
        };
        for (member, role) in [(city(), Role::DataServiceProvider), (traffic(), Role::ValueServiceProvider)] {
            let msp = msp_of(&member);
            chain.event(&member.clone(), EventBody::MemberRegistered { member, msp, role });
        }
        let agreement = Agreement {
            dao: DaoId::new("smart-city").unwrap(),
            version: Version(1),
            parties: vec![
                Party {
                    member: city(),
                    msp: msp_of(&city()),
                    role: Role::DataServiceProvider,
                    beta: None,
                },
                Party {
                    member: traffic(),
                    msp: msp_of(&traffic()),
                    role: Role::ValueServiceProvider,
                    beta: Some("0.8".parse().unwrap()),
                },
            ],
            effective: Effective {
                from: Timestamp::clamped(START - 1000),
                until: None,
            },
            heartbeat_seconds: 900,
            limits: Limits { resources: 100_000 },
            clauses: None,
        };
        let digest = agreement.digest().unwrap();
        chain.event(&city(), EventBody::AgreementConstituted { agreement, digest });
        chain.event(&traffic(), EventBody::AgreementAccepted { digest, in_force: true });
        chain
    }

    pub fn order(&mut self, resources: Vec<Resource>) {
        for some in resources.chunks(1000) {
            self.event(&city(), EventBody::ResourcesOrdered { resources: some.to_vec() });
        }
    }

    pub fn amend(&mut self, resources: Vec<Resource>) {
        self.event(&city(), EventBody::ResourcesAmended { resources });
    }

    pub fn retire(&mut self, names: &[&str]) {
        let resources = names.iter().map(|text| name(text)).collect();
        self.event(&city(), EventBody::ResourcesRetired { resources });
    }

    /// The other member reports how its resource stands.
    pub fn report_of(&mut self, member: &MemberId, of: &str, condition: Condition, exports: Value) {
        let of = name(of);
        let status = ResourceStatus {
            kind: kind(),
            condition,
            applied: self.desired.resources().get(&of).map(|ordered| ordered.resource.digest().unwrap()),
            exports: serde_json::from_value(exports).unwrap(),
            drift: Vec::new(),
            why: None,
        };
        let before = self.reported.members().get(member);
        let mut all = before.map(|reports| reports.statuses.clone()).unwrap_or_default();
        all.insert(of.clone(), status.clone());
        let report = Report {
            channel: channel(),
            member: member.clone(),
            sequence: before.map_or(1, |reports| reports.head.sequence + 1),
            previous: before.map(|reports| reports.head.digest),
            desired: Position { block: 1, tx: 0 },
            commit: "0".repeat(40),
            plan: Digest::of(b""),
            observed_at: Timestamp::clamped(START),
            steps: Vec::new(),
            changes: [(of, Some(status))].into(),
            whole: whole(&all).unwrap(),
        };
        let envelope = Envelope::new(&report.payload().unwrap(), "test".to_owned(), b"unchecked here");
        self.submit(member, envelope);
    }

    /// Takes in a report, as the ledger would.
    pub fn submit(&mut self, member: &MemberId, envelope: Envelope) {
        let (report, digest) = envelope.report().unwrap();
        self.event(
            member,
            EventBody::ReportSubmitted {
                sequence: report.sequence,
                digest,
                envelope,
                heartbeat: None,
            },
        );
    }

    pub fn event(&mut self, by: &MemberId, body: EventBody) {
        self.block += 1;
        let position = Position { block: self.block, tx: 0 };
        let tx_id = TxId::new(format!("{:064x}", self.block)).unwrap();
        let event = LedgerEvent {
            channel: channel(),
            source: Provenance {
                position,
                tx_id: tx_id.clone(),
                at: Timestamp::clamped(START),
                by: by.clone(),
            },
            msp: msp_of(by),
            body,
        };
        let (reference, files) = match event.body {
            EventBody::ReportSubmitted { .. } => {
                let taken = self.reported.apply(&event).unwrap();
                assert!(taken.complaint.is_none(), "{:?}", taken.complaint);
                (paths::reported_ref(&channel()), taken.files)
            }
            _ => (paths::desired_ref(&channel()), self.desired.apply(&event).unwrap()),
        };
        self.write(&reference, files, position, tx_id);
    }

    fn write(&self, reference: &str, files: Vec<FileChange>, position: Position, tx_id: TxId) {
        let Some(store) = &self.store else { return };
        let mut batch = store.batch(reference).unwrap();
        for file in files {
            match file.bytes {
                Some(bytes) => drop(batch.put(&file.path, &bytes).unwrap()),
                None => drop(batch.remove(&file.path).unwrap()),
            }
        }
        let cursor = Cursor {
            channel: channel(),
            position,
            tx_id,
            block_hash: Digest::of(b"block"),
            schema: 1,
        };
        batch.put(paths::CURSOR, &canonical::document(&cursor).unwrap()).unwrap();
        let person = Person {
            name: "test".into(),
            email: String::new(),
            seconds: START,
        };
        batch.commit(&person, &person, "an event", None).unwrap();
        state::git::finish(vec![batch]).unwrap();
    }
}

/// A ledger that takes reports into a chain, or is down.
pub struct TestLedger {
    pub chain: Mutex<Chain>,
    down: Mutex<bool>,
    pub submitted: Mutex<Vec<Envelope>>,
}

impl TestLedger {
    pub fn new(chain: Chain) -> Arc<Self> {
        Arc::new(Self {
            chain: Mutex::new(chain),
            down: Mutex::new(false),
            submitted: Mutex::default(),
        })
    }

    pub fn take_down(&self) {
        *self.down.lock().unwrap() = true;
    }

    pub fn bring_up(&self) {
        *self.down.lock().unwrap() = false;
    }

    pub fn statuses(&self) -> BTreeMap<ResourceName, ResourceStatus> {
        let chain = self.chain.lock().unwrap();
        chain
            .reported
            .members()
            .get(&city())
            .map(|reports| reports.statuses.clone())
            .unwrap_or_default()
    }
}

#[async_trait]
impl Ledger for TestLedger {
    async fn submit(&self, _: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        assert_eq!(function, "report");
        if *self.down.lock().unwrap() {
            let fault = Fault::deadline(ledger_sync::ledger::Stage::Endorse, "test", std::time::Duration::ZERO);
            return Err(SubmitError::Endorse(fault));
        }
        let envelope: Envelope = serde_json::from_slice(&args[0]).unwrap();
        self.submitted.lock().unwrap().push(envelope.clone());
        let mut chain = self.chain.lock().unwrap();
        chain.submit(&city(), envelope);
        Err(SubmitError::Refused {
            function: "report".into(),
            status: 409,
            message: chaincode::ALREADY_RECORDED.into(),
        })
    }

    async fn evaluate(&self, _: &Channel, _: &str, _: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        Ok(Vec::new())
    }

    async fn blocks(&self, channel: &Channel, _: u64) -> Result<BlockStream, StreamError> {
        Err(StreamError::Refused {
            endpoint: "test".into(),
            channel: channel.clone(),
            status: 404,
        })
    }

    async fn height(&self, _: &Channel) -> Result<u64, StreamError> {
        Ok(0)
    }
}

/// A fresh key of the city.
pub fn signer() -> Arc<dyn msp::Signer> {
    let authority = msp::CertificateAuthority::create("city", "ca.city", START).unwrap();
    let issued = authority
        .enrol(
            "city",
            &msp::Enrolment::Member {
                name: "charter.city",
                role: msp::Role::Client,
            },
            START,
        )
        .unwrap();
    Arc::new(msp::PemSigner::new("CityMSP", issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap())
}

pub fn store(folder: &Path) -> Store {
    Store::init(&folder.join("store.git")).unwrap()
}

/// A binary tree of resources in which each node depends on its two children, by reference and by name.
pub fn tree(count: usize) -> Vec<Resource> {
    let at = |index: usize| format!("node-{index:05}");
    let mut all: Vec<Resource> = (0..count)
        .map(|index| {
            let mut depends_on = Vec::new();
            for child in [2 * index + 1, 2 * index + 2] {
                if child < count {
                    depends_on.push(at(child));
                }
            }
            let mut spec = json!({ "input": format!("value {index}") });
            if let Some(first) = depends_on.first().cloned() {
                spec["left"] = json!({ "$ref": format!("{first}.outputs.id") });
            }
            resource(json!({ "name": at(index), "spec": spec, "depends_on": depends_on }))
        })
        .collect();
    // Each transaction may only refer to what is there: children first.
    all.reverse();
    all
}
