//! For all sequences of transactions: the ledger and its followers agree, and nothing panics.

use std::sync::LazyLock;

use chaincode::FUNCTIONS;
use chaincode::stub::Creator;
use proptest::prelude::*;
use serde_json::{Value, json};
use state::canonical::Digest;
use state::event::EventBody;
use state::ids::MemberId;

use crate::channel::{Actor, Channel, NOW, agreement, args};

static CITY: LazyLock<Actor> = LazyLock::new(|| Actor::new("CityMSP"));
static ACME: LazyLock<Actor> = LazyLock::new(|| Actor::new("AcmeMSP"));
static EVE: LazyLock<Actor> = LazyLock::new(|| Actor::new("EveMSP"));

fn actor(index: usize) -> &'static Actor {
    [&*CITY, &*ACME, &*EVE][index % 3]
}

/// One transaction that anybody might think of.
#[derive(Clone, Debug)]
struct Try {
    by: usize,
    seconds: i64,
    function: &'static str,
    argument: Value,
}

fn resource_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d", "e", "e-1"]).prop_map(str::to_owned)
}

fn a_resource() -> impl Strategy<Value = Value> {
    let owner = prop::sample::select(vec!["city", "city", "acme", "acme", "eve"]);
    let kind = prop::sample::select(vec!["machine/file", "machine/file", "machine/service"]);
    let names = || prop::collection::btree_set(resource_name(), 0..3);
    let target = prop_oneof![4 => resource_name(), 1 => resource_name().prop_map(|name| format!("import-{name}"))];
    let reference = prop::option::weighted(0.4, (target, prop::sample::select(vec!["path", "port"])));
    let exports = prop::collection::btree_set(prop::sample::select(vec!["path", "port"]), 0..3);
    (
        resource_name(),
        kind,
        owner,
        names(),
        reference,
        exports,
        prop::bool::weighted(0.15),
        prop::option::weighted(0.8, 0..40u64),
        prop::option::weighted(0.8, prop::sample::select(vec!["eu", "eu", "eu", "us"])),
    )
        .prop_map(|(name, kind, owner, depends_on, reference, exports, protect, memory, region)| {
            let spec = match reference {
                Some((on, output)) => json!({ "from": { "$ref": format!("{on}.outputs.{output}") } }),
                None => json!({}),
            };
            let mut resource = json!({
                "name": name, "kind": kind, "owner": owner, "depends_on": depends_on, "spec": spec, "exports": exports,
                "protect": protect,
            });
            if let Some(memory) = memory {
                resource["size"] = json!({ "memory_mib": memory });
            }
            if let Some(region) = region {
                resource["region"] = json!(region);
            }
            resource
        })
}

