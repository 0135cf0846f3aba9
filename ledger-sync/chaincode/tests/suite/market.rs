//! A market: offers, accounts of DAOs, what is known of agreements, and ratings.

use serde_json::{Value, json};
use state::acts::accounts::RepresentationRecord;
use state::acts::agreed::AgreedRecord;
use state::acts::offers::OfferRecord;
use state::acts::ratings::RatingRecord;
use state::canonical::Digest;

use crate::channel::{Actor, Channel};

/// A market with a data service provider, two value service providers, and one member more.
pub(crate) struct Market {
    pub(crate) channel: Channel,
    pub(crate) city: Actor,
    pub(crate) acme: Actor,
    pub(crate) tram: Actor,
    pub(crate) air: Actor,
}

impl Market {
    pub(crate) fn new() -> Self {
        let mut market = Self {
            channel: Channel::new(),
            city: Actor::new("CityMSP"),
            acme: Actor::new("AcmeMSP"),
            tram: Actor::new("TramMSP"),
            air: Actor::new("AirMSP"),
        };
        let (channel, vsp) = (&mut market.channel, "value-service-provider");
        channel.accept(
            &market.city,
            "register",
            &json!({ "member": "city", "role": "data-service-provider" }),
        );
        channel.accept(&market.acme, "register", &json!({ "member": "acme", "role": vsp }));
        channel.accept(&market.tram, "register", &json!({ "member": "tram", "role": vsp }));
        channel.accept(&market.air, "register", &json!({ "member": "air", "role": vsp }));
        market
    }

    /// The same record on the ledger and with a follower.
    fn record<T: state::records::Record + PartialEq + std::fmt::Debug>(&self, id: &str) -> T {
        let key = state::records::key(T::COLLECTION, id);
        let kept = T::COLLECTION.parse(self.channel.state.get(&key).unwrap()).unwrap();
        let followed: &T = self.channel.desired.records().of(id).unwrap();
        assert_eq!(T::of(&kept), Some(followed));
        followed.clone()
    }
}

fn offer(id: &str, kind: &str) -> Value {
    json!({ "id": id, "kind": kind, "title": "Air quality", "keywords": ["air"], "terms": { "beta": "0.7" } })
}

fn with(mut value: Value, field: &str, to: Value) -> Value {
    value[field] = to;
    value
}

fn digest(n: u8) -> Digest {
    Digest::of(&[n])
}

fn agreed(n: u8, parties: &[&str]) -> Value {
    json!({ "dao": "air-quality", "version": 1, "agreement": digest(n), "parties": parties })
}

fn dao(members: &[&str]) -> Value {
    json!({ "dao": "air-quality", "version": 1, "agreement": digest(1), "members": members })
}

fn rating(n: u8, member: &str, stars: u64, text: &str) -> Value {
    json!({ "agreement": digest(n), "member": member, "stars": stars, "text": text })
}

/// Checks that a call is refused in words that start so.
#[track_caller]
fn refused(channel: &mut Channel, actor: &Actor, function: &str, argument: &Value, answer: &str) {
    let found = channel.refuse(actor, function, argument);
    assert!(found.starts_with(answer), "{found}");
}

#[test]
fn an_offer_is_published_amended_and_withdrawn() {
    let mut market = Market::new();
    let (channel, city) = (&mut market.channel, &market.city);
    channel.accept(city, "publish", &offer("readings", "data-set"));
    refused(
        channel,
        city,
        "publish",
        &offer("readings", "data-set"),
        "409 the change is refused: offer readings exists already",
    );
    channel.accept(
        city,
        "republish",
        &with(offer("readings", "data-set"), "title", json!("Better air")),
    );
    channel.accept(city, "withdraw", &json!({ "id": "readings" }));
    let record: OfferRecord = market.record("readings");
    assert_eq!((record.revision, record.offer.title.as_str()), (2, "Better air"));
    assert!(record.amended.is_some() && record.withdrawn.is_some());
    let (channel, city) = (&mut market.channel, &market.city);
    for (function, argument) in [
        ("republish", offer("readings", "data-set")),
        ("withdraw", json!({ "id": "readings" })),
    ] {
        refused(
            channel,
            city,
            function,
            &argument,
            "409 the change is refused: offer readings was withdrawn",
        );
    }
    // Its name is not free again.
    refused(
        channel,
        city,
        "publish",
        &offer("readings", "data-set"),
        "409 the change is refused: offer readings exists already",
    );
}

