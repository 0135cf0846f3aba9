//! A channel in memory: the program's state on one side, the desired state that a follower builds of its events on the other.

use std::collections::BTreeMap;

use chaincode::memory::{Execution, MemoryState};
use chaincode::records::{self, AgreementRecord, MemberRecord, OrderedRecord, Submitted, Usage};
use chaincode::stub::{Creator, Invocation};
use msp::{CertificateAuthority, Enrolment, PemSigner, Role, Signer, key_id};
use serde_json::{Value, json};
use state::canonical::{self, Digest};
use state::desired::{DesiredState, Ordered, Succeeded};
use state::event::{CloudEvent, EventBody, LedgerEvent, Position, Provenance};
use state::ids::{Channel as ChannelName, MemberId, MspId, ResourceName, TxId};
use state::report::{Envelope, PAYLOAD_TYPE, Report, pre_authentication_encoding};
use state::reported::ReportedState;
use state::time::Timestamp;

/// The moment of every transaction that doesn't say otherwise, within [`agreement`]'s dates.
pub(crate) const NOW: i64 = 1_800_000_000;

/// The channel's name.
pub(crate) const NAME: &str = "air";

/// One organisation that may submit.
pub(crate) struct Actor {
    pub(crate) creator: Creator,
    pub(crate) signer: PemSigner,
}

impl Actor {
    /// An organisation with an identity of its own.
    pub(crate) fn new(msp: &str) -> Self {
        let authority = CertificateAuthority::create(msp, "ca", NOW).unwrap();
        let enrolment = Enrolment::Member {
            name: "charter",
            role: Role::Client,
        };
        let issued = authority.enrol(msp, &enrolment, NOW).unwrap();
        let signer = PemSigner::new(msp, issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        let creator = Creator {
            msp_id: msp.into(),
            certificate: issued.certificate_pem.into_bytes(),
        };
        Self { creator, signer }
    }

    /// The name that it goes by in tests: its MSP's, lower-case.
    pub(crate) fn member(&self) -> MemberId {
        MemberId::new(self.creator.msp_id.trim_end_matches("MSP").to_lowercase()).unwrap()
    }

    /// Signs a payload as a report.
    pub(crate) fn envelope(&self, payload: &[u8]) -> Envelope {
        let message = pre_authentication_encoding(PAYLOAD_TYPE, payload);
        let id = key_id(&self.creator.msp_id, self.signer.certificate());
        Envelope::new(payload, id, &self.signer.sign(&message).unwrap())
    }
}

/// The channel, as the ledger and a follower have it.
pub(crate) struct Channel {
    pub(crate) state: MemoryState,
    pub(crate) desired: DesiredState,
    pub(crate) reported: ReportedState,
    pub(crate) block: u64,
    pub(crate) seconds: i64,
}

impl Channel {
    pub(crate) fn new() -> Self {
        let name = ChannelName::new(NAME).unwrap();
        Self {
            state: MemoryState::new(),
            desired: DesiredState::new(name.clone()),
            reported: ReportedState::new(name),
            block: 0,
            seconds: NOW,
        }
    }

    /// A channel whose two members agreed.
    pub(crate) fn agreed(city: &Actor, acme: &Actor) -> Self {
        Self::agreed_on(&agreement(), city, acme)
    }

    /// A channel whose two members agreed on this.
    pub(crate) fn agreed_on(agreement: &Value, city: &Actor, acme: &Actor) -> Self {
        let mut channel = Self::new();
        channel.accept(city, "register", &json!({ "member": "city", "role": "data-service-provider" }));
        channel.accept(acme, "register", &json!({ "member": "acme", "role": "value-service-provider" }));
        channel.accept(city, "constitute", agreement);
        let digest = channel.desired.agreement().unwrap().digest;
        channel.accept(acme, "accept", &json!({ "digest": digest }));
        assert!(channel.desired.agreement().unwrap().in_force);
        channel
    }

    /// The id of the next transaction.
    fn tx_id(&self) -> String {
        format!("{:064x}", self.block + 1)
    }

