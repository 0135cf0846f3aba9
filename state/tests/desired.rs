//! The desired state as a function of its events, and its files as the same state written down.

#![allow(clippy::unwrap_used, reason = "these are tests, their helpers included")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use state::agreement::{Agreement, Role};
use state::canonical::Digest;
use state::desired::{DesiredState, LoadError, Rejection};
use state::errors::chain;
use state::event::{EventBody, LedgerEvent, Position, Provenance};
use state::ids::{Channel, TxId};
use state::paths::FileChange;
use state::time::Timestamp;

const NOW: i64 = 1_800_000_000;

fn channel() -> Channel {
    Channel::new("air").unwrap()
}

fn agreement() -> Agreement {
    serde_json::from_value(json!({
        "dao": "air-quality",
        "version": 1,
        "parties": [
            { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
            { "member": "acme", "msp": "AcmeMSP", "role": "value-service-provider", "beta": "0.8" },
        ],
        "effective": { "from": "2026-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z" },
        "limits": { "resources": 5 },
    }))
    .unwrap()
}

/// A state with the files of its commits.
struct History {
    state: DesiredState,
    files: BTreeMap<String, Vec<u8>>,
    block: u64,
}

impl History {
    fn new() -> Self {
        Self {
            state: DesiredState::new(channel()),
            files: BTreeMap::new(),
            block: 0,
        }
    }

    fn agreed() -> Self {
        let mut history = Self::new();
        let digest = agreement().digest().unwrap();
        for (by, body) in [
            ("city", registered("city", "CityMSP", Role::DataServiceProvider)),
            ("acme", registered("acme", "AcmeMSP", Role::ValueServiceProvider)),
            (
                "city",
                EventBody::AgreementConstituted {
                    agreement: agreement(),
                    digest,
                },
            ),
            ("acme", EventBody::AgreementAccepted { digest, in_force: true }),
        ] {
            history.take(by, NOW, body).unwrap();
        }
        history
    }

    fn event(&mut self, by: &str, seconds: i64, body: EventBody) -> LedgerEvent {
        self.block += 1;
        let msp = format!("{}{}MSP", by[..1].to_uppercase(), &by[1..]);
        LedgerEvent {
            channel: channel(),
            source: Provenance {
                position: Position { block: self.block, tx: 0 },
                tx_id: TxId::new(format!("{:064x}", self.block)).unwrap(),
                at: Timestamp::clamped(seconds),
                by: by.parse().unwrap(),
            },
            msp: msp.parse().unwrap(),
            body,
        }
    }

    fn take(&mut self, by: &str, seconds: i64, body: EventBody) -> Result<(), Rejection> {
        let event = self.event(by, seconds, body);
        self.apply(&event)
    }

    fn apply(&mut self, event: &LedgerEvent) -> Result<(), Rejection> {
        for FileChange { path, bytes } in self.state.apply(event)? {
            match bytes {
                Some(bytes) => self.files.insert(path, bytes),
                None => Some(self.files.remove(&path).expect("only a file that is there is removed")),
            };
        }
        Ok(())
    }

    fn load(&self) -> Result<DesiredState, LoadError> {
        DesiredState::load(channel(), self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())))
    }
}

fn same(a: &DesiredState, b: &DesiredState) {
    assert_eq!(a.channel(), b.channel());
    assert_eq!(a.members(), b.members());
    assert_eq!(a.agreement(), b.agreement());
    assert_eq!(a.resources(), b.resources());
    assert_eq!(a.retired(), b.retired());
    for name in a.resources().keys().chain(a.retired().keys()) {
        assert!(a.dependents(name).eq(b.dependents(name)), "{name}");
    }
}

fn registered(member: &str, msp: &str, role: Role) -> EventBody {
    EventBody::MemberRegistered {
        member: member.parse().unwrap(),
        msp: msp.parse().unwrap(),
        role,
    }
}

fn ordered(resources: Value) -> EventBody {
    EventBody::ResourcesOrdered {
        resources: serde_json::from_value(resources).unwrap(),
    }
}

fn amended(resources: Value) -> EventBody {
    EventBody::ResourcesAmended {
        resources: serde_json::from_value(resources).unwrap(),
    }
}