#[test]
fn which_offers_are_refused() {
    let mut market = Market::new();
    let (channel, city, acme) = (&mut market.channel, &market.city, &market.acme);
    channel.accept(city, "publish", &offer("readings", "data-set"));
    let good = || offer("more", "data-set");
    let terms = |terms: Value| with(good(), "terms", terms);
    let many: Vec<String> = (0..17).map(|n| format!("w{n}")).collect();
    for (actor, function, argument, answer) in [
        (
            city,
            "withdraw",
            json!({ "id": "nothing" }),
            "404 the change is refused: offer nothing does not exist",
        ),
        (
            acme,
            "withdraw",
            json!({ "id": "readings" }),
            "403 the change is refused: offer readings is of city, not of acme",
        ),
        (
            acme,
            "publish",
            good(),
            "403 the change is refused: offer more: a data-set is offered by a data service provider, and acme",
        ),
        (
            city,
            "publish",
            with(good(), "title", json!("")),
            "400 the change is refused: offer more: title",
        ),
        (
            city,
            "publish",
            with(good(), "description", json!("x".repeat(4_001))),
            "400 the change is refused: offer more: description",
        ),
        (
            city,
            "publish",
            with(good(), "keywords", json!(many)),
            "400 the change is refused: offer more: keywords has 17 entries",
        ),
        (
            city,
            "publish",
            terms(json!({ "regions": many })),
            "400 the change is refused: offer more: terms.regions has 17 entries",
        ),
        (
            city,
            "publish",
            terms(json!({ "conditions": many })),
            "400 the change is refused: offer more: terms.conditions has 17 entries",
        ),
        (
            city,
            "publish",
            terms(json!({ "conditions": [""] })),
            "400 the change is refused: offer more: terms.conditions",
        ),
        (
            city,
            "publish",
            terms(json!({ "days": 0 })),
            "400 the change is refused: offer more: days is outside 1 to 36500",
        ),
        (
            city,
            "publish",
            terms(json!({ "beta": "1.5" })),
            "400 the argument of publish is malformed: the share β \"1.5\" is not valid",
        ),
    ] {
        refused(channel, actor, function, &argument, answer);
    }
    refused(
        channel,
        &Actor::new("EveMSP"),
        "publish",
        &good(),
        "403 EveMSP is bound to no member of this channel",
    );
}

