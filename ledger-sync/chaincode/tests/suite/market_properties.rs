//! For all sequences of what is said on a market: the ledger and its followers agree, and nothing panics.

use std::collections::{BTreeMap, BTreeSet};

use chaincode::records;
use proptest::prelude::*;
use serde_json::{Value, json};
use state::acts::accounts::RepresentationRecord;
use state::acts::agreed::AgreedRecord;
use state::acts::offers::OfferRecord;
use state::acts::ratings::RatingRecord;
use state::canonical::{self, Digest};
use state::event::EventBody;
use state::records::Record;

use crate::channel::{Actor, Channel, args};
use crate::market::Market;

/// One thing that anybody might say.
#[derive(Clone, Debug)]
struct Try {
    by: usize,
    function: &'static str,
    argument: Value,
}

fn member() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["city", "acme", "tram", "air", "eve"])
}

fn members() -> impl Strategy<Value = BTreeSet<&'static str>> {
    // Often the same few, so that several say the same.
    let usual = [vec!["city", "acme"], vec!["city", "acme", "tram"]].map(|names| names.into_iter().collect());
    prop_oneof![4 => prop::sample::select(usual.to_vec()), 1 => prop::collection::btree_set(member(), 0..4)]
}

fn a_try() -> impl Strategy<Value = Try> {
    let digest = || (0..2u8).prop_map(|n| Digest::of(&[n]));
    let version = || prop_oneof![6 => Just(1), 1 => 0..3u32];
    let offer = || {
        let id = prop::sample::select(vec!["a", "b", "c"]);
        let kind = prop::sample::select(vec!["data-set", "value-service"]);
        let title = prop::sample::select(vec!["Air", "Noise", ""]);
        (id, kind, title).prop_map(|(id, kind, title)| json!({ "id": id, "kind": kind, "title": title }))
    };
    let representation = || {
        (version(), digest(), members()).prop_map(
            |(version, digest, members)| json!({ "dao": "air-quality", "version": version, "agreement": digest, "members": members }),
        )
    };
    let agreed = (version(), digest(), members()).prop_map(
        |(version, digest, parties)| json!({ "dao": "air-quality", "version": version, "agreement": digest, "parties": parties }),
    );
    let rating = (digest(), member(), 0..7u8, prop::sample::select(vec!["", "well done"]))
        .prop_map(|(digest, member, stars, text)| json!({ "agreement": digest, "member": member, "stars": stars, "text": text }));
    let call = prop_oneof![
        2 => offer().prop_map(|argument| ("publish", argument)),
        1 => offer().prop_map(|argument| ("republish", argument)),
        1 => prop::sample::select(vec!["a", "b", "c"]).prop_map(|id| ("withdraw", json!({ "id": id }))),
        2 => representation().prop_map(|argument| ("represent", argument)),
        3 => (member(), representation()).prop_map(|(member, said)| ("vouch", json!({ "member": member, "representation": said }))),
        6 => agreed.prop_map(|argument| ("confirm", argument)),
        5 => digest().prop_map(|digest| ("conclude", json!({ "agreement": digest }))),
        6 => rating.prop_map(|argument| ("rate", argument)),
    ];
    (0..9usize, call).prop_map(|(by, (function, argument))| Try {
        // Whom nothing concerns is rarer than who takes part.
        by: [0, 0, 0, 1, 1, 1, 2, 2, 3][by],
        function,
        argument,
    })
}

fn actor(market: &Market, by: usize) -> &Actor {
    [&market.city, &market.acme, &market.tram, &market.air][by]
}

/// The event that a ledger whose program has no rules would have written.
fn lawless(attempt: &Try) -> Option<EventBody> {
    let argument = attempt.argument.clone();
    Some(match attempt.function {
        "publish" => EventBody::OfferPublished(serde_json::from_value(argument).ok()?),
        "republish" => EventBody::OfferAmended(serde_json::from_value(argument).ok()?),
        "withdraw" => EventBody::OfferWithdrawn(serde_json::from_value(argument).ok()?),
        "represent" => EventBody::DaoRepresented(serde_json::from_value(argument).ok()?),
        "vouch" => EventBody::RepresentationVouched(serde_json::from_value(argument).ok()?),
        "confirm" => EventBody::AgreementConfirmed(serde_json::from_value(argument).ok()?),
        "conclude" => EventBody::AgreementConcluded(serde_json::from_value(argument).ok()?),
        "rate" => EventBody::MemberRated(serde_json::from_value(argument).ok()?),
        _ => return None,
    })
}