fn retired(names: Value) -> EventBody {
    EventBody::ResourcesRetired {
        resources: serde_json::from_value(names).unwrap(),
    }
}

#[test]
fn what_a_follower_does_not_take() {
    let mut history = History::agreed();
    let digest = agreement().digest().unwrap();
    history
        .take(
            "city",
            NOW,
            ordered(json!([{ "name": "db", "kind": "machine/file", "owner": "city" }])),
        )
        .unwrap();
    let order = || ordered(json!([{ "name": "x", "kind": "machine/file", "owner": "city" }]));
    let mut foreign = history.event("city", NOW, order());
    foreign.channel = Channel::new("sea").unwrap();
    let mut forged = history.event("city", NOW, order());
    forged.msp = "AcmeMSP".parse().unwrap();
    let mut named = history.event("eve", NOW, registered("mallory", "EveMSP", Role::ValueServiceProvider));
    named.source.by = "eve".parse().unwrap();
    for (event, answer) in [
        (foreign, "the event is of channel sea, not air"),
        (forged, "member city is not bound to AcmeMSP"),
        (named, "member mallory is not bound to EveMSP"),
        (history.event("eve", NOW, order()), "member eve is not bound to EveMSP"),
        (
            history.event("city", NOW, EventBody::AgreementAccepted { digest, in_force: true }),
            "the change is refused: member city has accepted already",
        ),
        (
            history.event(
                "city",
                NOW,
                EventBody::AgreementConstituted {
                    agreement: agreement(),
                    digest,
                },
            ),
            "the change is refused: this channel has an agreement already; the DAO's next version gets its own channel",
        ),
        (
            history.event(
                "city",
                NOW,
                ordered(json!([{ "name": "db", "kind": "machine/file", "owner": "city" }])),
            ),
            "the change is refused: resource db exists already: amend it instead",
        ),
        (
            history.event("acme", NOW, retired(json!(["db"]))),
            "the change is refused: resource db: only its owner city or city, who ordered it, may change it, not acme",
        ),
    ] {
        let before = history.state.clone();
        let found = chain(&history.apply(&event).unwrap_err());
        assert_eq!(found, answer);
        same(&history.state, &before);
    }
}

#[test]
fn an_event_that_contradicts_its_own_content_is_not_taken() {
    let mut history = History::new();
    history
        .take("city", NOW, registered("city", "CityMSP", Role::DataServiceProvider))
        .unwrap();
    history
        .take("acme", NOW, registered("acme", "AcmeMSP", Role::ValueServiceProvider))
        .unwrap();
    let other = Digest::of(b"other");
    let lie = EventBody::AgreementConstituted {
        agreement: agreement(),
        digest: other,
    };
    assert_eq!(
        chain(&history.take("city", NOW, lie).unwrap_err()),
        "the event's digest is not what its content leads to"
    );
    assert!(history.state.agreement().is_none());
    let digest = agreement().digest().unwrap();
    let constituted = EventBody::AgreementConstituted {
        agreement: agreement(),
        digest,
    };
    history.take("city", NOW, constituted).unwrap();
    let lie = EventBody::AgreementAccepted { digest, in_force: false };
    assert_eq!(
        chain(&history.take("acme", NOW, lie).unwrap_err()),
        "the event's in_force is not what its content leads to"
    );
    assert!(!history.state.agreement().unwrap().in_force);
}

#[test]
fn a_circle_is_found_across_what_is_in_force() {
    let mut history = History::agreed();
    let file = |name: &str, on: &[&str]| json!({ "name": name, "kind": "machine/file", "owner": "city", "depends_on": on });
    history
        .take("city", NOW, ordered(json!([file("a", &[]), file("b", &["a"]), file("c", &["b"])])))
        .unwrap();
    // Through two resources that the amendment doesn't name.
    let found = chain(&history.take("city", NOW, amended(json!([file("a", &["c"])]))).unwrap_err());
    assert_eq!(
        found,
        "the change is refused: these resources depend on each other in a circle: a, b, c"
    );
    // The same edge is fine once another amendment in the transaction opens the circle.
    history
        .take("city", NOW, amended(json!([file("a", &["c"]), file("b", &[])])))
        .unwrap();
    // A new resource that closes a circle with an amended one can't exist: both have to be there first.
    history.take("city", NOW, ordered(json!([file("d", &["a"])]))).unwrap();
    let found = chain(&history.take("city", NOW, amended(json!([file("b", &["d"])]))).unwrap_err());
    assert_eq!(
        found,
        "the change is refused: these resources depend on each other in a circle: a, b, c, d"
    );
    same(&history.load().unwrap(), &history.state);
}