#[test]
fn a_list_of_offers_is_read_page_by_page() {
    let mut market = Market::new();
    let (channel, city) = (&mut market.channel, &market.city);
    let names: Vec<String> = (0..25).map(|n| format!("offer-{n:02}")).collect();
    for name in &names {
        channel.accept(city, "publish", &offer(name, "data-set"));
    }
    let page = |argument: Value| {
        let done = channel.run(&city.creator, &[b"offers".to_vec(), argument.to_string().into_bytes()]);
        (done.response.status, serde_json::from_slice::<Value>(&done.response.payload).ok())
    };
    let mut found = Vec::new();
    let mut after = Value::Null;
    loop {
        let argument = match &after {
            Value::Null => json!({ "limit": 10 }),
            after => json!({ "limit": 10, "after": after }),
        };
        let (status, answer) = page(argument);
        assert_eq!(status, 200);
        let answer = answer.unwrap();
        let records = answer["records"].as_array().unwrap();
        assert!(records.len() <= 10);
        found.extend(records.iter().map(|record| record["offer"]["id"].as_str().unwrap().to_owned()));
        after = answer["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(found, names);
    // Whoever asks for nothing gets a page too, and nobody gets all of many.
    let done = channel.run(&city.creator, &[b"offers".to_vec()]);
    assert_eq!(done.response.status, 200);
    for limit in [0, 1_001, 10_000] {
        assert_eq!(page(json!({ "limit": limit })).0, 400);
    }
    assert_eq!(page(json!({ "after": "../offer" })).0, 400);
}

#[test]
fn a_member_is_a_dao_when_all_whom_its_agreement_names_say_so() {
    let mut market = Market::new();
    let (channel, both) = (&mut market.channel, dao(&["city", "acme"]));
    let vouching = |of: &Value| json!({ "member": "air", "representation": of });
    refused(
        channel,
        &market.city,
        "vouch",
        &vouching(&both),
        "404 the change is refused: member air does not say that it is a DAO",
    );
    for (argument, answer) in [
        (
            with(both.clone(), "version", json!(0)),
            "400 the change is refused: the version of a DAO counts from 1",
        ),
        (
            dao(&["city"]),
            "400 the change is refused: an agreement names 2 to 64 members, this one 1",
        ),
        (
            dao(&["city", "air"]),
            "400 the change is refused: member air can't be a DAO whose agreement names it",
        ),
        (
            dao(&["city", "eve"]),
            "409 the change is refused: member eve is not registered on this market",
        ),
    ] {
        refused(channel, &market.air, "represent", &argument, answer);
    }
    channel.accept(&market.air, "represent", &both);
    refused(
        channel,
        &market.air,
        "represent",
        &both,
        "409 the change is refused: member air has said the same already",
    );
    refused(
        channel,
        &market.tram,
        "vouch",
        &vouching(&both),
        "403 the change is refused: member tram is not among the members of air-quality",
    );
    refused(
        channel,
        &market.city,
        "vouch",
        &vouching(&dao(&["city", "tram"])),
        "409 the change is refused: member air says to be air-quality v1 with other members or another agreement",
    );
    channel.accept(&market.city, "vouch", &vouching(&both));
    refused(
        channel,
        &market.city,
        "vouch",
        &vouching(&both),
        "409 the change is refused: member city has said the same already",
    );
    assert!(!market.record::<RepresentationRecord>("air").counts());
    market.channel.accept(&market.acme, "vouch", &vouching(&both));
    let record: RepresentationRecord = market.record("air");
    assert!(record.counts());
    assert_eq!(record.vouched.keys().map(ToString::to_string).collect::<Vec<_>>(), ["acme", "city"]);

    // The next version is another claim, for which nobody stands yet.
    let next = with(dao(&["acme", "city", "tram"]), "version", json!(2));
    market.channel.accept(&market.air, "represent", &next);
    let record: RepresentationRecord = market.record("air");
    assert!(record.vouched.is_empty() && !record.counts());
}

#[test]
fn an_agreement_is_known_by_what_all_of_its_parties_say() {
    let mut market = Market::new();
    let both = agreed(1, &["city", "acme"]);
    let name = json!({ "agreement": digest(1) });
    let (channel, city) = (&mut market.channel, &market.city);
    for (argument, answer) in [
        (
            with(both.clone(), "version", json!(0)),
            "400 the change is refused: the version of a DAO counts from 1",
        ),
        (
            agreed(1, &["city"]),
            "400 the change is refused: an agreement has 2 to 64 parties, this one 1",
        ),
        (
            agreed(1, &["acme", "tram"]),
            "403 the change is refused: member city is not a party of air-quality v1",
        ),
        (
            agreed(1, &["city", "eve"]),
            "409 the change is refused: party eve is not registered on this market",
        ),
    ] {
        refused(channel, city, "confirm", &argument, answer);
    }
    refused(
        channel,
        city,
        "conclude",
        &name,
        "404 the change is refused: nobody has confirmed agreement sha256:",
    );
    channel.accept(city, "confirm", &both);
    refused(
        channel,
        city,
        "confirm",
        &both,
        "409 the change is refused: member city has said so already",
    );
    for other in [agreed(1, &["city", "acme", "tram"]), with(both.clone(), "dao", json!("noise"))] {
        refused(
            channel,
            &market.acme,
            "confirm",
            &other,
            "409 the change is refused: another party names other parties or another DAO for agreement sha256:",
        );
    }
    refused(
        channel,
        city,
        "conclude",
        &name,
        "409 the change is refused: air-quality v1 was not confirmed yet by acme",
    );
    channel.accept(&market.acme, "confirm", &both);
    refused(
        channel,
        &market.tram,
        "conclude",
        &name,
        "403 the change is refused: member tram is not a party of air-quality v1",
    );
    channel.accept(city, "conclude", &name);
    refused(
        channel,
        city,
        "conclude",
        &name,
        "409 the change is refused: member city has said so already",
    );
    let id = digest(1).hex();
    assert!(!market.record::<AgreedRecord>(&id).is_finished(), "of two parties both have to");
    market.channel.accept(&market.acme, "conclude", &name);
    assert!(market.record::<AgreedRecord>(&id).is_finished());
}

#[test]
fn one_of_many_parties_does_not_keep_an_agreement_open() {
    let mut market = Market::new();
    let all = agreed(2, &["city", "acme", "tram", "air"]);
    let id = digest(2).hex();
    for actor in [&market.city, &market.acme, &market.tram, &market.air] {
        market.channel.accept(actor, "confirm", &all);
    }
    for (actor, finished) in [(&market.city, false), (&market.acme, false), (&market.tram, true)] {
        market.channel.accept(actor, "conclude", &json!({ "agreement": digest(2) }));
        let record: &AgreedRecord = market.channel.desired.records().of(&id).unwrap();
        assert_eq!(record.is_finished(), finished);
    }
    // Who did not conclude it may still rate, and be rated.
    market.channel.accept(&market.air, "rate", &rating(2, "city", 5, ""));
    market.channel.accept(&market.city, "rate", &rating(2, "air", 1, "silent"));
}

#[test]
fn a_party_of_a_finished_agreement_rates_another_one_once() {
    let mut market = Market::new();
    let (channel, city, acme) = (&mut market.channel, &market.city, &market.acme);
    let missing = "404 the change is refused: no agreement sha256:";
    refused(channel, city, "rate", &rating(1, "acme", 4, ""), missing);
    let unfinished = |concluded: u8| {
        format!("409 the change is refused: air-quality v1 is not finished: {concluded} of its parties have concluded it, 2 are needed")
    };
    for actor in [city, acme] {
        channel.accept(actor, "confirm", &agreed(1, &["city", "acme"]));
    }
    refused(channel, city, "rate", &rating(1, "acme", 4, ""), &unfinished(0));
    channel.accept(city, "conclude", &json!({ "agreement": digest(1) }));
    refused(channel, city, "rate", &rating(1, "acme", 4, ""), &unfinished(1));
    channel.accept(acme, "conclude", &json!({ "agreement": digest(1) }));
    for (actor, argument, answer) in [
        (
            city,
            rating(1, "acme", 0, ""),
            "400 the change is refused: a rating has 1 to 5 stars, this one 0",
        ),
        (
            city,
            rating(1, "acme", 6, ""),
            "400 the change is refused: a rating has 1 to 5 stars, this one 6",
        ),
        (city, rating(1, "acme", 300, ""), "400 the argument of rate is malformed"),
        (
            city,
            rating(1, "acme", 4, &"β".repeat(1_001)),
            "400 the change is refused: the text of a rating has at most 1000 characters, this one 1001",
        ),
        (
            city,
            rating(1, "city", 5, ""),
            "400 the change is refused: member city can't rate itself",
        ),
        (
            &market.tram,
            rating(1, "acme", 1, ""),
            "403 the change is refused: member tram was not a party of air-quality v1",
        ),
        (
            city,
            rating(1, "tram", 1, ""),
            "403 the change is refused: member tram was not a party of air-quality v1",
        ),
    ] {
        refused(channel, actor, "rate", &argument, answer);
    }
    channel.accept(city, "rate", &rating(1, "acme", 4, &"β".repeat(1_000)));
    refused(
        channel,
        city,
        "rate",
        &rating(1, "acme", 5, "on second thoughts"),
        "409 the change is refused: member city has rated acme for this agreement already",
    );
    channel.accept(acme, "rate", &rating(1, "city", 5, ""));
    let id = RatingRecord::name(digest(1), &market.city.member(), &market.acme.member());
    let record: RatingRecord = market.record(&id);
    assert_eq!((record.rating.stars, record.rated.by), (4, market.city.member()));
    // What it says of itself is what the agreement's record says.
    assert_eq!((record.dao.as_str(), record.version.0), ("air-quality", 1));
}

#[test]
fn a_demand_that_nobody_can_meet_is_no_clause() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let channel = &mut Channel::new();
    channel.accept(&city, "register", &json!({ "member": "city", "role": "data-service-provider" }));
    channel.accept(&acme, "register", &json!({ "member": "acme", "role": "value-service-provider" }));
    let demand = |ratings: u32, tenths: u32| {
        let clause = json!({ "reputation": { "min_ratings": ratings, "min_tenths": tenths } });
        with(crate::channel::agreement(), "clauses", clause)
    };
    for (ratings, tenths, field) in [
        (0, 10, "min_ratings: 0 is outside 1 to 1000"),
        (1_001, 10, "min_ratings: 1001 is outside 1 to 1000"),
        (1, 9, "min_tenths: 9 is outside 10 to 50"),
        (1, 51, "min_tenths: 51 is outside 10 to 50"),
    ] {
        let answer = format!("400 the change is refused: the agreement is not valid: clauses.reputation.{field}");
        refused(channel, &city, "constitute", &demand(ratings, tenths), &answer);
    }
    channel.accept(&city, "constitute", &demand(1, 50));
}