fn a_try() -> impl Strategy<Value = Try> {
    let resources = || prop::collection::vec(a_resource(), 1..4).prop_map(|resources| json!({ "resources": resources }));
    let names = prop::collection::vec(resource_name(), 1..3).prop_map(|names| json!({ "resources": names }));
    let role = prop::sample::select(vec!["data-service-provider", "value-service-provider"]);
    let member = prop::sample::select(vec!["city", "acme", "eve"]);
    let registration = (member, role).prop_map(|(member, role)| json!({ "member": member, "role": role }));
    let call = prop_oneof![
        8 => resources().prop_map(|argument| ("order", argument)),
        8 => resources().prop_map(|argument| ("amend", argument)),
        4 => names.prop_map(|argument| ("retire", argument)),
        1 => registration.prop_map(|argument| ("register", argument)),
        // The proposal of an earlier transaction, if it was one.
        2 => (prop::sample::select(vec!["approve", "approve", "approve", "reject", "retract"]), 5..40u64)
            .prop_map(|(function, tx)| (function, json!({ "id": format!("{tx:064x}") }))),
        2 => (prop::sample::select(vec!["city", "acme"]), prop::collection::btree_set(resource_name(), 1..3))
            .prop_map(|(to, resources)| ("transfer", json!({ "to": to, "resources": resources }))),
        1 => prop::sample::select(vec!["eve", "eve", "eve", "acme"]).prop_map(|to| ("transfer", json!({ "to": to, "place": true }))),
        2 => (prop::sample::select(vec!["accept_transfer", "accept_transfer", "approve_transfer", "cancel_transfer"]), 5..40u64)
            .prop_map(|(function, tx)| (function, json!({ "id": format!("{tx:064x}") }))),
        1 => prop::sample::select(vec!["city", "acme", "eve"]).prop_map(|member| ("close_abandoned", json!({ "member": member }))),
        1 => prop::sample::select(vec!["expire", "end"]).prop_map(|function| (function, json!({}))),
        1 => ("[a-c]", 0..2000u64).prop_map(|(period, amount)| {
            ("distribute", json!({ "period": period, "amount": amount.to_string() }))
        }),
        2 => (resource_name(), prop::collection::btree_set(prop::sample::select(vec!["path", "port"]), 0..3)).prop_map(|(name, outputs)| {
            let outputs: serde_json::Map<String, Value> = outputs.into_iter().map(|output| (output.to_owned(), json!("x"))).collect();
            ("import", json!({ "name": format!("import-{name}"), "from": { "channel": "older", "resource": "a" }, "outputs": outputs }))
        }),
        2 => (resource_name(), resource_name(), 0..3usize, 0..8usize).prop_map(|(name, other, what, to)| {
            let becomes = ["carried", "replaced", "retired"][what];
            let of = if what == 2 { json!([name]) } else { json!({ name: other }) };
            ("hand_over", json!({ "to": if to == 0 { "air" } else { "dao-2" }, becomes: of }))
        }),
        1 => resource_name().prop_map(|name| ("drop_import", json!({ "name": format!("import-{name}") }))),
        1 => Just(("constitute", agreement())),
        1 => any::<bool>().prop_map(|right| {
            let digest = if right { right_digest() } else { Digest::of(b"other") };
            ("accept", json!({ "digest": digest }))
        }),
    ];
    let seconds = prop_oneof![12 => Just(NOW), 1 => any::<i64>()];
    (0..7usize, seconds, call).prop_map(|(by, seconds, (function, argument))| Try {
        // The stranger is rarer than the parties.
        by: if by == 6 { 2 } else { by % 2 },
        seconds,
        function,
        argument,
    })
}

fn right_digest() -> Digest {
    let agreement: state::agreement::Agreement = serde_json::from_value(agreement()).unwrap();
    agreement.digest().unwrap()
}

/// An agreement with a clause of every kind that holds a change.
fn strict() -> Value {
    let mut strict = agreement();
    strict["clauses"] = json!({
        "orders": [
            { "members": ["city"], "kinds": ["*"] },
            { "members": ["acme"], "kinds": ["machine/*"], "owners": ["acme"] },
        ],
        "approvals": [
            { "on": ["order", "amend"], "kinds": ["machine/service"], "need": 2 },
            { "on": ["destroy-protected"], "kinds": ["*"], "need": 1, "from": ["city"] },
        ],
        "quotas": [{ "memory_mib": 60 }, { "owner": "acme", "count": 2 }],
        "regions": ["eu"],
        "kinds": ["machine/file", "machine/service"],
        "transfer": { "need": 1, "newcomers": true },
        "abandonment": { "grace_seconds": 2700 },
    });
    strict
}

