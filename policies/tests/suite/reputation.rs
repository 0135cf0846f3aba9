//! Reputation: exact means, facts from reports, and what an agreement demands.

use std::collections::BTreeMap;

use policies::reputation::{Conduct, Score, shortfalls};
use proptest::prelude::*;
use serde_json::json;
use state::acts::ratings::RatingRecord;
use state::clauses::ReputationClause;
use state::ids::MemberId;
use state::records::{Collection, Records};
use state::report::Report;
use state::reported::MemberReports;
use state::time::Timestamp;

fn member(name: &str) -> MemberId {
    MemberId::new(name).unwrap()
}

/// A market on which these were said: by whom, of whom, how many stars.
fn market(ratings: &[(&str, &str, u8)]) -> Records {
    let mut records = Records::default();
    for (n, (by, of, stars)) in ratings.iter().enumerate() {
        let record = json!({
            "dao": "air", "version": 1,
            "rating": { "agreement": format!("sha256:{n:064x}"), "member": of, "stars": stars },
            "rated": { "tx_id": format!("{n:064x}"), "at": "2026-01-01T00:00:00Z", "by": by },
        });
        records.put(Collection::Rating.parse(record.to_string().as_bytes()).unwrap());
    }
    assert_eq!(records.all::<RatingRecord>().count(), ratings.len());
    records
}

#[test]
fn a_mean_is_exact_and_is_shown_rounded_down() {
    let scores = Score::by_member(&market(&[
        ("city", "acme", 5),
        ("tram", "acme", 4),
        ("city", "acme", 4),
        ("acme", "city", 1),
    ]));
    let acme = &scores[&member("acme")];
    assert_eq!((acme.ratings, acme.stars, acme.raters), (3, 13, 2));
    assert_eq!(acme.to_string(), "4.3 (13/3)");
    assert_eq!(scores[&member("city")].to_string(), "1.0 (1/1)");
    assert_eq!(Score::default().to_string(), "none");
    assert_eq!(Score::default().tenths(), None);
}

#[test]
fn an_agreement_can_demand_a_minimum_of_the_others() {
    let scores = Score::by_member(&market(&[("city", "acme", 5), ("tram", "acme", 4), ("city", "tram", 5)]));
    let parties = ["city", "acme", "tram"].map(member);
    let short = |min_ratings, min_tenths, by: &str| {
        let clause = ReputationClause { min_ratings, min_tenths };
        let found = shortfalls(&clause, &scores, &parties, &member(by));
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // Nobody is held to its own.
    assert_eq!(short(1, 45, "city"), Vec::<String>::new());
    assert_eq!(
        short(1, 46, "city"),
        ["clauses.reputation.min_tenths: the mean of acme is 9/2 stars, 4.6 are needed"]
    );
    assert_eq!(
        short(2, 10, "city"),
        ["clauses.reputation.min_ratings: tram has 1 ratings, 2 are needed"]
    );
    assert_eq!(
        short(1, 10, "acme"),
        ["clauses.reputation.min_ratings: city has 0 ratings, 1 are needed"]
    );
}

fn report(steps: &serde_json::Value, changes: &serde_json::Value) -> Report {
    serde_json::from_value(json!({
        "channel": "air", "member": "city", "sequence": 1, "previous": null, "desired": { "block": 1, "tx": 0 },
        "commit": "0123456789abcdef0123456789abcdef01234567", "plan": format!("sha256:{:064x}", 1),
        "observed_at": "2026-01-01T00:00:00Z", "steps": steps, "changes": changes, "whole": format!("sha256:{:064x}", 2),
    }))
    .unwrap()
}

/// A member's reports, taken together: only how its resources stand matters here.
fn reports(statuses: &serde_json::Value) -> MemberReports {
    let submitted = json!({ "position": { "block": 1, "tx": 0 }, "tx_id": "0".repeat(64), "at": "2026-01-01T00:00:00Z", "by": "city" });
    let digest = format!("sha256:{:064x}", 1);
    MemberReports {
        head: serde_json::from_value(json!({
            "sequence": 1, "digest": digest, "submitted": submitted, "desired": { "block": 1, "tx": 0 }, "commit": "0", "plan": digest,
            "observed_at": "2026-01-01T00:00:00Z", "whole": digest,
        }))
        .unwrap(),
        statuses: serde_json::from_value(statuses.clone()).unwrap(),
    }
}

#[test]
fn conduct_is_counted_from_reports() {
    let mut conduct = Conduct::default();
    let quiet = report(&json!([]), &json!({}));
    let step = |outcome: &str, tx: serde_json::Value| {
        let mut step = json!({ "resource": "a", "action": "update", "outcome": outcome, "plan": format!("sha256:{:064x}", 1) });
        if !tx.is_null() {
            step["tx"] = tx;
        }
        step
    };
    // Healed is what was done without an order, and what only failed is not.
    let busy = report(
        &json!([
            step("done", json!(null)),
            step("failed", json!(null)),
            step("done", json!({ "block": 1, "tx": 0 })),
        ]),
        &json!({ "a": { "kind": "machine/file", "condition": "drifted" }, "b": { "kind": "machine/file", "condition": "in-sync" }, "c": null }),
    );
    for (seconds, report) in [
        (1_000, &quiet),
        (1_900, &busy),
        (3_700, &quiet),
        (5_501, &quiet),
        (5_400, &quiet),
        (5_600, &quiet),
    ] {
        conduct.take(Timestamp::clamped(seconds), report, 900);
    }
    // Two heartbeats apart is in time; one second more is not; a clock that goes back makes no gap.
    assert_eq!((conduct.reports, conduct.late, conduct.longest_gap), (6, 1, 1_801));
    assert_eq!((conduct.drifted, conduct.healed), (1, 1));
    assert_eq!(conduct.last, Some(Timestamp::clamped(5_600)));
    // Silence counts from the moment at which a heartbeat was missed.
    let statuses =
        json!({ "a": { "kind": "machine/file", "condition": "failed" }, "b": { "kind": "machine/file", "condition": "in-sync" } });
    let reports = reports(&statuses);
    conduct.stand(&reports, Timestamp::clamped(5_600 + 1_800), 900);
    assert_eq!((conduct.silent, conduct.pending), (0, 1));
    conduct.stand(&reports, Timestamp::clamped(5_600 + 1_801), 900);
    assert_eq!((conduct.silent, conduct.pending), (1_801, 1));
    let both = conduct.clone().and(&conduct);
    assert_eq!((both.reports, both.late, both.healed, both.longest_gap), (12, 2, 2, 1_801));
}

proptest! {
    /// The demand is met exactly when the shown mean, which is rounded down, is not below it.
    #[test]
    fn what_is_shown_is_what_is_judged(stars in prop::collection::vec(1..=5u8, 1..40), min_tenths in 10..=50u32) {
        let said: Vec<(&str, &str, u8)> = stars.iter().map(|stars| ("city", "acme", *stars)).collect();
        let scores: BTreeMap<_, _> = Score::by_member(&market(&said));
        let clause = ReputationClause { min_ratings: 1, min_tenths };
        let short = shortfalls(&clause, &scores, &[member("acme")], &member("city"));
        prop_assert_eq!(short.is_empty(), scores[&member("acme")].tenths().unwrap() >= u64::from(min_tenths));
    }
}
