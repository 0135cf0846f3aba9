//! How a member's part ends, and how an agreement does.

use serde_json::{Value, json};
use state::acts::life::{ENDING, EndingRecord, PartRecord, Why, Word};
use state::ids::MemberId;
use state::resource::OnRetire;

use crate::channel::{Actor, Channel, NOW, agreement, args, name, resource};

const HOUR: i64 = 3_600;

/// Three members, of whom the first is the data service provider.
pub(crate) struct Town {
    pub(crate) city: Actor,
    pub(crate) acme: Actor,
    pub(crate) bolt: Actor,
    pub(crate) channel: Channel,
}

pub(crate) fn town(clauses: &Value) -> Town {
    let (city, acme, bolt) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"), Actor::new("BoltMSP"));
    let mut agreement = agreement();
    agreement["version"] = json!(2);
    agreement["parties"].as_array_mut().unwrap().push(json!({
        "member": "bolt", "msp": "BoltMSP", "role": "value-service-provider", "beta": "0.9",
    }));
    agreement["clauses"] = clauses.clone();
    let mut channel = Channel::new();
    for (actor, role) in [
        (&city, "data-service-provider"),
        (&acme, "value-service-provider"),
        (&bolt, "value-service-provider"),
    ] {
        channel.accept(actor, "register", &json!({ "member": actor.member(), "role": role }));
    }
    channel.accept(&city, "constitute", &agreement);
    let digest = json!({ "digest": channel.desired.agreement().unwrap().digest });
    channel.accept(&acme, "accept", &digest);
    channel.accept(&bolt, "accept", &digest);
    Town { city, acme, bolt, channel }
}

impl Town {
    /// A report of a member at a time, which the ledger keeps the time of.
    fn beat(&mut self, member: &str, seconds: i64) {
        let actor = match member {
            "city" => &self.city,
            "acme" => &self.acme,
            _ => &self.bolt,
        };
        let id = MemberId::new(member).unwrap();
        let head = self.channel.reported.members().get(&id).map(|reports| reports.head.clone());
        let report = self
            .channel
            .report(&id, head.as_ref().map_or(1, |head| head.sequence + 1), head.map(|head| head.digest));
        let envelope = serde_json::to_value(actor.envelope(&report.payload().unwrap())).unwrap();
        self.channel.seconds = seconds;
        let done = self.channel.commit(&actor.creator, &args("heartbeat", &envelope));
        assert_eq!(done.response.status, 200, "{}", done.response.message);
    }

    fn holds(&self) {
        assert_eq!(self.channel.found(), self.channel.expected());
    }

    fn order(&mut self, resources: &[Value]) {
        self.channel.accept(&self.city, "order", &json!({ "resources": resources }));
    }
}

fn abandonment(resources: &str) -> Value {
    json!({ "abandonment": { "grace_seconds": 2700, "resources": resources } })
}

fn with(mut value: Value, key: &str, to: Value) -> Value {
    value[key] = to;
    value
}

fn acme() -> Value {
    json!({ "member": "acme" })
}

#[test]
fn silence_is_abandonment_when_a_majority_of_the_others_is_later() {
    let town = &mut town(&abandonment("as-ordered"));
    town.order(&[
        resource("readings", "city", &[]),
        resource("model", "acme", &[]),
        with(resource("forecast", "acme", &["readings"]), "on_retire", json!("retain")),
        with(resource("archive", "acme", &[]), "protect", json!(true)),
        resource("routes", "bolt", &["forecast"]),
        resource("map", "city", &["routes"]),
        resource("own", "bolt", &[]),
    ]);
    town.beat("acme", NOW + 10);
    town.beat("city", NOW + HOUR);
    // Bolt was not heard of for as long: there is nobody but the accuser who is later.
    let found = town.channel.refuse(&town.city, "close_abandoned", &acme());
    assert_eq!(
        found,
        "409 the change is refused: acme was heard of last at 2027-01-15T08:00:10Z, and its grace ends at 2027-01-15T08:45:10Z: 1 of 2 other \
         parties have put something on the ledger after that"
    );
    town.beat("bolt", NOW + 2710);
    // Exactly at the deadline is not after it.
    assert!(town.channel.refuse(&town.city, "close_abandoned", &acme()).contains("409"));
    town.beat("bolt", NOW + 2711);
    town.channel.seconds = NOW + 2711;
    town.channel.accept(&town.bolt, "close_abandoned", &acme());
    let part: &PartRecord = town.channel.desired.records().of("acme").unwrap();
    assert_eq!((part.epoch, part.word, part.witnesses.len()), (2, Word::Majority, 2));
    // What it owned and what needed that is gone; what is protected or was ordered so is kept.
    let in_force: Vec<&str> = town.channel.desired.resources().keys().map(|name| name.as_str()).collect();
    assert_eq!(in_force, ["own", "readings"]);
    let kept: Vec<&str> = town
        .channel
        .desired
        .retired()
        .values()
        .filter(|gone| gone.resource.on_retire == OnRetire::Retain && !gone.resource.protect)
        .map(|gone| gone.resource.name.as_str())
        .collect();
    assert_eq!(kept, ["archive", "forecast"]);
    town.holds();
    // It has no rights any more, and nothing is ordered on its side; the others go on.
    for (actor, function, argument) in [
        (&town.acme, "order", json!({ "resources": [resource("x", "city", &[])] })),
        (&town.city, "order", json!({ "resources": [resource("x", "acme", &[])] })),
        (&town.bolt, "close_abandoned", acme()),
        (&town.acme, "close_abandoned", json!({ "member": "bolt" })),
    ] {
        let found = town.channel.refuse(actor, function, &argument);
        assert!(found.starts_with("403") && found.contains("the part of acme is closed"), "{found}");
    }
    let order = json!({ "resources": [resource("x", "city", &[])] });
    town.channel.accept(&town.city, "order", &order);
    // What it says of its own side is still heard.
    town.beat("acme", NOW + 2 * HOUR);
    town.holds();
}

