//! Negotiations: the whole table of states and moves, every refusal, and that a follower comes to the same records.

use serde_json::{Value, json};
use state::acts::keys::KeyRecord;
use state::acts::negotiations::{MAX_ROUNDS, Move, NegotiationRecord, NegotiationState, SealedRecord};
use state::canonical;
use state::ids::MemberId;
use state::records::{self, Record};
use state::sealed::{Envelope, TAG, WRAPPED};

use crate::channel::{Actor, Channel, args};
use crate::negotiating::{
    ACME, CITY, EVE, MOB, PARTIES, accepted, agree, at, digest, envelope, key, market, record, request, resulting, sealed, tabled,
    terminated,
};

/// A move with the argument that fits the state, by somebody whose move it is.
fn fitting(channel: &Channel, step: Move) -> (&'static Actor, &'static str, Value) {
    let round = record(channel).round().max(1);
    match step {
        Move::Offer => (&EVE, "negotiate_offer", tabled(record(channel).round() + 1)),
        Move::Accept => (&EVE, "negotiate_accept", accepted(round)),
        Move::Agree => (&CITY, "negotiate_agree", resulting(round)),
        Move::Verify => (&EVE, "negotiate_verify", resulting(round)),
        Move::Finalize => (&CITY, "negotiate_finalize", resulting(round)),
        Move::Terminate => (&ACME, "negotiate_terminate", terminated()),
    }
}

const MOVES: [Move; 6] = [
    Move::Offer,
    Move::Accept,
    Move::Agree,
    Move::Verify,
    Move::Finalize,
    Move::Terminate,
];

#[test]
fn every_move_in_every_state_is_as_the_table_says() {
    use NegotiationState::{Accepted, Agreed, Finalized, Offered, Requested, Terminated, Verified};
    // What a move leads to with the three parties of these tests; what is not here is refused.
    let table = [
        (Requested, Move::Offer, Offered),
        (Requested, Move::Terminate, Terminated),
        (Offered, Move::Offer, Offered),
        (Offered, Move::Accept, Offered),
        (Offered, Move::Terminate, Terminated),
        (Accepted, Move::Offer, Offered),
        (Accepted, Move::Agree, Agreed),
        (Accepted, Move::Terminate, Terminated),
        (Agreed, Move::Verify, Agreed),
        (Agreed, Move::Terminate, Terminated),
        (Verified, Move::Finalize, Finalized),
        (Verified, Move::Terminate, Terminated),
    ];
    for state in NegotiationState::ALL {
        for step in MOVES {
            let mut channel = at(state);
            let (actor, function, argument) = fitting(&channel, step);
            let leads = table.iter().find(|(from, by, _)| (*from, *by) == (state, step));
            if let Some((_, _, to)) = leads {
                channel.accept(actor, function, &argument);
                assert_eq!(record(&channel).state, *to, "{state} {step:?}");
                agree(&channel);
                continue;
            }
            let possible: Vec<&str> = table
                .iter()
                .filter(|(from, ..)| *from == state)
                .map(|(_, by, _)| by.word())
                .collect();
            let possible = match possible.as_slice() {
                [] => "it has ended".into(),
                words => format!("possible: {}", words.join(", ")),
            };
            assert_eq!(
                channel.refuse(actor, function, &argument),
                format!(
                    "409 the change is refused: negotiation air is {state}: {} is not possible now; {possible}",
                    step.word()
                )
            );
        }
        // Its name is taken in every state.
        assert_eq!(
            at(state).refuse(&ACME, "negotiate_request", &request()),
            "409 the change is refused: negotiation air exists already: choose another name"
        );
    }
}

#[test]
fn who_can_do_what_next_is_who_may() {
    for state in NegotiationState::ALL {
        for (actor, name) in [(&*CITY, "city"), (&*ACME, "acme"), (&*EVE, "eve"), (&*MOB, "mob")] {
            let next = record(&at(state)).next(&MemberId::new(name).unwrap());
            for step in MOVES {
                let mut channel = at(state);
                let (_, function, argument) = fitting(&channel, step);
                let done = channel.commit(&actor.creator, &args(function, &argument));
                assert_eq!(done.response.status == 200, next.contains(&step), "{name} {state} {step:?}");
            }
        }
    }
}