#[test]
fn a_store_that_was_edited_is_not_loaded() {
    let mut history = History::agreed();
    let on = json!([
        { "name": "a", "kind": "machine/file", "owner": "city" },
        { "name": "b", "kind": "machine/file", "owner": "city", "depends_on": ["a"] },
    ]);
    history.take("city", NOW, ordered(on)).unwrap();
    let path = |name: &str| {
        history
            .files
            .keys()
            .find(|path| path.ends_with(&format!("/{name}.json")))
            .unwrap()
            .clone()
    };
    let (a, b) = (path("a"), path("b"));
    type Files = BTreeMap<String, Vec<u8>>;
    let with = |change: &dyn Fn(&mut Files)| {
        let mut files = history.files.clone();
        change(&mut files);
        let loaded = DesiredState::load(channel(), files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())));
        loaded.unwrap_err()
    };
    assert!(matches!(with(&|files| drop(files.remove(&a))), LoadError::Graph(_)));
    assert!(matches!(
        with(&|files| drop(files.insert(a.clone(), b"{}".to_vec()))),
        LoadError::File { .. }
    ));
    let moved = with(&|files| {
        let bytes = files.remove(&b).unwrap();
        files.insert(b.replace("/b.json", "/z.json"), bytes);
    });
    assert!(matches!(moved, LoadError::Misplaced(_)));
}

fn a_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d", "e", "f"])
}

fn a_resource() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec!["machine/file", "machine/file", "machine/service"]);
    let owner = prop::sample::select(vec!["city", "acme", "acme", "eve"]);
    let on = prop::collection::btree_set(a_name(), 0..3);
    let refers = prop::option::weighted(0.3, a_name());
    (a_name(), kind, owner, on, refers, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
        |(name, kind, owner, depends_on, refers, exports, protect)| {
            let spec = refers.map_or_else(|| json!({}), |on| json!({ "to": { "$ref": format!("{on}.outputs.path") } }));
            let exports: &[&str] = if exports { &["path"] } else { &[] };
            json!({
                "name": name, "kind": kind, "owner": owner, "depends_on": depends_on, "spec": spec, "exports": exports,
                "protect": protect,
            })
        },
    )
}

fn a_body() -> impl Strategy<Value = EventBody> {
    let resources = || prop::collection::vec(a_resource(), 1..4);
    prop_oneof![
        4 => resources().prop_map(|resources| ordered(json!(resources))),
        2 => resources().prop_map(|resources| amended(json!(resources))),
        2 => prop::collection::vec(a_name(), 1..3).prop_map(|names| retired(json!(names))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// The files of the commits are the state; an event that is not taken changes neither.
    #[test]
    fn the_files_are_the_state(events in prop::collection::vec((prop::sample::select(vec!["city", "acme"]), a_body()), 1..40)) {
        let mut history = History::agreed();
        for (by, body) in events {
            let (state, files) = (history.state.clone(), history.files.clone());
            if history.take(by, NOW, body).is_err() {
                same(&history.state, &state);
                prop_assert_eq!(&history.files, &files);
            } else {
                prop_assert_ne!(&history.files, &files);
            }
            same(&history.load().unwrap(), &history.state);
        }
    }

    /// The order of the files doesn't matter.
    #[test]
    fn files_may_come_in_any_order(bodies in prop::collection::vec(a_body(), 1..12), seed in any::<u64>()) {
        let mut history = History::agreed();
        for body in bodies {
            // Whether it is taken makes no difference here.
            let _ = history.take("city", NOW, body);
        }
        let mut files: Vec<_> = history.files.iter().collect();
        files.sort_by_key(|(path, _)| Digest::of(format!("{seed}{path}").as_bytes()));
        let files = files.into_iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
        same(&DesiredState::load(channel(), files).unwrap(), &history.state);
    }
}