/// The event that a ledger whose program has no rules would have written.
fn lawless(channel: &Channel, attempt: &Try) -> Option<EventBody> {
    let field = |key: &str| attempt.argument[key].clone();
    Some(match attempt.function {
        "register" => EventBody::MemberRegistered {
            member: serde_json::from_value(field("member")).ok()?,
            msp: actor(attempt.by).creator.msp_id.parse().ok()?,
            role: serde_json::from_value(field("role")).ok()?,
        },
        "constitute" => EventBody::AgreementConstituted {
            agreement: serde_json::from_value(attempt.argument.clone()).ok()?,
            digest: right_digest(),
        },
        "accept" => EventBody::AgreementAccepted {
            digest: serde_json::from_value(field("digest")).ok()?,
            in_force: channel.desired.agreement().is_some_and(|record| record.accepted.len() == 1),
        },
        "order" => EventBody::ResourcesOrdered {
            resources: serde_json::from_value(field("resources")).ok()?,
        },
        "amend" => EventBody::ResourcesAmended {
            resources: serde_json::from_value(field("resources")).ok()?,
        },
        "retire" => EventBody::ResourcesRetired {
            resources: serde_json::from_value(field("resources")).ok()?,
        },
        "approve" => EventBody::ChangeApproved(serde_json::from_value(attempt.argument.clone()).ok()?),
        "reject" => EventBody::ChangeRejected(serde_json::from_value(attempt.argument.clone()).ok()?),
        "transfer" => EventBody::TransferProposed(serde_json::from_value(attempt.argument.clone()).ok()?),
        "accept_transfer" => EventBody::TransferAccepted(serde_json::from_value(attempt.argument.clone()).ok()?),
        "approve_transfer" => EventBody::TransferApproved(serde_json::from_value(attempt.argument.clone()).ok()?),
        "cancel_transfer" => EventBody::TransferCancelled(serde_json::from_value(attempt.argument.clone()).ok()?),
        "close_abandoned" => EventBody::PartClosed(serde_json::from_value(attempt.argument.clone()).ok()?),
        "expire" => EventBody::AgreementExpired(serde_json::from_value(attempt.argument.clone()).ok()?),
        "end" => EventBody::EndAsked(serde_json::from_value(attempt.argument.clone()).ok()?),
        "import" => EventBody::Imported(serde_json::from_value(attempt.argument.clone()).ok()?),
        "hand_over" => EventBody::HandedOver(serde_json::from_value(attempt.argument.clone()).ok()?),
        "drop_import" => EventBody::ImportDropped(serde_json::from_value(attempt.argument.clone()).ok()?),
        "distribute" => EventBody::ProfitDistributed(serde_json::from_value(attempt.argument.clone()).ok()?),
        "retract" => EventBody::ChangeWithdrawn(serde_json::from_value(attempt.argument.clone()).ok()?),
        _ => return None,
    })
}