#[test]
fn a_counter_offer_is_a_new_round_and_takes_acceptances_back() {
    let mut channel = at(NegotiationState::Offered);
    channel.accept(&ACME, "negotiate_accept", &accepted(1));
    channel.accept(&EVE, "negotiate_offer", &tabled(2));
    let found = record(&channel);
    let by: Vec<&str> = found.rounds.iter().map(|round| round.offered.by.as_str()).collect();
    assert_eq!((found.state, by), (NegotiationState::Offered, vec!["city", "eve"]));
    // Whoever offers has accepted what it offers.
    assert_eq!(found.accepted.keys().map(MemberId::as_str).collect::<Vec<_>>(), ["eve"]);
    assert_eq!(found.rounds[1].digest, digest("terms 2"));
    assert_eq!(found.rounds[1].envelope, envelope(&PARTIES).digest().unwrap());
    // Both rounds' terms stay where their parties find them.
    for round in [1, 2] {
        let name = format!("air-{round}");
        let kept = channel.desired.records().of::<SealedRecord>(&name).unwrap().clone();
        assert_eq!((kept.round, kept.envelope.to.len()), (round, 3));
        let read = channel.commit(&MOB.creator, &[b"sealed".to_vec(), name.into_bytes()]);
        assert_eq!(read.response.payload, canonical::bytes(&kept).unwrap());
    }
    // Nobody signs a round that was replaced.
    assert_eq!(
        channel.refuse(&ACME, "negotiate_accept", &accepted(1)),
        "409 the change is refused: negotiation air: round 1 is not the one that counts, which is 2: look at what is on the table now"
    );
    channel.accept(&ACME, "negotiate_accept", &accepted(2));
    assert_eq!(record(&channel).state, NegotiationState::Accepted);
    agree(&channel);
}

#[test]
fn the_only_consumers_own_offer_is_accepted_at_once() {
    let mut channel = market();
    let two = json!({ "id": "air", "provider": "city", "parties": ["acme", "city"] });
    channel.accept(&CITY, "negotiate_request", &two);
    let mut offer = tabled(1);
    offer["envelope"] = json!(envelope(&["acme", "city"]));
    channel.accept(&ACME, "negotiate_offer", &offer);
    assert_eq!(record(&channel).state, NegotiationState::Accepted);
    channel.accept(&CITY, "negotiate_agree", &resulting(1));
    channel.accept(&ACME, "negotiate_verify", &resulting(1));
    channel.accept(&CITY, "negotiate_finalize", &resulting(1));
    let found = record(&channel);
    assert_eq!(
        (found.state, found.agreement),
        (NegotiationState::Finalized, Some(digest("agreement")))
    );
    assert_eq!(found.finalized.unwrap().by.as_str(), "city");
    agree(&channel);
}

#[test]
fn who_may_ask_whom() {
    let channel = &mut market();
    let with = |key: &str, to: Value| {
        let mut changed = request();
        changed[key] = to;
        changed
    };
    channel.accept(
        &MOB,
        "publish",
        &json!({ "id": "scores", "kind": "value-service", "title": "Scores of everything" }),
    );
    for (actor, argument, answer) in [
        (&*MOB, request(), "403 the change is refused: mob is no party of negotiation air"),
        (
            &*ACME,
            with("parties", json!(["acme"])),
            "400 the change is refused: negotiation air: parties: there have to be 2 to 64, these are 1",
        ),
        (
            &*ACME,
            with("parties", json!((0..65).map(|n| format!("m-{n}")).collect::<Vec<_>>())),
            "400 the change is refused: negotiation air: parties: there have to be 2 to 64, these are 65",
        ),
        (
            &*ACME,
            with("parties", json!(["acme", "city", "nobody"])),
            "409 the change is refused: negotiation air: nobody is not registered on this market",
        ),
        (
            &*ACME,
            with("provider", json!("eve")),
            "400 the change is refused: negotiation air: its provider has to be a data service provider among the parties, and eve is none",
        ),
        (
            &*ACME,
            with("provider", json!("mob")),
            "400 the change is refused: negotiation air: its provider has to be a data service provider among the parties, and mob is none",
        ),
        (
            &*ACME,
            with("about", json!("scores")),
            "409 the change is refused: negotiation air is about offer scores, which no party of it offers on this market",
        ),
        (
            &*ACME,
            with("about", json!("nothing")),
            "409 the change is refused: negotiation air is about offer nothing",
        ),
        (
            &*ACME,
            with("id", json!("a".repeat(49))),
            "400 the argument of negotiate_request is malformed: the negotiation's name",
        ),
        (
            &*ACME,
            with("terms", json!("in the open")),
            "400 the argument of negotiate_request is malformed: unknown field `terms`",
        ),
    ] {
        let found = channel.refuse(actor, "negotiate_request", &argument);
        assert!(found.starts_with(answer), "{found}");
    }
    channel.accept(
        &CITY,
        "publish",
        &json!({ "id": "readings", "kind": "data-set", "title": "Readings of the air" }),
    );
    channel.accept(&ACME, "negotiate_request", &with("about", json!("readings")));
    assert_eq!(record(channel).about.unwrap().as_str(), "readings");
    assert_eq!(
        channel.refuse(
            &ACME,
            "negotiate_accept",
            &json!({ "id": "water", "round": 1, "digest": digest("x") })
        ),
        "404 the change is refused: negotiation water does not exist on this market"
    );
}

