//! Profit on the ledger: who may state one, and that the parts are everybody's to the unit.

use proptest::prelude::*;
use serde_json::{Value, json};
use state::acts::distributions::DistributionRecord;

use crate::channel::{Actor, Channel, agreement};

fn profit(period: &str, amount: &str) -> Value {
    json!({ "period": period, "amount": amount })
}

#[test]
fn a_profit_is_divided_once_a_period() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut channel = Channel::agreed(&city, &acme);
    channel.accept(&city, "distribute", &profit("q1-2027", "1001"));
    let record: &DistributionRecord = channel.desired.records().of("q1-2027").unwrap();
    let parts: Vec<(String, u128)> = record.parts.iter().map(|part| (part.member.to_string(), part.amount.0)).collect();
    // 800.8 and 200.2: the unit that is left goes to the largest fraction.
    assert_eq!(parts, [("city".to_owned(), 801), ("acme".to_owned(), 200)]);
    for (actor, argument, answer) in [
        (
            &city,
            profit("q1-2027", "5"),
            "409 the change is refused: the profit of q1-2027 was divided already, in transaction",
        ),
        (
            &acme,
            profit("q2-2027", "5"),
            "403 the change is refused: a profit is stated by a data service provider, and acme is none",
        ),
        (
            &city,
            profit("q2-2027", "-5"),
            "400 the argument of distribute is malformed: \"-5\" is no amount",
        ),
        (
            &city,
            profit("q2-2027", "005"),
            "400 the argument of distribute is malformed: \"005\" is no amount",
        ),
        (
            &city,
            profit("Q 2", "5"),
            "400 the argument of distribute is malformed: the period's name",
        ),
        (
            &city,
            json!({ "period": "q2-2027", "amount": 5 }),
            "400 the argument of distribute is malformed",
        ),
    ] {
        let found = channel.refuse(actor, "distribute", &argument);
        assert!(found.starts_with(answer), "{found}");
    }
    let max = u128::MAX.to_string();
    channel.accept(&city, "distribute", &profit("q2-2027", &max));
    assert_eq!(channel.found(), channel.expected());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// No unit is lost or made up, for up to 64 parties.
    #[test]
    fn the_parts_sum_to_the_profit(betas in prop::collection::vec(1..1_000_000_000u32, 1..64), amount in any::<u128>()) {
        let mut agreement = agreement();
        agreement["version"] = json!(betas.len());
        let parties = agreement["parties"].as_array_mut().unwrap();
        parties.truncate(1);
        for (i, beta) in betas.iter().enumerate() {
            let beta = format!("0.{beta:09}");
            parties.push(json!({ "member": format!("v{i}"), "msp": format!("V{i}MSP"), "role": "value-service-provider", "beta": beta }));
        }
        let agreement: state::agreement::Agreement = serde_json::from_value(agreement).unwrap();
        let parts = state::shares::distribute(amount, &agreement).unwrap();
        prop_assert_eq!(parts.len(), betas.len() + 1);
        prop_assert_eq!(parts.iter().map(|(_, part)| *part).reduce(|a, b| a.checked_add(b).unwrap()), Some(amount));
    }
}