    /// Runs a transaction and changes nothing.
    pub(crate) fn run(&self, creator: &Creator, args: &[Vec<u8>]) -> Execution {
        let tx_id = self.tx_id();
        self.state.execute(&Invocation {
            channel: NAME,
            tx_id: &tx_id,
            seconds: self.seconds,
            creator,
            args,
        })
    }

    /// Commits a transaction: the ledger takes its writes, a follower its event. A refused one has neither.
    pub(crate) fn commit(&mut self, creator: &Creator, args: &[Vec<u8>]) -> Execution {
        let tx_id = TxId::new(self.tx_id()).unwrap();
        let done = self.run(creator, args);
        self.block += 1;
        if done.response.status != 200 {
            assert!((400..=500).contains(&done.response.status), "{:?}", done.response);
            assert!(!done.response.message.is_empty());
            assert!(
                done.writes.is_empty() && done.event.is_none(),
                "a refusal leaves no trace: {done:?}"
            );
            return done;
        }
        assert_eq!(done.response.message, "");
        let Some((name, payload)) = &done.event else {
            assert!(done.writes.is_empty(), "a read writes nothing: {done:?}");
            return done;
        };
        self.state.apply(&done.writes);
        let at = Timestamp::clamped(self.seconds);
        let event = CloudEvent::parse(payload, self.desired.channel(), &tx_id, at).unwrap();
        assert_eq!(event.body.kind(), name);
        assert_eq!(&canonical::bytes(&event).unwrap(), payload);
        let event = self.event(creator, event.member, event.body);
        match &event.body {
            EventBody::ReportSubmitted { .. } => {
                assert!(self.reported.apply(&event).unwrap().complaint.is_none());
                self.desired.hear_of(&event.source.by, &self.reported);
            }
            _ => assert!(!self.desired.apply(&event).unwrap().is_empty()),
        }
        done
    }

    /// The event that the last committed transaction would carry.
    pub(crate) fn event(&self, creator: &Creator, by: MemberId, body: EventBody) -> LedgerEvent {
        LedgerEvent {
            channel: self.desired.channel().clone(),
            source: Provenance {
                position: Position { block: self.block, tx: 0 },
                tx_id: TxId::new(format!("{:064x}", self.block)).unwrap(),
                at: Timestamp::clamped(self.seconds),
                by,
            },
            msp: MspId::new(creator.msp_id.as_str()).unwrap(),
            body,
        }
    }

    /// Commits a transaction that has to be accepted.
    pub(crate) fn accept(&mut self, actor: &Actor, function: &str, argument: &Value) -> Execution {
        let done = self.commit(&actor.creator, &args(function, argument));
        assert_eq!(done.response.status, 200, "{}", done.response.message);
        done
    }

    /// Commits a transaction that has to be refused, and gives status and message.
    pub(crate) fn refuse(&mut self, actor: &Actor, function: &str, argument: &Value) -> String {
        let done = self.commit(&actor.creator, &args(function, argument));
        assert_ne!(done.response.status, 200, "{function} {argument}");
        format!("{} {}", done.response.status, done.response.message)
    }

