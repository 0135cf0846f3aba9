//! For all sequences of moves: the ledger and its followers agree on a negotiation, and nothing panics.

use proptest::prelude::*;
use serde_json::{Value, json};
use state::acts::negotiations::NegotiationState;
use state::event::EventBody;

use crate::channel::{Actor, args};
use crate::negotiating::{ACME, CITY, EVE, MOB, accepted, agree, at, key, request, resulting, tabled, terminated};

/// A move that anybody might try, in any state.
fn a_try() -> impl Strategy<Value = (usize, &'static str, Value)> {
    let round = 1..4u32;
    let step = prop_oneof![
        1 => Just(("negotiate_request", request())),
        4 => round.clone().prop_map(|round| ("negotiate_offer", tabled(round))),
        8 => round.clone().prop_map(|round| ("negotiate_accept", accepted(round))),
        6 => round.clone().prop_map(|round| ("negotiate_agree", resulting(round))),
        8 => round.clone().prop_map(|round| ("negotiate_verify", resulting(round))),
        6 => round.prop_map(|round| ("negotiate_finalize", resulting(round))),
        1 => Just(("negotiate_terminate", terminated())),
        1 => prop::sample::select(vec!["acme", "eve", "next"]).prop_map(|name| ("publish_key", json!({ "key": key(name) }))),
    ];
    (0..10usize, step).prop_map(|(by, (function, argument))| (by, function, argument))
}

fn actor(index: usize) -> &'static Actor {
    // The stranger is rarer than the parties.
    [&*CITY, &*ACME, &*EVE, &*CITY, &*ACME, &*EVE, &*CITY, &*ACME, &*EVE, &*MOB][index % 10]
}

/// The event that a ledger whose program has no rules would have written.
fn lawless(function: &str, argument: &Value) -> EventBody {
    let data = argument.clone();
    match function {
        "publish_key" => EventBody::KeyPublished(serde_json::from_value(data).unwrap()),
        "negotiate_request" => EventBody::NegotiationRequested(serde_json::from_value(data).unwrap()),
        "negotiate_offer" => EventBody::NegotiationOffered(serde_json::from_value(data).unwrap()),
        "negotiate_accept" => EventBody::NegotiationAccepted(serde_json::from_value(data).unwrap()),
        "negotiate_agree" => EventBody::NegotiationAgreed(serde_json::from_value(data).unwrap()),
        "negotiate_verify" => EventBody::NegotiationVerified(serde_json::from_value(data).unwrap()),
        "negotiate_finalize" => EventBody::NegotiationFinalized(serde_json::from_value(data).unwrap()),
        _ => EventBody::NegotiationTerminated(serde_json::from_value(data).unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is tried, ledger and followers agree, and what the program refuses no follower takes in.
    #[test]
    fn the_ledger_and_its_followers_agree_on_negotiations(tries in prop::collection::vec(a_try(), 1..40)) {
        let mut channel = at(NegotiationState::Requested);
        for (by, function, argument) in tries {
            let creator = &actor(by).creator;
            let done = channel.commit(creator, &args(function, &argument));
            if done.response.status != 200 {
                let event = channel.event(creator, actor(by).member(), lawless(function, &argument));
                prop_assert!(channel.desired.apply(&event).is_err(), "{} {}", function, done.response.message);
            }
            agree(&channel);
        }
    }

    /// No document that is nearly right makes it panic, and what is refused leaves no trace.
    #[test]
    fn no_damage_breaks_a_negotiation(
        attempt in a_try(), state in prop::sample::select(NegotiationState::ALL.to_vec()),
        place in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut channel = at(state);
        let (by, function, argument) = attempt;
        let mut arguments = args(function, &argument);
        let place = place.index(arguments[1].len());
        if cut {
            arguments[1].truncate(place);
        } else {
            arguments[1][place] = with;
        }
        channel.commit(&actor(by).creator, &arguments);
        agree(&channel);
    }
}
