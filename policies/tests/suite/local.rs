//! What local policy forbids.

use policies::{KindPattern, LocalPolicy, forbidden};
use serde_json::{Value, json};
use state::agreement::Role;
use state::desired::DesiredState;
use state::event::{EventBody, LedgerEvent, Position, Provenance};
use state::ids::{Channel, MemberId, TxId};
use state::time::Timestamp;

fn policy(text: &str) -> LocalPolicy {
    toml::from_str(text).unwrap()
}

/// A channel on which these resources were ordered, one transaction each.
fn desired(resources: &[Value]) -> DesiredState {
    desired_under(None, resources)
}

/// The same under an agreement with clauses.
fn desired_under(clauses: Option<Value>, resources: &[Value]) -> DesiredState {
    let channel = Channel::new("air").unwrap();
    let mut state = DesiredState::new(channel.clone());
    let mut agreement = json!({
        "dao": "air", "version": 1, "effective": { "from": "2026-01-01T00:00:00Z" },
        "parties": [
            { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
            { "member": "acme", "msp": "AcmeMSP", "role": "value-service-provider", "beta": "0.8" },
        ],
    });
    if let Some(clauses) = clauses {
        agreement["clauses"] = clauses;
    }
    let agreement: state::agreement::Agreement = serde_json::from_value(agreement).unwrap();
    let digest = agreement.digest().unwrap();
    let register = |member: &str, msp: &str, role| EventBody::MemberRegistered {
        member: member.parse().unwrap(),
        msp: msp.parse().unwrap(),
        role,
    };
    let mut bodies = vec![
        ("city", register("city", "CityMSP", Role::DataServiceProvider)),
        ("acme", register("acme", "AcmeMSP", Role::ValueServiceProvider)),
        ("city", EventBody::AgreementConstituted { agreement, digest }),
        ("acme", EventBody::AgreementAccepted { digest, in_force: true }),
    ];
    bodies.extend(resources.iter().map(|resource| {
        let resources = vec![serde_json::from_value(resource.clone()).unwrap()];
        ("city", EventBody::ResourcesOrdered { resources })
    }));
    for (block, (by, body)) in bodies.into_iter().enumerate() {
        let event = LedgerEvent {
            channel: channel.clone(),
            source: Provenance {
                position: Position {
                    block: block as u64,
                    tx: 0,
                },
                tx_id: TxId::new(format!("{block:064x}")).unwrap(),
                at: Timestamp::clamped(1_800_000_000),
                by: by.parse().unwrap(),
            },
            msp: if by == "city" { "CityMSP" } else { "AcmeMSP" }.parse().unwrap(),
            body,
        };
        state.apply(&event).unwrap();
    }
    state
}

fn found(resources: &[Value], text: &str) -> Vec<String> {
    let acme = MemberId::new("acme").unwrap();
    let found = forbidden(&desired(resources), &acme, &policy(text));
    found.into_iter().map(|(name, why)| format!("{name}: {why}")).collect()
}

#[test]
fn without_a_word_everything_is_allowed_and_few_deletions() {
    assert_eq!(policy(""), LocalPolicy::default());
    assert_eq!(LocalPolicy::default().max_deletions_per_pass, 10);
    let resources = [json!({ "name": "a", "kind": "machine/file", "owner": "acme" })];
    assert_eq!(found(&resources, ""), Vec::<String>::new());
}

#[test]
fn kinds_and_regions_are_allow_lists() {
    let resources = [
        json!({ "name": "a", "kind": "machine/file", "owner": "acme", "region": "eu" }),
        json!({ "name": "b", "kind": "machinery/file", "owner": "acme", "region": "us" }),
        json!({ "name": "c", "kind": "cloud/vm", "owner": "acme" }),
        json!({ "name": "other", "kind": "cloud/vm", "owner": "city" }),
    ];
    assert_eq!(
        found(&resources, "allow_kinds = ['machine/*', 'cloud/vm']"),
        ["b: policy.allow_kinds: machinery/file is not allowed here, only cloud/vm, machine/*"]
    );
    assert_eq!(
        found(&resources, "regions = ['eu', 'ch']"),
        [
            "b: policy.regions: region us is not allowed here, only ch, eu",
            "c: policy.regions: it names no region; allowed here is only ch, eu",
        ]
    );
    assert_eq!(found(&resources, "allow_kinds = []").len(), 3);
}

#[test]
fn what_was_ordered_first_is_taken_on_first() {
    // Names in the other order than the orders.
    let resources: Vec<Value> = ["z", "m", "a"]
        .iter()
        .map(|name| json!({ "name": name, "kind": "machine/file", "owner": "acme" }))
        .collect();
    assert_eq!(
        found(&resources, "max_resources = 2"),
        ["a: policy.max_resources: acme takes on 2 resources of this channel, ordered before this one"]
    );
    // What is forbidden anyway takes no place.
    let mut resources = resources;
    resources[0]["kind"] = json!("cloud/vm");
    let found = found(&resources, "max_resources = 2\nallow_kinds = ['machine/*']");
    assert_eq!(found, ["z: policy.allow_kinds: cloud/vm is not allowed here, only machine/*"]);
}

#[test]
fn a_policy_with_a_mistake_in_it_is_refused() {
    for text in [
        "allow_kind = ['machine/*']",
        "allow_kinds = ['*']",
        "allow_kinds = ['*/file']",
        "allow_kinds = ['machine']",
        "allow_kinds = ['machine/*/x']",
        "allow_kinds = ['machine/f*']",
        "regions = ['EU']",
        "max_deletions_per_pass = -1",
        "max_deletions_per_pass = 0.5",
    ] {
        assert!(toml::from_str::<LocalPolicy>(text).is_err(), "{text}");
    }
    let text = "allow_kinds = ['cloud/vm', 'machine/*']\nregions = ['eu']\nmax_deletions_per_pass = 3\nmax_resources = 7";
    let read = policy(text);
    assert_eq!(policy(&toml::to_string(&read).unwrap()), read);
    assert!("machine/*".parse::<KindPattern>().unwrap().fits(&"machine/file".parse().unwrap()));
}

/// A ledger that lies hands out a state that its own agreement forbids. A follower doesn't take such events in; a store that holds them all
/// the same makes nothing of them.
#[test]
fn what_the_agreement_forbids_is_not_made_on_a_peers_word() {
    let file = |name: &str, owner: &str, region: &str, memory: u64| json!({ "name": name, "kind": "machine/file", "owner": owner, "region": region, "size": { "memory_mib": memory } });
    let resources = [
        file("a", "city", "eu", 1),
        file("b", "city", "us", 1),
        file("c", "acme", "eu", 11),
        json!({ "name": "d", "kind": "machine/service", "owner": "city", "region": "eu" }),
    ];
    let clauses = json!({
        "regions": ["eu"], "kinds": ["machine/file"], "quotas": [{ "owner": "acme", "memory_mib": 10 }],
    });
    // The resources as an honest agreement allows them, put under the strict one as only a lie could.
    let honest = desired(&resources);
    let strict = desired_under(Some(clauses), &[]);
    let files = honest.resources().values().map(|ordered| {
        let resource = &ordered.resource;
        let path = state::paths::resource("resources", &resource.kind, &resource.name);
        (path, serde_json::to_vec(ordered).unwrap())
    });
    let members = strict.members().iter().map(|(member, record)| {
        let path = state::paths::member(member);
        (path, serde_json::to_vec(record).unwrap())
    });
    let agreement = serde_json::to_vec(strict.agreement().unwrap()).unwrap();
    let mut all: Vec<(String, Vec<u8>)> = files.chain(members).collect();
    all.push((state::paths::AGREEMENT.to_owned(), agreement));
    let lie = DesiredState::load(
        Channel::new("air").unwrap(),
        all.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())),
    )
    .unwrap();
    let said = |member: &str| -> Vec<String> {
        let found = forbidden(&lie, &member.parse().unwrap(), &LocalPolicy::default());
        found.into_iter().map(|(name, why)| format!("{name}: {why}")).collect()
    };
    assert_eq!(
        said("city"),
        [
            "b: clauses.regions: resource b is in us; the agreement allows eu",
            "d: clauses.kinds: resource d is machine/service; the agreement allows machine/file",
        ]
    );
    assert_eq!(
        said("acme"),
        ["c: clauses.quotas[0].memory_mib: the resources of acme may come to 10, this would make 11"]
    );
    assert!(forbidden(&honest, &"city".parse().unwrap(), &LocalPolicy::default()).is_empty());
}