#[test]
fn terms_are_sealed_to_every_party_and_to_nobody_else() {
    let channel = &mut at(NegotiationState::Requested);
    let with = |change: &dyn Fn(&mut Envelope)| {
        let mut argument = tabled(1);
        let mut changed = envelope(&PARTIES);
        change(&mut changed);
        argument["envelope"] = json!(changed);
        argument
    };
    let (acme, mob) = (MemberId::new("acme").unwrap(), MemberId::new("mob").unwrap());
    let addressees = "400 the change is refused: negotiation air: its terms have to be sealed to every party and to nobody else";
    let empty = "400 the change is refused: negotiation air: the envelope holds no terms, or no key for one of its addressees";
    for (argument, answer) in [
        (with(&|envelope| drop(envelope.to.remove(&acme))), addressees),
        (
            with(&|envelope| drop(envelope.to.insert(mob.clone(), envelope.to[&acme].clone()))),
            addressees,
        ),
        (with(&|envelope| envelope.sealed = sealed(TAG)), empty),
        (
            with(&|envelope| envelope.to.get_mut(&acme).unwrap().sealed = sealed(WRAPPED - 1)),
            empty,
        ),
        (
            with(&|envelope| envelope.to.get_mut(&acme).unwrap().key = key("old")),
            "409 the change is refused: negotiation air: the terms are sealed to a key that acme has replaced: seal them again",
        ),
        (
            tabled(2),
            "409 the change is refused: negotiation air: round 2 is not the one that counts, which is 1: look at what is on the table now",
        ),
    ] {
        assert_eq!(channel.refuse(&CITY, "negotiate_offer", &argument), answer);
    }
    let mut long = tabled(1);
    long["envelope"]["sealed"] = json!("A".repeat((64 * 1024 + TAG).div_ceil(3) * 4 + 4));
    let found = channel.refuse(&CITY, "negotiate_offer", &long);
    assert!(
        found
            .starts_with("400 the argument of negotiate_offer is malformed: sealed bytes are written in base64, 16 to 65552 bytes of them"),
        "{found}"
    );
    // A party without a key has to publish one first.
    let other = json!({ "id": "water", "provider": "city", "parties": ["city", "mob"] });
    channel.accept(&MOB, "negotiate_request", &other);
    let mut argument = tabled(1);
    argument["id"] = json!("water");
    argument["envelope"] = json!(envelope(&["city", "mob"]));
    assert_eq!(
        channel.refuse(&CITY, "negotiate_offer", &argument),
        "409 the change is refused: negotiation water: mob has published no key that terms could be sealed to: it has to, first"
    );
    channel.accept(&MOB, "publish_key", &json!({ "key": key("mob") }));
    channel.accept(&CITY, "negotiate_offer", &argument);
    agree(channel);
}

#[test]
fn everybody_signs_the_same_digests() {
    let other = |mut argument: Value, key: &str| {
        argument[key] = json!(digest("other"));
        argument
    };
    let terms = "409 the change is refused: negotiation air: the digest is not that of the terms on the table";
    let agreement = "409 the change is refused: negotiation air: the agreement is not the one that the provider agreed to: its terms make \
                     another one, or were read otherwise";
    for (state, actor, function, argument, answer) in [
        (
            NegotiationState::Offered,
            &*ACME,
            "negotiate_accept",
            other(accepted(1), "digest"),
            terms,
        ),
        (
            NegotiationState::Accepted,
            &*CITY,
            "negotiate_agree",
            other(resulting(1), "digest"),
            terms,
        ),
        (
            NegotiationState::Agreed,
            &*ACME,
            "negotiate_verify",
            other(resulting(1), "digest"),
            terms,
        ),
        (
            NegotiationState::Agreed,
            &*ACME,
            "negotiate_verify",
            other(resulting(1), "agreement"),
            agreement,
        ),
        (
            NegotiationState::Verified,
            &*CITY,
            "negotiate_finalize",
            other(resulting(1), "digest"),
            terms,
        ),
        (
            NegotiationState::Verified,
            &*CITY,
            "negotiate_finalize",
            other(resulting(1), "agreement"),
            agreement,
        ),
    ] {
        assert_eq!(at(state).refuse(actor, function, &argument), answer);
    }
}