    /// The ledger's state as it has to be for the desired state that a follower built: every key but those of reports.
    pub(crate) fn expected(&self) -> BTreeMap<String, Vec<u8>> {
        let mut out = BTreeMap::new();
        let mut put = |key: String, bytes: Vec<u8>| assert!(out.insert(key, bytes).is_none());
        for (member, record) in self.desired.members() {
            let kept = MemberRecord {
                msp: record.msp.clone(),
                role: record.role,
                registered: submitted(&record.registered),
            };
            put(records::member(member), canonical::bytes(&kept).unwrap());
            put(records::msp(&record.msp), canonical::bytes(member).unwrap());
        }
        if let Some(record) = self.desired.agreement() {
            let kept = AgreementRecord {
                agreement: record.agreement.clone(),
                digest: record.digest,
                constituted: submitted(&record.constituted),
                accepted: record
                    .accepted
                    .iter()
                    .map(|(member, source)| (member.clone(), submitted(source)))
                    .collect(),
                in_force: record.in_force,
                succeeded: record.succeeded.iter().map(succeeded).collect(),
            };
            put(records::AGREEMENT.into(), canonical::bytes(&kept).unwrap());
        }
        for (name, ordered) in self.desired.resources() {
            put(records::resource(name), canonical::bytes(&kept(ordered)).unwrap());
            for on in ordered.resource.dependencies() {
                put(records::dependent(&on, name), records::INDEXED.to_vec());
            }
        }
        for (name, ordered) in self.desired.retired() {
            put(records::retired(name), canonical::bytes(&kept(ordered)).unwrap());
        }
        if !self.desired.resources().is_empty() || !self.desired.retired().is_empty() {
            let clauses = self.desired.in_force().and_then(|agreement| agreement.clauses.as_ref());
            let quotas = clauses.is_some_and(|clauses| !clauses.quotas.is_empty());
            let usage = Usage {
                resources: self.desired.resources().len() as u64,
                totals: quotas.then(|| self.desired.resources().values().map(|ordered| &ordered.resource).collect()),
            };
            put(records::USAGE.into(), canonical::bytes(&usage).unwrap());
        }
        for record in self.desired.records().iter() {
            put(record.key(), canonical::bytes(record).unwrap());
        }
        out
    }

    /// The ledger's state, every key but those of reports.
    pub(crate) fn found(&self) -> BTreeMap<String, Vec<u8>> {
        let kept = self.state.iter().filter(|(key, _)| !key.starts_with("report/"));
        kept.map(|(key, value)| (key.to_owned(), value.to_vec())).collect()
    }

    /// A report of a member, to be changed by the test.
    pub(crate) fn report(&self, member: &MemberId, sequence: u64, previous: Option<Digest>) -> Report {
        Report {
            channel: self.desired.channel().clone(),
            member: member.clone(),
            sequence,
            previous,
            desired: Position { block: self.block, tx: 0 },
            commit: "0123456789abcdef0123456789abcdef01234567".into(),
            plan: Digest::of(b"plan"),
            observed_at: Timestamp::clamped(NOW),
            steps: Vec::new(),
            changes: BTreeMap::new(),
            whole: state::report::whole(&BTreeMap::new()).unwrap(),
        }
    }
}

fn submitted(source: &Provenance) -> Submitted {
    Submitted {
        tx_id: source.tx_id.clone(),
        at: source.at,
        by: source.by.clone(),
    }
}

fn succeeded(one: &Succeeded<Provenance>) -> Succeeded<Submitted> {
    Succeeded {
        from: one.from.clone(),
        to: one.to.clone(),
        before: one.before,
        by: submitted(&one.by),
    }
}

fn kept(ordered: &Ordered) -> OrderedRecord {
    OrderedRecord {
        resource: ordered.resource.clone(),
        ordered: submitted(&ordered.ordered),
        amended: ordered.amended.as_ref().map(submitted),
        transferred: ordered.transferred.as_ref().map(submitted),
        orderer: ordered.orderer.clone(),
        retired: ordered.retired.as_ref().map(submitted),
    }
}

/// The arguments of a call.
pub(crate) fn args(function: &str, argument: &Value) -> Vec<Vec<u8>> {
    vec![function.into(), argument.to_string().into_bytes()]
}

/// The agreement of city and acme.
pub(crate) fn agreement() -> Value {
    json!({
        "dao": "air-quality",
        "version": 1,
        "parties": [
            { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
            { "member": "acme", "msp": "AcmeMSP", "role": "value-service-provider", "beta": "0.8" },
        ],
        "effective": { "from": "2026-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z" },
        "limits": { "resources": 8 },
    })
}

/// A name.
pub(crate) fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

/// A resource of an owner with dependencies.
pub(crate) fn resource(name: &str, owner: &str, depends_on: &[&str]) -> Value {
    json!({ "name": name, "kind": "machine/file", "owner": owner, "depends_on": depends_on })
}
