//! Every refusal: its status, its sentence, and that it leaves no trace.

use crate::channel::{Actor, Channel, NOW, agreement, args, resource};
use serde_json::{Value, json};

fn order(resources: Value) -> Value {
    json!({ "resources": resources })
}

fn with(mut value: Value, key: &str, to: Value) -> Value {
    value[key] = to;
    value
}

#[test]
fn who_may_register() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let channel = &mut Channel::new();
    channel.accept(&city, "register", &json!({ "member": "city", "role": "data-service-provider" }));
    for (actor, argument, answer) in [
        (
            &acme,
            json!({ "member": "city", "role": "value-service-provider" }),
            "409 the change is refused: member city is registered already",
        ),
        (
            &city,
            json!({ "member": "town", "role": "value-service-provider" }),
            "409 the change is refused: MSP CityMSP is registered already",
        ),
        (
            &acme,
            json!({ "member": "../x", "role": "value-service-provider" }),
            "400 the argument of register is malformed: the member's name \"../x\" is not valid: use 1 to 63 lower-case letters",
        ),
        (
            &acme,
            json!({ "member": "acme", "role": "king" }),
            "400 the argument of register is malformed: unknown variant `king`",
        ),
        (
            &acme,
            json!({ "member": "acme", "role": "value-service-provider", "msp": "CityMSP" }),
            "400 the argument of register is malformed: unknown field `msp`",
        ),
    ] {
        let found = channel.refuse(actor, "register", &argument);
        assert!(found.starts_with(answer), "{found}");
    }
}

#[test]
fn who_may_constitute_what() {
    let (city, acme, eve) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"), Actor::new("EveMSP"));
    let channel = &mut Channel::new();
    channel.accept(&city, "register", &json!({ "member": "city", "role": "data-service-provider" }));
    channel.accept(&eve, "register", &json!({ "member": "eve", "role": "value-service-provider" }));
    let found = channel.refuse(&city, "constitute", &agreement());
    assert_eq!(
        found,
        "409 the change is refused: party acme is not registered on this channel with AcmeMSP as value service provider"
    );
    channel.accept(&acme, "register", &json!({ "member": "acme", "role": "value-service-provider" }));
    let beta = |beta: &str| {
        let mut changed = agreement();
        changed["parties"][1]["beta"] = json!(beta);
        changed
    };
    for (actor, argument, answer) in [
        (
            &eve,
            agreement(),
            "403 the change is refused: member eve is not a party of the agreement",
        ),
        (
            &city,
            beta("1.0"),
            "400 the argument of constitute is malformed: the share β \"1.0\" is not valid: write a decimal strictly between 0 and 1",
        ),
        (
            &city,
            with(agreement(), "version", json!(2)),
            "400 the change is refused: the agreement is not valid: parties: version 2 of a DAO has 2 value service providers, this one has 1",
        ),
        (
            &city,
            with(agreement(), "heartbeat_seconds", json!(5)),
            "400 the change is refused: the agreement is not valid: heartbeat_seconds: 5 is outside 60 to 86400",
        ),
        (
            &city,
            with(agreement(), "fee", json!(1)),
            "400 the argument of constitute is malformed: unknown field `fee`",
        ),
    ] {
        let found = channel.refuse(actor, "constitute", &argument);
        assert!(found.starts_with(answer), "{found}");
    }
    let digest = json!({ "digest": state::canonical::Digest::of(b"other") });
    assert_eq!(
        channel.refuse(&acme, "accept", &digest),
        "404 the change is refused: no agreement was put before the members of this channel yet"
    );
    channel.accept(&city, "constitute", &agreement());
    assert_eq!(
        channel.refuse(&acme, "constitute", &agreement()),
        "409 the change is refused: this channel has an agreement already; the DAO's next version gets its own channel"
    );
    let found = channel.refuse(&acme, "accept", &digest);
    assert!(
        found.starts_with("409 the change is refused: the digest is not that of this channel's agreement, sha256:"),
        "{found}"
    );
    let digest = json!({ "digest": channel.desired.agreement().unwrap().digest });
    assert_eq!(
        channel.refuse(&city, "accept", &digest),
        "409 the change is refused: member city has accepted already"
    );
    assert_eq!(
        channel.refuse(&eve, "accept", &digest),
        "403 the change is refused: member eve is not a party of the agreement"
    );
    assert_eq!(
        channel.refuse(&city, "order", &order(json!([resource("a", "city", &[])]))),
        "409 the change is refused: no agreement is in force on this channel: every party has to accept it first"
    );
    channel.accept(&acme, "accept", &digest);
}