#[test]
fn each_step_is_its_sides() {
    let cases = [
        (
            NegotiationState::Offered,
            &*CITY,
            "negotiate_accept",
            accepted(1),
            "403 the change is refused: negotiation air: to accept is its consumers', and city is its provider",
        ),
        (
            NegotiationState::Accepted,
            &*ACME,
            "negotiate_agree",
            resulting(1),
            "403 the change is refused: negotiation air: to agree is its provider's, city, not acme's",
        ),
        (
            NegotiationState::Agreed,
            &*CITY,
            "negotiate_verify",
            resulting(1),
            "403 the change is refused: negotiation air: to verify is its consumers', and city is its provider",
        ),
        (
            NegotiationState::Verified,
            &*EVE,
            "negotiate_finalize",
            resulting(1),
            "403 the change is refused: negotiation air: to finalize is its provider's, city, not eve's",
        ),
        (
            NegotiationState::Offered,
            &*MOB,
            "negotiate_terminate",
            terminated(),
            "403 the change is refused: mob is no party of negotiation air",
        ),
    ];
    for (state, actor, function, argument, answer) in cases {
        assert_eq!(at(state).refuse(actor, function, &argument), answer);
    }
    let mut channel = at(NegotiationState::Offered);
    channel.accept(&EVE, "negotiate_accept", &accepted(1));
    assert_eq!(
        channel.refuse(&EVE, "negotiate_accept", &accepted(1)),
        "409 the change is refused: negotiation air: eve has done this already (accept) in round 1"
    );
    let mut channel = at(NegotiationState::Agreed);
    channel.accept(&EVE, "negotiate_verify", &resulting(1));
    assert_eq!(
        channel.refuse(&EVE, "negotiate_verify", &resulting(1)),
        "409 the change is refused: negotiation air: eve has done this already (verify) in round 1"
    );
}

#[test]
fn an_end_has_a_reason_and_rounds_have_a_limit() {
    let mut channel = at(NegotiationState::Offered);
    for (reason, found) in [(String::new(), 0), ("x".repeat(401), 401)] {
        assert_eq!(
            channel.refuse(&ACME, "negotiate_terminate", &json!({ "id": "air", "reason": reason })),
            format!("400 the change is refused: negotiation air: reason has to have 1 to 400 characters, this one has {found}")
        );
    }
    for round in 2..=MAX_ROUNDS {
        channel.accept(&EVE, "negotiate_offer", &tabled(round));
    }
    assert_eq!(
        channel.refuse(&CITY, "negotiate_offer", &tabled(MAX_ROUNDS + 1)),
        "409 the change is refused: negotiation air had 64 rounds, which is the limit: accept the terms on the table, or terminate it"
    );
    channel.accept(&CITY, "negotiate_terminate", &terminated());
    let ended = record(&channel).terminated.unwrap();
    assert_eq!((ended.reason.as_str(), ended.submitted.by.as_str()), ("no common ground", "city"));
    agree(&channel);
}

#[test]
fn a_key_is_replaced_by_another() {
    let mut channel = market();
    assert_eq!(
        channel.refuse(&ACME, "publish_key", &json!({ "key": key("acme") })),
        "409 the change is refused: this is the key that acme has published already: make a new one to replace it"
    );
    channel.accept(&ACME, "publish_key", &json!({ "key": key("next") }));
    let kept = channel.desired.records().of::<KeyRecord>("acme").unwrap().clone();
    assert_eq!((kept.key, kept.revision), (key("next"), 2));
    let read = channel.commit(&MOB.creator, &[b"key".to_vec(), b"acme".to_vec()]);
    assert_eq!(read.response.payload, canonical::bytes(&kept).unwrap());
    let found = channel.refuse(&ACME, "publish_key", &json!({ "key": "ab" }));
    assert!(
        found.contains("a public key is written as 64 lower-case hexadecimal digits"),
        "{found}"
    );
    agree(&channel);
}

#[test]
fn negotiations_are_listed_by_page() {
    let mut channel = market();
    let names = ["a", "a-1", "b", "c"];
    for name in names {
        let mut asked = request();
        asked["id"] = json!(name);
        channel.accept(&ACME, "negotiate_request", &asked);
    }
    let (mut seen, mut page) = (Vec::new(), json!({ "limit": 3 }));
    loop {
        let done = channel.accept(&MOB, "negotiations", &page);
        let answer: Value = serde_json::from_slice(&done.response.payload).unwrap();
        seen.extend(
            answer["records"]
                .as_array()
                .unwrap()
                .iter()
                .map(|found| found["id"].as_str().unwrap().to_owned()),
        );
        if answer["next"].is_null() {
            break;
        }
        page["after"] = answer["next"].clone();
    }
    assert_eq!(seen, names);
    let key = records::key(NegotiationRecord::COLLECTION, "a-1");
    assert!(channel.state.iter().any(|(found, _)| found == key));
}
