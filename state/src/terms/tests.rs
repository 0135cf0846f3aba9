//! Terms by themselves, and what they come to.

use serde_json::{Value, json};

use super::*;
use crate::canonical::Digest;
use crate::sealed::MAX_TEXT;

/// Terms of city and acme.
fn terms() -> Value {
    json!({
        "@context": ["http://www.w3.org/ns/odrl.jsonld", { "charter": "urn:charter:odrl:" }],
        "@type": "Offer",
        "uid": "urn:charter:market:air",
        "profile": "urn:charter:odrl:1",
        "assigner": "city",
        "assignee": ["acme"],
        "permission": [{
            "target": "readings",
            "action": "derive",
            "constraint": [
                { "leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": ["forecast", "warning"] },
                { "leftOperand": "count", "operator": "lteq", "rightOperand": 1000, "unit": "urn:unit:day" },
            ],
            "duty": [{ "action": "attribute", "assignee": ["acme"] }],
        }],
        "prohibition": [{ "target": "readings", "action": "distribute", "remedy": [{ "action": "delete" }] }],
        "obligation": [{ "action": "inform", "assigner": "city" }],
        "charter:agreement": {
            "dao": "air-quality",
            "version": 1,
            "parties": [
                { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
                { "member": "acme", "msp": "AcmeMSP", "role": "value-service-provider", "beta": "0.8" },
            ],
            "effective": { "from": "2026-01-01T00:00:00Z", "until": "2030-01-01T00:00:00Z" },
            "heartbeat_seconds": 900,
            "limits": { "resources": 2 },
            "clauses": { "regions": ["eu-1"], "approvals": [{ "on": ["destroy-protected"], "kinds": ["*"], "need": 2 }] },
        },
        "charter:infrastructure": [
            { "by": "city", "resources": [{ "name": "data", "kind": "machine/file", "owner": "city", "region": "eu-1", "spec": {} }] },
            { "by": "acme", "resources": [{ "name": "model", "kind": "machine/file", "owner": "acme", "region": "eu-1", "spec": {} }] },
        ],
    })
}

fn read(value: &Value) -> Result<Terms, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

fn member(name: &str) -> MemberId {
    MemberId::new(name).unwrap()
}

fn with(pointer: &str, to: Value) -> Value {
    let mut changed = terms();
    *changed.pointer_mut(pointer).unwrap() = to;
    changed
}

#[test]
fn terms_come_to_the_agreement_that_members_accept_and_to_orders() {
    let terms = read(&terms()).unwrap();
    let outcome = terms
        .outcome_between(&[member("acme"), member("city")].into(), &member("city"))
        .unwrap();
    let alone: Agreement = serde_json::from_value(self::terms()["charter:agreement"].clone()).unwrap();
    assert_eq!(outcome.agreement.digest().unwrap(), alone.digest().unwrap());
    assert_eq!(outcome.orders_of(&member("acme"))[0].name.as_str(), "model");
    assert!(outcome.orders_of(&member("tram")).is_empty());
    // What is read is what was written, so a digest is of what people see.
    assert_eq!(serde_json::to_value(&terms).unwrap(), self::terms());
}

#[test]
fn a_word_that_odrl_and_charter_do_not_have_is_refused() {
    for (pointer, to, says) in [
        ("/@context", json!("http://www.w3.org/ns/odrl.jsonld"), "@context has to be"),
        ("/@type", json!("Set"), "unknown variant `Set`"),
        ("/profile", json!("urn:charter:odrl:9"), "unknown variant"),
        ("/permission/0/action", json!("distrbute"), "the action \"distrbute\" is not valid"),
        ("/permission/0/action", json!("a b:c"), "the action"),
        (
            "/permission/0/constraint/0/leftOperand",
            json!("colour"),
            "the leftOperand \"colour\"",
        ),
        ("/permission/0/constraint/0/operator", json!("equals"), "unknown variant `equals`"),
        ("/permission/0/constraint/0/rightOperand", json!(0.5), "RightOperand"),
        ("/uid", json!("a b"), "the identifier \"a b\""),
        ("/uid", json!("x".repeat(401)), "the identifier"),
        ("/charter:agreement/parties/1/beta", json!("1.5"), "the share β"),
        (
            "/charter:infrastructure/0",
            json!({ "by": "city", "resources": [], "when": 1 }),
            "unknown field `when`",
        ),
    ] {
        let error = read(&with(pointer, to)).unwrap_err();
        assert!(error.contains(says), "{pointer}: {error}");
    }
    let mut more = terms();
    more["inheritFrom"] = json!("urn:x");
    assert!(read(&more).unwrap_err().contains("unknown field `inheritFrom`"));
    assert!(read(&with("/permission/0/action", json!("charter:train"))).is_ok());
}

#[test]
fn terms_that_make_no_sense_are_refused() {
    let resource = |name: &str, owner: &str| json!({ "name": name, "kind": "machine/file", "owner": owner });
    let orders = |by: &str, resources: Vec<Value>| json!({ "by": by, "resources": resources });
    let many = |count: usize| Value::from(vec![terms()["permission"][0].clone(); count]);
    for (pointer, to, says) in [
        ("/@type", json!("Agreement"), "@type has to be Offer"),
        ("/assignee", json!([]), "assignee has to have 1 to 64 entries, not 0"),
        ("/assignee", json!(["tram"]), "assignee names tram, who is no party"),
        ("/assigner", json!("acme"), "acme is no data service provider"),
        ("/permission", many(65), "permission has to have 0 to 64 entries, not 65"),
        ("/permission/0/duty/0/assignee", json!(["tram"]), "permission names tram"),
        (
            "/prohibition/0/remedy/0",
            json!({ "action": "delete", "assigner": "tram" }),
            "prohibition names tram",
        ),
        ("/obligation/0/assigner", json!("tram"), "obligation names tram"),
        ("/permission/0/constraint/0/rightOperand", json!([]), "permission: a rightOperand"),
        (
            "/permission/0/constraint/0/rightOperand",
            json!("x".repeat(401)),
            "permission: a rightOperand",
        ),
        (
            "/permission/0/constraint/0/rightOperand",
            json!(9_007_199_254_740_992_i64),
            "permission: a rightOperand",
        ),
        ("/charter:agreement/version", json!(2), "charter:agreement"),
        ("/charter:infrastructure/0/by", json!("tram"), "charter:infrastructure names tram"),
        (
            "/charter:infrastructure/0/resources/0/owner",
            json!("tram"),
            "charter:infrastructure names tram",
        ),
        ("/charter:infrastructure/1/by", json!("city"), "charter:infrastructure of city"),
        ("/charter:infrastructure/1/resources", json!([]), "charter:infrastructure of acme"),
        (
            "/charter:infrastructure/1",
            orders("acme", vec![resource("data", "acme")]),
            "names data twice",
        ),
        (
            "/charter:infrastructure/1",
            orders("acme", vec![resource("a", "acme"), resource("b", "acme")]),
            "has 3 resources; the agreement allows 2",
        ),
    ] {
        let error = read(&with(pointer, to)).unwrap().outcome().unwrap_err().to_string();
        assert!(error.contains(says), "{pointer}: {error}");
    }
    let mut silent = terms();
    for rules in ["permission", "prohibition", "obligation"] {
        silent[rules] = json!([]);
    }
    assert_eq!(read(&silent).unwrap().outcome(), Err(TermsError::NoRule));
}

#[test]
fn terms_are_between_those_who_negotiate_them() {
    let terms = read(&terms()).unwrap();
    let error = terms.outcome_between(&[member("acme"), member("city"), member("tram")].into(), &member("city"));
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "charter:agreement is between acme, city, and negotiated by acme, city, tram");
    let error = terms.outcome_between(&[member("acme"), member("city")].into(), &member("acme"));
    assert_eq!(error, Err(TermsError::Provider(member("acme"))));
}