#[test]
fn what_may_be_ordered() {
    let (city, acme, eve) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"), Actor::new("EveMSP"));
    let channel = &mut Channel::agreed(&city, &acme);
    let db = with(resource("db", "city", &[]), "exports", json!(["address"]));
    channel.accept(&city, "order", &order(json!([db, resource("keep", "city", &[])])));
    let many: Vec<Value> = (0..7).map(|i| resource(&format!("x{i}"), "city", &[])).collect();
    let crowd: Vec<Value> = (0..1001).map(|i| resource(&format!("x{i}"), "city", &[])).collect();
    let deps: Vec<String> = (0..257).map(|i| format!("d{i}")).collect();
    let spec = |spec: Value| order(json!([with(resource("s", "acme", &[]), "spec", spec)]));
    for (argument, answer) in [
        (
            order(json!([])),
            "400 the change is refused: a transaction changes 1 to 1000 resources, this one 0",
        ),
        (
            order(json!(crowd)),
            "400 the change is refused: a transaction changes 1 to 1000 resources, this one 1001",
        ),
        (
            order(json!([resource("x", "city", &[]), resource("x", "city", &[])])),
            "400 the change is refused: resource x stands twice",
        ),
        (
            order(json!([resource("db", "city", &[])])),
            "409 the change is refused: resource db exists already: amend it instead",
        ),
        (
            order(json!([resource("x", "eve", &[])])),
            "400 the change is refused: resource x: its owner eve is not a party of the agreement",
        ),
        (
            order(json!([resource("x", "city", &["y"])])),
            "409 the change is refused: resource x depends on y, which does not exist",
        ),
        (
            order(json!([resource("x", "city", &["y"]), resource("y", "city", &["x"])])),
            "409 the change is refused: these resources depend on each other in a circle: x, y",
        ),
        (
            order(json!([resource("x", "city", &["x"])])),
            "409 the change is refused: these resources depend on each other in a circle: x",
        ),
        (
            order(json!(many)),
            "409 the change is refused: the agreement allows 8 resources, this would make 9",
        ),
        (
            order(json!([with(resource("x", "city", &[]), "depends_on", json!(deps))])),
            "400 the change is refused: resource x has 257 dependencies; the limit is 256",
        ),
        (
            spec(json!({ "to": { "$ref": "db.outputs.password" } })),
            "409 the change is refused: resource s refers to db.outputs.password of another member, which db does not export",
        ),
        (
            spec(json!({ "n": 1.5 })),
            "400 resource s is malformed: the number at /n is not an integer below 2^53; write exact numbers as strings of digits",
        ),
        (
            spec(json!({ "to": { "$ref": "db" } })),
            "400 resource s is malformed: the object at /to is not a reference",
        ),
        (
            spec(json!({ "text": "x".repeat(65_536) })),
            "400 resource s is malformed: the spec has 65547 bytes; the limit is 65536",
        ),
        (
            order(json!([with(resource("x", "city", &[]), "colour", json!("red"))])),
            "400 resource x is malformed: unknown field `colour`",
        ),
        (
            order(json!([resource("ok", "city", &[]), resource("..", "city", &[])])),
            "400 resource number 2 is malformed: the resource's name \"..\" is not valid",
        ),
        (
            order(json!([with(resource("x", "city", &[]), "kind", json!("file"))])),
            "400 resource x is malformed: the kind \"file\" is not valid: use provider/kind",
        ),
        (
            json!({ "resources": [], "force": true }),
            "400 the argument of order is malformed: unknown field `force`",
        ),
        (
            spec(json!({ "text": "x".repeat(10_000_000) })),
            "400 the argument of order has 10000",
        ),
    ] {
        let found = channel.refuse(&acme, "order", &argument);
        assert!(found.starts_with(answer), "{found}");
    }
    assert_eq!(
        channel.refuse(&eve, "order", &order(json!([resource("x", "city", &[])]))),
        "403 EveMSP is bound to no member of this channel: it has to register first"
    );
    channel.accept(&eve, "register", &json!({ "member": "eve", "role": "value-service-provider" }));
    assert_eq!(
        channel.refuse(&eve, "order", &order(json!([resource("x", "city", &[])]))),
        "403 the change is refused: member eve is not a party of the agreement"
    );
    for (seconds, at) in [(0, "1970-01-01T00:00:00Z"), (i64::MAX, "9999-12-31T23:59:59Z")] {
        channel.seconds = seconds;
        assert_eq!(
            channel.refuse(&city, "order", &order(json!([resource("x", "city", &[])]))),
            format!(
                "403 the change is refused: the agreement holds from 2026-01-01T00:00:00Z until 2030-01-01T00:00:00Z; the transaction is of {at}"
            )
        );
    }
}