#[test]
fn whose_part_is_closed_has_no_voice_on_proposals() {
    let town = &mut town(&json!({
        "abandonment": { "grace_seconds": 2700 },
        "approvals": [{ "on": ["order"], "kinds": ["*"], "need": 3 }],
    }));
    let order = json!({ "resources": [resource("x", "city", &[])] });
    let done = town.channel.accept(&town.city, "order", &order);
    let answer: Value = serde_json::from_slice(&done.response.payload).unwrap();
    let id = json!({ "id": answer["proposal"] });
    town.beat("bolt", NOW + HOUR);
    town.channel.seconds = NOW + HOUR;
    town.channel.accept(&town.city, "close_abandoned", &acme());
    for function in ["approve", "reject", "retract"] {
        let found = town.channel.refuse(&town.acme, function, &id);
        assert!(found.contains("the part of acme is closed"), "{found}");
    }
    // With one of three gone, three can't approve any more.
    town.channel.accept(&town.bolt, "reject", &id);
    assert!(town.channel.refuse(&town.bolt, "approve", &id).contains("is rejected already"));
    town.holds();
}

#[test]
fn everything_is_kept_where_the_agreement_says_so() {
    let town = &mut town(&abandonment("retained"));
    town.order(&[resource("model", "acme", &[]), resource("routes", "bolt", &["model"])]);
    town.beat("bolt", NOW + HOUR);
    town.channel.seconds = NOW + HOUR;
    town.channel.accept(&town.city, "close_abandoned", &acme());
    let retired = town.channel.desired.retired().values();
    let kept = retired.filter(|gone| gone.resource.on_retire == OnRetire::Retain).count();
    assert_eq!((town.channel.desired.resources().len(), kept), (0, 2));
    town.holds();
}

#[test]
fn with_two_it_is_the_accusers_word() {
    let (city, acme_actor) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut agreement = agreement();
    agreement["clauses"] = abandonment("as-ordered");
    let mut channel = Channel::agreed_on(&agreement, &city, &acme_actor);
    assert!(channel.refuse(&city, "close_abandoned", &acme()).contains("0 of 1 other parties"));
    channel.seconds = NOW + HOUR;
    channel.accept(&city, "close_abandoned", &acme());
    let part: &PartRecord = channel.desired.records().of("acme").unwrap();
    assert_eq!(part.word, Word::Accuser);
    assert_eq!(channel.found(), channel.expected());
}

#[test]
fn what_is_no_abandonment() {
    let town = &mut town(&abandonment("as-ordered"));
    town.channel.seconds = NOW + HOUR;
    let eve = Actor::new("EveMSP");
    for (actor, argument, answer) in [
        (
            &town.city,
            json!({ "member": "city" }),
            "403 the change is refused: a member can't close its own part",
        ),
        (
            &town.city,
            json!({ "member": "eve" }),
            "403 the change is refused: member eve is not a party of the agreement",
        ),
        (&eve, acme(), "403 EveMSP is bound to no member of this channel"),
    ] {
        let found = town.channel.refuse(actor, "close_abandoned", &argument);
        assert!(found.starts_with(answer), "{found}");
    }
    let found = self::town(&json!({ "regions": ["eu"] }));
    let mut other = found.channel;
    other.seconds = NOW + HOUR;
    let found = other.refuse(&found.city, "close_abandoned", &acme());
    assert!(
        found.starts_with("400") && found.contains("clauses.abandonment: the agreement has none"),
        "{found}"
    );
}