#[test]
fn the_same_terms_have_other_digests_under_another_salt() {
    let salted = |byte| Salted {
        salt: Salt::from_bytes([byte; 32]),
        terms: read(&terms()).unwrap(),
    };
    let (one, other) = (salted(1), salted(2));
    assert_ne!(one.digest().unwrap(), other.digest().unwrap());
    assert_ne!(one.agreement_digest().unwrap(), other.agreement_digest().unwrap());
    assert_ne!(one.agreement_digest().unwrap(), one.terms.agreement.digest().unwrap());
    assert_eq!(format!("{:?}", one.salt), "Salt");
}

#[test]
fn terms_are_packed_into_pages_and_held_to_their_digest() {
    let mut salted = Salted {
        salt: Salt::from_bytes([7; 32]),
        terms: read(&terms()).unwrap(),
    };
    let (text, digest) = (salted.pack().unwrap(), salted.digest().unwrap());
    assert_eq!(text.len(), PAGE);
    assert_eq!(Salted::unpack(&text, digest).unwrap(), salted);
    assert!(matches!(Salted::unpack(&text, Digest::of(b"other")), Err(UnpackError::OtherTerms)));
    assert!(matches!(Salted::unpack(b"{}", digest), Err(UnpackError::Malformed(_))));
    let long: Vec<Value> = (0..60)
        .map(|index| {
            json!({ "target": format!("t-{index}"), "action": "use", "assignee": ["acme"], "constraint": [
            { "leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": ["x".repeat(400), "y".repeat(400), "z".repeat(400)] },
        ] })
        })
        .collect();
    salted.terms = read(&with("/permission", Value::from(long))).unwrap();
    let error = salted.pack().unwrap_err().to_string();
    assert!(error.contains(&format!("the limit is {MAX_TEXT}")), "{error}");
}