/// What the ledger's state has to hold for what a follower built, beside the members.
fn followed(channel: &Channel) -> BTreeMap<String, Vec<u8>> {
    fn all<T: Record>(channel: &Channel, out: &mut BTreeMap<String, Vec<u8>>) {
        for record in channel.desired.records().all::<T>() {
            let any = record.clone().any();
            out.insert(any.key(), canonical::bytes(&any).unwrap());
        }
    }
    let mut out = BTreeMap::new();
    all::<OfferRecord>(channel, &mut out);
    all::<RepresentationRecord>(channel, &mut out);
    all::<AgreedRecord>(channel, &mut out);
    all::<RatingRecord>(channel, &mut out);
    out
}

fn kept(channel: &Channel) -> BTreeMap<String, Vec<u8>> {
    let members: Vec<String> = channel
        .desired
        .members()
        .iter()
        .flat_map(|(member, record)| [records::member(member), records::msp(&record.msp)])
        .collect();
    let mut found = channel.found();
    found.retain(|key, _| !members.contains(key));
    found
}

/// Says it, and holds the ledger and a follower to each other; tells whether it was taken.
fn say(market: &mut Market, attempt: &Try) -> bool {
    let creator = actor(market, attempt.by).creator.clone();
    let by = actor(market, attempt.by).member();
    let channel = &mut market.channel;
    let done = channel.commit(&creator, &args(attempt.function, &attempt.argument));
    let taken = done.response.status == 200;
    if !taken && let Some(body) = lawless(attempt) {
        let event = channel.event(&creator, by, body);
        assert!(channel.desired.apply(&event).is_err(), "{attempt:?} {}", done.response.message);
    }
    assert_eq!(kept(channel), followed(channel), "after {attempt:?}");
    taken
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the program keeps is what its events lead to, and what it refuses a follower refuses too.
    #[test]
    fn the_ledger_and_its_followers_agree(tries in prop::collection::vec(a_try(), 1..60)) {
        let mut market = Market::new();
        for attempt in &tries {
            say(&mut market, attempt);
        }
        for record in market.channel.desired.records().all::<RatingRecord>() {
            let agreed: &AgreedRecord = market.channel.desired.records().of(&AgreedRecord::name(record.rating.agreement)).unwrap();
            prop_assert!(agreed.is_finished());
            prop_assert!(agreed.agreed.parties.contains(&record.rating.member) && agreed.agreed.parties.contains(&record.rated.by));
        }
    }

    /// No document that is nearly right makes it panic: one place of a good one is replaced, cut or doubled.
    #[test]
    fn no_damage_breaks_it(attempt in a_try(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut market = Market::new();
        let creator = actor(&market, attempt.by).creator.clone();
        let mut arguments = args(attempt.function, &attempt.argument);
        let place = at.index(arguments[1].len());
        if cut {
            arguments[1].truncate(place);
        } else {
            arguments[1][place] = with;
        }
        market.channel.commit(&creator, &arguments);
        prop_assert_eq!(kept(&market.channel), followed(&market.channel));
    }
}

/// The generator is worth something: every function is taken, and refused, sometimes.
#[test]
fn what_is_said_at_random_is_of_many_kinds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut ends = BTreeSet::new();
    for _ in 0..40 {
        let mut market = Market::new();
        for _ in 0..80 {
            let attempt = a_try().new_tree(&mut runner).unwrap().current();
            let taken = say(&mut market, &attempt);
            ends.insert((attempt.function, taken));
        }
    }
    for function in [
        "publish",
        "republish",
        "withdraw",
        "represent",
        "vouch",
        "confirm",
        "conclude",
        "rate",
    ] {
        for taken in [true, false] {
            assert!(ends.contains(&(function, taken)), "{function} {taken}: {ends:?}");
        }
    }
}