#[test]
fn an_agreement_expires_by_the_time_of_its_members() {
    let town = &mut town(&json!({ "end": { "resources": "as-ordered" } }));
    town.order(&[
        resource("a", "city", &[]),
        with(resource("b", "bolt", &["a"]), "protect", json!(true)),
    ]);
    // 2030-01-01: the agreement's date.
    let until = 1_893_456_000;
    town.channel.seconds = until - 1;
    let found = town.channel.refuse(&town.city, "expire", &json!({}));
    assert!(
        found.contains("the agreement holds until 2030-01-01T00:00:00Z: 0 of 2 parties"),
        "{found}"
    );
    town.channel.seconds = until;
    assert!(town.channel.refuse(&town.city, "expire", &json!({})).contains("1 of 2 parties"));
    town.beat("bolt", until);
    town.channel.accept(&town.city, "expire", &json!({}));
    let ending: &EndingRecord = town.channel.desired.records().of(ENDING).unwrap();
    assert_eq!(ending.ended.as_ref().unwrap().why, Why::Expired);
    assert!(town.channel.desired.resources().is_empty());
    assert_eq!(town.channel.desired.retired()[&name("b")].resource.on_retire, OnRetire::Retain);
    assert!(
        town.channel
            .refuse(&town.acme, "expire", &json!({}))
            .contains("the agreement has ended")
    );
    town.holds();
}

#[test]
fn nothing_is_ordered_after_the_end_whatever_its_stamp_says() {
    let (city, acme_actor) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut channel = Channel::agreed(&city, &acme_actor);
    let until = 1_893_456_000;
    let beat = |channel: &mut Channel, actor: &Actor| {
        let report = channel.report(&actor.member(), 1, None);
        let envelope = serde_json::to_value(actor.envelope(&report.payload().unwrap())).unwrap();
        channel.seconds = until;
        channel.accept(actor, "heartbeat", &envelope);
    };
    beat(&mut channel, &acme_actor);
    channel.accept(&city, "expire", &json!({}));
    // Clients choose their stamps: one of before the end is no way back.
    channel.seconds = until - 10;
    let found = channel.refuse(&city, "order", &json!({ "resources": [resource("x", "city", &[])] }));
    assert!(found.contains("the agreement has ended"), "{found}");
}

#[test]
fn an_agreement_ends_when_enough_ask_for_it() {
    let town = &mut town(&json!({ "end": { "need": 2 }, "abandonment": { "grace_seconds": 2700 } }));
    town.order(&[resource("a", "city", &[])]);
    town.channel.accept(&town.city, "end", &json!({}));
    assert!(
        town.channel
            .refuse(&town.city, "end", &json!({}))
            .contains("city has asked for the end already")
    );
    assert_eq!(town.channel.desired.resources().len(), 1);
    town.channel.accept(&town.bolt, "end", &json!({}));
    let ending: &EndingRecord = town.channel.desired.records().of(ENDING).unwrap();
    assert_eq!(ending.ended.as_ref().unwrap().why, Why::Asked);
    assert!(town.channel.desired.resources().is_empty());
    for (function, argument) in [
        ("order", json!({ "resources": [resource("x", "city", &[])] })),
        ("end", json!({})),
        ("close_abandoned", acme()),
    ] {
        let found = town.channel.refuse(&town.bolt, function, &argument);
        assert!(found.starts_with("409") && found.contains("the agreement has ended"), "{found}");
    }
    // Reports go on: they are the proof of what became of everything.
    town.beat("city", NOW + HOUR);
    town.holds();
}

#[test]
fn whose_part_is_closed_is_not_waited_for() {
    let town = &mut town(&json!({ "end": {}, "abandonment": { "grace_seconds": 2700 } }));
    town.channel.accept(&town.acme, "end", &json!({}));
    town.beat("bolt", NOW + HOUR);
    town.channel.seconds = NOW + HOUR;
    town.channel.accept(&town.city, "close_abandoned", &acme());
    town.channel.accept(&town.city, "end", &json!({}));
    assert!(
        town.channel
            .refuse(&town.acme, "end", &json!({}))
            .contains("the part of acme is closed")
    );
    town.channel.accept(&town.bolt, "end", &json!({}));
    let ending: &EndingRecord = town.channel.desired.records().of(ENDING).unwrap();
    assert!(ending.ended.is_some());
    let without = self::town(&json!({ "regions": ["eu"] }));
    let mut other = without.channel;
    assert!(
        other
            .refuse(&without.city, "end", &json!({}))
            .contains("clauses.end: the agreement has none")
    );
    town.holds();
}