fn play(channel: &mut Channel, tries: &[Try]) -> usize {
    let mut accepted = 0;
    for attempt in tries {
        let creator = &actor(attempt.by).creator;
        channel.seconds = attempt.seconds;
        let done = channel.commit(creator, &args(attempt.function, &attempt.argument));
        if done.response.status == 200 {
            accepted += 1;
            if done.event.as_ref().is_some_and(|(name, _)| name == "charter.change.proposed") {
                // What awaits approvals is not in force by a word of the ledger.
                let by = actor(attempt.by).member();
                let event = channel.event(creator, by, lawless(channel, attempt).unwrap());
                assert!(channel.desired.clone().apply(&event).is_err(), "{attempt:?}");
            }
        } else if let Some(body) = lawless(channel, attempt) {
            // A ledger whose program let it pass would not get it past a follower.
            let by = match &body {
                EventBody::MemberRegistered { member, .. } => member.clone(),
                _ => MemberId::new(creator.msp_id.trim_end_matches("MSP").to_lowercase()).unwrap(),
            };
            let event = channel.event(creator, by, body);
            assert!(channel.desired.apply(&event).is_err(), "{attempt:?} {}", done.response.message);
        }
        assert_eq!(channel.found(), channel.expected(), "after {attempt:?}");
    }
    accepted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the program keeps is what its events lead to, and what it refuses a follower refuses too.
    #[test]
    fn the_ledger_and_its_followers_agree(tries in prop::collection::vec(a_try(), 1..40)) {
        play(&mut Channel::agreed(&CITY, &ACME), &tries);
    }

    /// The same under an agreement with clauses, and the clauses hold whatever was tried.
    #[test]
    fn clauses_hold_on_both_sides(tries in prop::collection::vec(a_try(), 1..40)) {
        let mut channel = Channel::agreed_on(&strict(), &CITY, &ACME);
        play(&mut channel, &tries);
        let clauses = channel.desired.in_force().unwrap().clauses.as_ref().unwrap();
        let all = channel.desired.resources().values().map(|ordered| (&ordered.resource, ordered.orderer()));
        prop_assert!(state::rules::clauses::breaches(clauses, all).is_empty());
    }

    /// The same, from a channel on which nothing has happened.
    #[test]
    fn they_agree_from_the_first_transaction(tries in prop::collection::vec(a_try(), 1..40)) {
        play(&mut Channel::new(), &tries);
    }

    /// The same transaction on the same state does the same.
    #[test]
    fn a_run_repeats(tries in prop::collection::vec(a_try(), 1..20), last in a_try()) {
        let mut channel = Channel::agreed(&CITY, &ACME);
        play(&mut channel, &tries);
        let again = channel.state.iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect();
        let mut other = Channel::new();
        (other.state, other.block) = (again, channel.block);
        let arguments = args(last.function, &last.argument);
        let creator = &actor(last.by).creator;
        (channel.seconds, other.seconds) = (last.seconds, last.seconds);
        prop_assert_eq!(channel.run(creator, &arguments), other.run(creator, &arguments));
    }

    /// No bytes make it panic, and what is refused leaves no trace.
    #[test]
    fn no_bytes_break_it(
        function in prop::sample::select(FUNCTIONS.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        seconds in any::<i64>(),
        count in 0..4usize,
    ) {
        let mut channel = Channel::agreed(&CITY, &ACME);
        channel.seconds = seconds;
        let mut arguments = vec![function.as_bytes().to_vec()];
        arguments.extend(std::iter::repeat_n(bytes.clone(), count));
        channel.commit(&CITY.creator, &arguments);
        channel.commit(&CITY.creator, &[bytes]);
    }

    /// No document that is nearly right makes it panic: one place of a good one is replaced, cut or doubled.
    #[test]
    fn no_damage_breaks_it(attempt in a_try(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut channel = Channel::agreed(&CITY, &ACME);
        let mut arguments = args(attempt.function, &attempt.argument);
        let place = at.index(arguments[1].len());
        if cut {
            arguments[1].truncate(place);
        } else {
            arguments[1][place] = with;
        }
        channel.commit(&actor(attempt.by).creator, &arguments);
        prop_assert_eq!(channel.found(), channel.expected());
    }

    /// Neither does a report's payload, signed or not, nor a certificate.
    #[test]
    fn no_report_breaks_it(payload in prop::collection::vec(any::<u8>(), 0..300), certificate in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut channel = Channel::agreed(&CITY, &ACME);
        let report = channel.report(&CITY.member(), 1, None).payload().unwrap();
        let strange = Creator { certificate, ..CITY.creator.clone() };
        for bytes in [&payload, &report] {
            let argument = serde_json::to_value(CITY.envelope(bytes)).unwrap();
            channel.commit(&strange, &args("report", &argument));
        }
        prop_assert!(channel.reported.members().is_empty());
    }
}

/// The generator is worth something: its transactions are accepted and refused often enough, for many reasons.
#[test]
fn the_random_transactions_are_of_many_kinds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeSet;
    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..1000 {
        let mut channel = Channel::agreed(&CITY, &ACME);
        for _ in 0..30 {
            let attempt = a_try().new_tree(&mut runner).unwrap().current();
            channel.seconds = attempt.seconds;
            let done = channel.commit(&actor(attempt.by).creator, &args(attempt.function, &attempt.argument));
            if done.response.status == 200 {
                accepted.insert(attempt.function);
            } else {
                reasons.insert(done.response.message.split(' ').rev().take(3).collect::<Vec<_>>().join(" "));
            }
        }
    }
    assert!(
        ["order", "amend", "retire"].iter().all(|function| accepted.contains(function)),
        "{accepted:?}"
    );
    assert!(reasons.len() > 20, "{reasons:?}");
}

/// A page is a window on the resources in force, in order, without gaps.
#[test]
fn pages_cover_everything_once() {
    let mut channel = Channel::agreed(&CITY, &ACME);
    let names = ["a", "a-1", "a-b", "a1", "ab", "b"];
    let resources: Vec<Value> = names.iter().map(|name| crate::channel::resource(name, "city", &[])).collect();
    channel.accept(&CITY, "order", &json!({ "resources": resources }));
    for limit in 1..=7 {
        let mut seen = Vec::new();
        let mut page = json!({ "limit": limit });
        loop {
            let done = channel.accept(&ACME, "resources", &page);
            let answer: Value = serde_json::from_slice(&done.response.payload).unwrap();
            let listed = answer["resources"].as_array().unwrap();
            assert!(listed.len() <= limit);
            seen.extend(listed.iter().map(|entry| entry["resource"]["name"].as_str().unwrap().to_owned()));
            if answer["next"].is_null() {
                break;
            }
            page["after"] = answer["next"].clone();
        }
        assert_eq!(seen, names, "limit {limit}");
    }
}