#[test]
fn what_may_be_amended_and_retired() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let channel = &mut Channel::agreed(&city, &acme);
    let db = with(resource("db", "city", &[]), "exports", json!(["address"]));
    let web = with(
        resource("web", "acme", &[]),
        "spec",
        json!({ "to": { "$ref": "db.outputs.address" } }),
    );
    let safe = with(resource("safe", "city", &[]), "protect", json!(true));
    channel.accept(&city, "order", &order(json!([db, safe])));
    channel.accept(&acme, "order", &order(json!([web])));
    for (actor, function, argument, answer) in [
        (
            &city,
            "amend",
            order(json!([resource("nix", "city", &[])])),
            "404 the change is refused: resource nix does not exist on this channel",
        ),
        (
            &acme,
            "amend",
            order(json!([db])),
            "403 the change is refused: resource db: only its owner city or city, who ordered it, may change it, not acme",
        ),
        (
            &city,
            "amend",
            order(json!([with(db.clone(), "kind", json!("machine/service"))])),
            "409 the change is refused: resource db: kind can't be amended; retire it and order it anew",
        ),
        (
            &city,
            "amend",
            order(json!([with(db.clone(), "owner", json!("acme"))])),
            "409 the change is refused: resource db: owner can't be amended; retire it and order it anew",
        ),
        (
            &city,
            "amend",
            order(json!([with(db.clone(), "exports", json!([]))])),
            "409 the change is refused: resource web refers to db.outputs.address of another member, which db does not export",
        ),
        (
            &city,
            "amend",
            order(json!([with(db.clone(), "depends_on", json!(["web"]))])),
            "409 the change is refused: these resources depend on each other in a circle: db, web",
        ),
        (
            &city,
            "retire",
            json!({ "resources": ["db"] }),
            "409 the change is refused: resource db is still needed by web",
        ),
        (
            &city,
            "retire",
            json!({ "resources": ["safe"] }),
            "409 the change is refused: resource safe is protected: amend it to protect: false first",
        ),
        (
            &city,
            "retire",
            json!({ "resources": ["nix"] }),
            "404 the change is refused: resource nix does not exist on this channel",
        ),
        (
            &city,
            "retire",
            json!({ "resources": ["safe", "safe"] }),
            "400 the change is refused: resource safe stands twice",
        ),
        (
            &acme,
            "retire",
            json!({ "resources": ["safe"] }),
            "403 the change is refused: resource safe: only its owner city or city, who ordered it, may change it, not acme",
        ),
        (
            &city,
            "retire",
            json!({ "resources": ["a/b"] }),
            "400 the argument of retire is malformed: the resource's name \"a/b\" is not valid",
        ),
    ] {
        let found = channel.refuse(actor, function, &argument);
        assert!(found.starts_with(answer), "{found}");
    }
    // What was refused becomes possible once its hindrance is gone.
    channel.accept(&city, "amend", &order(json!([with(safe, "protect", json!(false))])));
    channel.accept(&acme, "retire", &json!({ "resources": ["web"] }));
    channel.accept(&city, "retire", &json!({ "resources": ["safe", "db"] }));
    assert_eq!(channel.found(), channel.expected());
    channel.accept(&city, "order", &order(json!([resource("db", "acme", &[])])));
    assert_eq!(channel.found(), channel.expected());
}

