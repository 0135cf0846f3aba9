//! Reports: signed, chained, and one key each.

use std::collections::BTreeSet;

use chaincode::ALREADY_RECORDED;
use serde_json::{Value, json};
use state::canonical::Digest;
use state::ids::{Channel as ChannelName, MemberId};
use state::report::{Envelope, Report};

use crate::channel::{Actor, Channel, args};

fn document(envelope: &Envelope) -> Value {
    serde_json::to_value(envelope).unwrap()
}

fn signed(actor: &Actor, report: &Report) -> Value {
    document(&actor.envelope(&report.payload().unwrap()))
}

#[test]
fn reports_form_a_chain_and_touch_one_key() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let channel = &mut Channel::agreed(&city, &acme);
    let head = |channel: &Channel| channel.run(&acme.creator, &[b"head".to_vec(), b"city".to_vec()]).response.payload;
    assert_eq!(head(channel), b"null");
    let first = channel.report(&city.member(), 1, None);
    let digest = Digest::of(&first.payload().unwrap());
    let done = channel.accept(&city, "report", &signed(&city, &first));
    assert!(done.ranges.is_empty());
    assert_eq!(
        done.reads,
        ["msp/CityMSP", "report/city"]
            .map(str::to_owned)
            .into_iter()
            .collect::<BTreeSet<_>>()
    );
    assert_eq!(done.writes.keys().collect::<Vec<_>>(), ["report/city"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&head(channel)).unwrap(),
        json!({ "sequence": 1, "digest": digest })
    );

    // The same again is known, however its signature looks this time.
    let again = channel.refuse(&city, "report", &signed(&city, &first));
    assert_eq!(again, format!("409 {ALREADY_RECORDED}"));

    let second = channel.report(&city.member(), 2, Some(digest));
    channel.accept(&city, "report", &signed(&city, &second));
    let found = channel.refuse(&city, "report", &signed(&city, &first));
    assert_eq!(
        found,
        "409 the report is refused: number 1 with previous none does not follow report 2 of city"
    );
    assert_eq!(channel.reported.members()[&city.member()].head.sequence, 2);
    // The other member's chain is its own.
    channel.accept(&acme, "report", &signed(&acme, &channel.report(&acme.member(), 1, None)));
}

#[test]
fn what_is_no_report() {
    let (city, acme, eve) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"), Actor::new("EveMSP"));
    let channel = &mut Channel::agreed(&city, &acme);
    let good = channel.report(&city.member(), 1, None);
    let payload = good.payload().unwrap();
    let with = |change: &dyn Fn(&mut Report)| {
        let mut report = good.clone();
        change(&mut report);
        signed(&city, &report)
    };
    let mut tampered = city.envelope(&payload);
    let mut other = good.clone();
    other.plan = Digest::of(b"another plan");
    tampered.payload = acme.envelope(&other.payload().unwrap()).payload;
    let mut doubled = city.envelope(&payload);
    doubled.signatures.push(doubled.signatures[0].clone());
    let mut unsigned = city.envelope(&payload);
    unsigned.signatures.clear();
    let mut typed = city.envelope(&payload);
    typed.payload_type = "text/plain".into();
    let mut rubbish = city.envelope(&payload);
    rubbish.signatures[0].sig = "AAAA".into();
    // The same document with a space in it: a signature of it fits, but it is another report's bytes.
    let spaced = [b" ", payload.as_slice()].concat();
    let renamed = String::from_utf8(payload.clone())
        .unwrap()
        .replace("\"name\":\"air\"", "\"name\":\"sea\"");
    for (argument, answer) in [
        (
            signed(&acme, &good),
            "400 the report is refused: its key id is not that of the submitter's certificate",
        ),
        (
            with(&|report| report.member = MemberId::new("acme").unwrap()),
            "403 the report is refused: its member acme is not the submitter city",
        ),
        (
            with(&|report| report.channel = ChannelName::new("sea").unwrap()),
            "400 the report is refused: its channel is not this one",
        ),
        (
            with(&|report| report.sequence = 2),
            "409 the report is refused: number 2 with previous none does not follow report 0 of city",
        ),
        (
            with(&|report| report.previous = Some(Digest::of(b"x"))),
            "409 the report is refused: number 1 with previous sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 does not follow report 0 of city",
        ),
        (
            with(&|report| report.commit = "../../x".into()),
            "400 the report is refused: its commit is not a git commit id",
        ),
        (
            with(&|report| report.desired.block = 1 << 60),
            "400 the report is refused: its position or number is beyond 2^53",
        ),
        (document(&tampered), "403 the report is refused: its signature: "),
        (document(&rubbish), "403 the report is refused: its signature: "),
        (
            document(&doubled),
            "400 the report is refused: the envelope has 2 signatures; a report has 1",
        ),
        (
            document(&unsigned),
            "400 the report is refused: the envelope has 0 signatures; a report has 1",
        ),
        (
            document(&typed),
            "400 the report is refused: the envelope's payloadType is not that of a Charter report",
        ),
        (
            document(&city.envelope(&spaced)),
            "400 the report is refused: its payload is not the canonical form of its statement",
        ),
        (
            document(&city.envelope(renamed.as_bytes())),
            "400 the report is refused: its payload is not the canonical form of its statement",
        ),
        (
            document(&city.envelope(b"{}")),
            "400 the report is refused: the report's statement is malformed: missing field",
        ),
        (
            json!({ "payloadType": "x", "payload": "", "signatures": [], "more": 1 }),
            "400 the argument of report is malformed",
        ),
    ] {
        let found = channel.refuse(&city, "report", &argument);
        assert!(found.starts_with(answer), "{found}");
    }
    let mut stranger = channel.report(&eve.member(), 1, None);
    let found = channel.refuse(&eve, "report", &signed(&eve, &stranger));
    assert_eq!(found, "403 EveMSP is bound to no member of this channel: it has to register first");
    stranger.member = city.member();
    let found = channel.refuse(&eve, "report", &signed(&eve, &stranger));
    assert!(found.starts_with("403 EveMSP"), "{found}");
    let large = vec![b'x'; state::report::MAX_PAYLOAD_BYTES + 4];
    let found = channel.refuse(&city, "report", &document(&city.envelope(&large)));
    assert!(found.starts_with("400 the report is refused: the report has 10485"), "{found}");
    let huge = vec![b'x'; 2 * state::report::MAX_PAYLOAD_BYTES];
    let found = channel.refuse(&city, "report", &document(&city.envelope(&huge)));
    assert!(found.starts_with("400 the argument of report has 27"), "{found}");
}

#[test]
fn the_largest_report_fits_its_event() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let channel = &mut Channel::agreed(&city, &acme);
    let mut report = channel.report(&city.member(), 1, None);
    let mut status = state::report::ResourceStatus {
        kind: "machine/file".parse().unwrap(),
        condition: state::report::Condition::Failed,
        applied: None,
        exports: Default::default(),
        drift: Vec::new(),
        why: None,
    };
    let room = state::report::MAX_PAYLOAD_BYTES - 4_096;
    status.why = Some("x".repeat(room));
    let name = crate::channel::name("a");
    report.whole = state::report::whole(&[(name.clone(), status.clone())].into()).unwrap();
    report.changes.insert(name, Some(status));
    let done = channel.commit(&city.creator, &args("report", &signed(&city, &report)));
    assert_eq!(done.response.status, 200, "{}", done.response.message);
}