#[test]
fn what_is_no_call() {
    let city = Actor::new("CityMSP");
    let channel = &mut Channel::new();
    let call = |arguments: &[&[u8]]| -> Vec<Vec<u8>> { arguments.iter().map(|bytes| bytes.to_vec()).collect() };
    for (arguments, answer) in [
        (
            call(&[]),
            "400 the transaction names no function; the functions are register, constitute",
        ),
        (
            call(&[b"explode"]),
            "400 the chaincode has no function \"explode\"; the functions are register",
        ),
        (call(&[b"\xff"]), "400 the argument of the function's name is not text"),
        (call(&[b"order"]), "400 order takes 1 argument after its name, not 0"),
        (call(&[b"order", b"{}", b"{}"]), "400 order takes 1 argument after its name, not 2"),
        (call(&[b"order", b"{"]), "400 the argument of order is malformed: EOF"),
        (
            call(&[b"order", "[".repeat(1000).as_bytes()]),
            "400 the argument of order is malformed: ",
        ),
        (call(&[b"agreement", b"x"]), "400 agreement takes no argument after its name, not 1"),
        (
            call(&[b"agreement"]),
            "404 no agreement was put before the members of this channel yet",
        ),
        (call(&[b"member", b"city"]), "404 member city is not registered on this channel"),
        (
            call(&[b"member", b"\"city\""]),
            "400 the member's name \"\\\"city\\\"\" is not valid",
        ),
        (call(&[b"resource", b"db"]), "404 resource db was never ordered on this channel"),
        (
            call(&[b"resources", b"{\"limit\":0}"]),
            "400 limit: a page has 1 to 1000 resources, not 0",
        ),
        (call(&[b"head", b"city"]), "404 member city is not registered on this channel"),
    ] {
        let done = channel.commit(&city.creator, &arguments);
        let found = format!("{} {}", done.response.status, done.response.message);
        assert!(found.starts_with(answer), "{found}");
    }
}

#[test]
fn the_envelope_of_a_call_is_checked_too() {
    use chaincode::memory::MemoryState;
    use chaincode::stub::Invocation;
    let city = Actor::new("CityMSP");
    let strange = chaincode::stub::Creator {
        msp_id: "City/MSP".into(),
        ..city.creator.clone()
    };
    let tx = "0".repeat(64);
    let arguments = args("register", &json!({ "member": "city", "role": "data-service-provider" }));
    for (channel, tx_id, creator, answer) in [
        ("Air", tx.as_str(), &city.creator, "the channel name \"Air\" is not valid"),
        ("air", "0", &city.creator, "the transaction id \"0\" is not valid"),
        ("air", tx.as_str(), &strange, "the MSP id \"City/MSP\" is not valid"),
    ] {
        let done = MemoryState::new().execute(&Invocation {
            channel,
            tx_id,
            seconds: NOW,
            creator,
            args: &arguments,
        });
        assert_eq!(done.response.status, 400);
        assert!(done.response.message.starts_with(answer), "{}", done.response.message);
        assert!(done.writes.is_empty() && done.event.is_none());
    }
}

#[test]
fn a_damaged_state_is_not_taken_for_an_empty_one() {
    let city = Actor::new("CityMSP");
    let mut channel = Channel::new();
    channel.state = [("msp/CityMSP".to_owned(), b"{".to_vec())].into_iter().collect();
    let found = channel.refuse(&city, "order", &order(json!([resource("a", "city", &[])])));
    assert_eq!(found, "500 the ledger's state under msp/CityMSP is damaged");
}

#[test]
fn an_answer_is_one_line_of_bounded_length() {
    let city = Actor::new("CityMSP");
    let mut channel = Channel::new();
    let field = format!("a\nb\u{1b}[31m{}", "x".repeat(100_000));
    let found = channel.refuse(&city, "register", &json!({ field: 1 }));
    assert!(found.chars().count() < 1_100 && !found.chars().any(char::is_control), "{found}");
}
