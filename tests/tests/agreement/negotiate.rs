//! Negotiating: two members come to terms on a market that a rival reads, and accept in their channel what they signed there.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use ledger_sync::gateway::{GatewayClient, GatewayConfig, PeerConfig, Timeouts};
use ledger_sync::{Ledger as _, Pending};
use msp::PemSigner;
use serde_json::{Value, json};
use tests::{Ended, World, tree, world};

/// A market of three members, and a channel for two of them, on which nothing was said.
fn market() -> World {
    let world = World::new();
    let folder = world.root().join("example");
    std::fs::create_dir_all(&folder).unwrap();
    let network = json!({
        "apiVersion": "charter/v1", "kind": "Network",
        "members": [
            { "name": "city", "msp": "CityMSP" }, { "name": "breeze", "msp": "BreezeMSP" }, { "name": "tram", "msp": "TramMSP" },
        ],
        "channels": [
            { "name": "market", "members": ["city", "breeze", "tram"], "transactions": [] },
            { "name": "smart-city-1", "members": ["city", "breeze"], "transactions": [] },
        ],
    });
    std::fs::write(folder.join("network.yaml"), network.to_string()).unwrap();
    // Nothing is said on these channels yet, so it is stopped as soon as everybody is enrolled.
    let mut up = world.start(&["up", &folder.display().to_string()]);
    up.says("tram is refused smart-city-1");
    up.signal(rustix::process::Signal::INT);
    assert_eq!(up.ended(), Some(0), "{}", up.stderr());
    world
}

/// Sends a transaction of a member to the market without its Charter, as somebody who cheats would.
fn send(world: &World, member: &str, msp: &str, function: &str, argument: &Value) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = std::fs::read_to_string(world.data().join("ledger/address")).unwrap();
    let identity = world.member(member).join("identity");
    let signer = PemSigner::from_msp_dir(&identity.join("msp"), msp).unwrap();
    let config = GatewayConfig {
        peers: vec![PeerConfig {
            endpoint: format!("https://{}", address.trim()),
            tls_ca_pem: std::fs::read(identity.join("tls-ca.pem")).unwrap(),
            server_name: None,
        }],
        client_tls: None,
        timeouts: Timeouts::default(),
        pending: Pending::new(world.member(member).join("pending")),
    };
    runtime.block_on(async {
        let ledger = GatewayClient::connect(config, Arc::new(signer)).unwrap();
        let argument = argument.to_string().into_bytes();
        ledger.submit(&"market".parse().unwrap(), function, vec![argument]).await.unwrap();
    });
}

/// Registers everybody on the market: there is no agreement there whose submission would.
fn register(world: &World) {
    for (member, msp, role) in [
        ("city", "CityMSP", "data-service-provider"),
        ("breeze", "BreezeMSP", "value-service-provider"),
        ("tram", "TramMSP", "value-service-provider"),
    ] {
        send(world, member, msp, "register", &json!({ "member": member, "role": role }));
    }
}

/// What a member types on the market.
fn negotiate(world: &World, member: &str, words: &[&str]) -> Ended {
    world.charter(&[&["negotiate"], words, &["--member", member, "--channel", "market"]].concat())
}

fn shown(world: &World, member: &str) -> Value {
    negotiate(world, member, &["show", "air", "-o", "json"]).exits(0).json()
}

fn beta(terms: &Value) -> &str {
    terms["charter:agreement"]["parties"][1]["beta"].as_str().unwrap()
}

/// The digest that a line of output ends with.
fn digest(said: &Ended) -> String {
    let found = said
        .stdout
        .find("agreement sha256:")
        .unwrap_or_else(|| panic!("no digest in {said}"));
    said.stdout[found + "agreement ".len()..]
        .chars()
        .take("sha256:".len() + 64)
        .collect()
}

#[test]
fn what_two_negotiate_before_a_rival_is_what_they_accept_in_their_channel() {
    let world = market();
    let ledger = world.ledger();
    register(&world);
    let example = |name: &str| world::smart_city().join("market").join(name).display().to_string();
    let (first, counter) = (example("terms.yaml"), example("counter.yaml"));

    // Asked, offered, and countered.
    let asked = negotiate(&world, "breeze", &["request", "air", "--with", "city", "--provider", "city"]);
    asked.exits(0).says(&["published the key", "requested negotiation air"]);
    assert_eq!(shown(&world, "breeze")["state"], "REQUESTED");
    negotiate(&world, "city", &["offer", "air", "-f", &first])
        .exits(0)
        .says(&["published the key", "offered round 1 of negotiation air, terms sha256:"]);
    let read = negotiate(&world, "breeze", &["terms", "air", "-o", "json"]).exits(0).json();
    assert_eq!((beta(&read), &read["@type"]), ("0.8", &json!("Offer")));
    negotiate(&world, "breeze", &["show", "air"]).exits(0).says(&[
        "negotiation air is OFFERED",
        "round 1 offered",
        "charter negotiate accept air --round 1",
        "charter negotiate offer air -f TERMS.yaml",
    ]);
    negotiate(&world, "breeze", &["offer", "air", "-f", &counter])
        .exits(0)
        .says(&["offered round 2 of negotiation air"]);
    let standing = shown(&world, "city");
    assert_eq!((&standing["state"], &standing["round"]), (&json!("ACCEPTED"), &json!(2)));
    assert_eq!(standing["next"], json!(["offer", "agree", "terminate"]));

    // Nobody signs what it hasn't read, nor out of turn.
    negotiate(&world, "city", &["agree", "air", "--round", "1"])
        .exits(1)
        .says(&["negotiation air is in round 2, not 1"]);
    negotiate(&world, "city", &["finalize", "air"])
        .exits(1)
        .says(&["negotiation air is ACCEPTED: finalize is not possible now; possible: offer, agree, terminate"]);
    let read = negotiate(&world, "city", &["terms", "air", "-o", "json"]).exits(0).json();
    assert_eq!(beta(&read), "0.7");
    let compared = negotiate(&world, "city", &["terms", "air", "--against", "1"]).exits(0);
    let compared = compared.says(&["ROUND 1", "ROUND 2", "/charter:agreement/parties/1/beta", "\"0.8\"", "\"0.7\""]);
    assert_eq!(compared.lines().len(), 2, "{compared}");

    // A new key reads new rounds; what was sealed to the old one stays readable.
    negotiate(&world, "city", &["key", "--renew"]).exits(0).says(&["published the key"]);
    let read = negotiate(&world, "city", &["terms", "air", "--round", "1", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(beta(&read), "0.8");

    a_rival_sees_no_terms(&world, &standing);

    let agreed = negotiate(&world, "city", &["agree", "air", "--round", "2"]).exits(0);
    let verified = negotiate(&world, "breeze", &["verify", "air"]).exits(0);
    negotiate(&world, "breeze", &["agreement", "air"])
        .exits(1)
        .says(&["negotiation air is VERIFIED: it makes an agreement when it is FINALIZED"]);
    let finalized = negotiate(&world, "city", &["finalize", "air"]).exits(0);
    let agreement = digest(&agreed);
    assert_eq!([digest(&verified), digest(&finalized)], [agreement.clone(), agreement.clone()]);
    let read = negotiate(&world, "city", &["terms", "air", "-o", "json"]).exits(0).json();
    assert_eq!(read["@type"], "Agreement");

    they_accept_it(&world, &agreement);
    everybody_has_the_same_history(&world, &agreement);
    ledger.stop();
}

/// The rival sees who talks, in which state and round, and digests; it finds no word of the terms, neither by asking nor in its store.
fn a_rival_sees_no_terms(world: &World, standing: &Value) {
    let seen = shown(world, "tram");
    assert_eq!(seen["rounds"], standing["rounds"]);
    assert_eq!(seen["next"], json!([]));
    negotiate(world, "tram", &["list"])
        .exits(0)
        .says(&["air", "ACCEPTED", "city", "breeze"]);
    negotiate(world, "tram", &["list", "--mine"])
        .exits(0)
        .says(&["no negotiation fits"]);
    for words in [&["terms", "air"][..], &["terms", "air", "--round", "1"], &["verify", "air"]] {
        negotiate(world, "tram", words)
            .exits(1)
            .says(&["the terms are not sealed to tram: only the parties of a negotiation can read them"]);
    }
    world.charter(&["replay", "--member", "tram"]).exits(0);
    let store = world.store("tram").all_contents();
    let digest = standing["rounds"][1]["digest"].as_str().unwrap();
    assert!(store.contains(digest), "the rival's store has no digests");
    for word in ["urn:smart-city", "derive", "\"0.7\"", "\"0.8\"", "open-data"] {
        assert!(!store.contains(word), "the rival's store holds {word}");
    }
}

/// The agreement and the orders that come out are documents that the channel takes, under the digest that was signed on the market.
fn they_accept_it(world: &World, agreement: &str) {
    let printed = ["city", "breeze"].map(|member| negotiate(world, member, &["agreement", "air"]).exits(0).stdout);
    assert_eq!(printed[0], printed[1]);
    let file = world.file("agreement.yaml", &printed[0]);
    let submit = |member: &str, file: &str| world.charter(&["submit", file, "--member", member, "--channel", "smart-city-1"]);
    submit("city", &file).exits(0).says(&["waiting for breeze to register"]);
    submit("breeze", &file).exits(0).says(&["put smart-city v1 before the members"]);
    submit("city", &file).exits(0).says(&["accepted smart-city v1: it is in force"]);
    let orders = negotiate(world, "city", &["orders", "air"]).exits(0).stdout;
    submit("city", &world.file("orders.yaml", &orders))
        .exits(0)
        .says(&["ordered open-data, air-quality, readings"]);
    negotiate(world, "tram", &["orders", "air"]).exits(1).says(&["not sealed to tram"]);
    let kept = world.store("city").git(&["show", "desired/smart-city-1:agreement.json"]).exits(0);
    let kept: Value = serde_json::from_str(&kept.stdout).unwrap();
    assert_eq!(kept["digest"], agreement);
}

/// Every member's store tells the same, without the agreement's own digest, and no private key is in any of them.
fn everybody_has_the_same_history(world: &World, agreement: &str) {
    let mut heads = Vec::new();
    for member in ["city", "breeze", "tram"] {
        world.charter(&["replay", "--member", member]).exits(0);
        let store = world.store(member);
        heads.push(store.head("desired/market"));
        let subjects = store.log("desired/market", "%s");
        for subject in [
            "negotiation air: requested by breeze: REQUESTED",
            "negotiation air: terms offered by city: OFFERED",
            "negotiation air: terms offered by breeze: ACCEPTED",
            "negotiation air: agreed by city: AGREED",
            "negotiation air: verified by breeze: VERIFIED",
            "negotiation air: finalized by city: FINALIZED",
            "publish a key of breeze",
        ] {
            assert!(subjects.iter().any(|found| found == subject), "{member}: {subjects:#?}");
        }
    }
    assert!(heads.windows(2).all(|pair| pair[0] == pair[1]), "{heads:?}");
    // Whoever guesses the agreement can't check it: its digest stands in its own channel only.
    let rival = world.store("tram").all_contents();
    assert!(!rival.contains(agreement) && !rival.contains(agreement.trim_start_matches("sha256:")));
    world
        .charter(&["replay", "--compare", "--channel", "market"])
        .exits(0)
        .says(&["identical"]);
    let keys = world.member("city").join("identity/negotiation");
    let files = tree::entries(&keys);
    assert_eq!(files.len(), 2, "{files:?}");
    let everything = world.store("city").all_contents();
    for (path, _) in files {
        let path = keys.join(path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!everything.contains(std::fs::read_to_string(&path).unwrap().trim()));
    }
}

#[test]
fn three_agree_when_each_has_signed() {
    let world = market();
    let ledger = world.ledger();
    register(&world);
    let at = |member: &str, words: &[&str], state: &str| {
        negotiate(&world, member, words).exits(0);
        assert_eq!(shown(&world, "city")["state"], state, "after {words:?} of {member}");
    };
    let terms = world::smart_city().join("market/terms-2.yaml").display().to_string();
    at(
        "tram",
        &["request", "air", "--with", "city,breeze", "--provider", "city"],
        "REQUESTED",
    );
    at("breeze", &["key"], "REQUESTED");
    at("city", &["offer", "air", "-f", &terms], "OFFERED");
    at("breeze", &["accept", "air", "--round", "1"], "OFFERED");
    negotiate(&world, "city", &["agree", "air", "--round", "1"])
        .exits(1)
        .says(&["negotiation air is OFFERED: agree is not possible now; possible: offer, accept, terminate"]);
    at("tram", &["accept", "air", "--round", "1"], "ACCEPTED");
    at("city", &["agree", "air", "--round", "1"], "AGREED");
    at("tram", &["verify", "air"], "AGREED");
    negotiate(&world, "tram", &["verify", "air"])
        .exits(1)
        .says(&["negotiation air: tram has done this already (verify) in round 1"]);
    at("breeze", &["verify", "air"], "VERIFIED");
    at("city", &["finalize", "air"], "FINALIZED");
    let orders = negotiate(&world, "tram", &["orders", "air", "-o", "json"]).exits(0).json();
    assert_eq!(orders["resources"][0]["name"], "timetable");
    let all = ["city", "breeze", "tram"].map(|member| negotiate(&world, member, &["agreement", "air"]).exits(0).stdout);
    assert!(all[0].contains("version: 2") && all.iter().all(|one| *one == all[0]), "{}", all[0]);
    ledger.stop();
}

#[test]
fn who_cheats_is_found_out_before_anybody_signs() {
    let world = market();
    let ledger = world.ledger();
    register(&world);
    let terms = world::smart_city().join("market/counter.yaml").display().to_string();
    negotiate(&world, "breeze", &["request", "air", "--with", "city", "--provider", "city"]).exits(0);
    negotiate(&world, "city", &["offer", "air", "-f", &terms]).exits(0);

    // The city puts the digest of other terms beside the same envelope.
    let store = world.store("city");
    let files = store.git(&["ls-tree", "-r", "--name-only", "desired/market"]).exits(0);
    let path = files.lines().into_iter().find(|path| path.ends_with("/air-1.json")).unwrap();
    let envelope = store.json::<Value>("desired/market", path)["envelope"].clone();
    let other = format!("sha256:{}", "ab".repeat(32));
    let cheat = json!({ "id": "air", "round": 2, "digest": other, "envelope": envelope });
    send(&world, "city", "CityMSP", "negotiate_offer", &cheat);
    negotiate(&world, "breeze", &["accept", "air", "--round", "2"])
        .exits(1)
        .says(&["nothing was accepted", "the envelope does not open"]);

    // It agrees to honest terms, and says that they make another agreement.
    negotiate(&world, "breeze", &["offer", "air", "-f", &terms]).exits(0);
    let digest = shown(&world, "breeze")["rounds"][2]["digest"].clone();
    let cheat = json!({ "id": "air", "round": 3, "digest": digest, "agreement": other });
    send(&world, "city", "CityMSP", "negotiate_agree", &cheat);
    negotiate(&world, "breeze", &["verify", "air"]).exits(1).says(&[
        "nothing was verified",
        "the one that the provider agreed to is another: don't sign it",
    ]);
    assert_eq!(shown(&world, "breeze")["state"], "AGREED");
    ledger.stop();
}

#[test]
fn terms_that_do_not_fit_are_never_put_on_the_table() {
    let world = market();
    let ledger = world.ledger();
    register(&world);
    let text = std::fs::read_to_string(world::smart_city().join("market/terms.yaml")).unwrap();
    let three = &["request", "air", "--with", "city,breeze", "--provider", "city"];
    negotiate(&world, "tram", three).exits(0);
    let offer = |text: &str| {
        let file = world.file("terms.yaml", text);
        negotiate(&world, "city", &["offer", "air", "-f", &file])
    };
    offer(&text)
        .exits(1)
        .says(&["charter:agreement is between breeze, city, and negotiated by breeze, city, tram"]);
    offer(&text.replace("action: distribute", "action: distrbute"))
        .exits(1)
        .says(&["nothing was offered", "the action \"distrbute\" is not valid"]);
    negotiate(&world, "tram", &["request", "two", "--with", "city", "--provider", "tram"])
        .exits(1)
        .says(&["its provider has to be a data service provider among the parties, and tram is none"]);

    // Between two, but with another's name on the market, or without a key that could be sealed to.
    negotiate(&world, "city", &["request", "pair", "--with", "breeze", "--provider", "city"]).exits(0);
    let pair = |text: &str| {
        let file = world.file("terms.yaml", text);
        negotiate(&world, "city", &["offer", "pair", "-f", &file])
    };
    pair(&text.replace("msp: BreezeMSP", "msp: StormMSP"))
        .exits(1)
        .says(&["the terms name breeze with StormMSP as value service provider, and on this market it is registered with BreezeMSP"]);
    pair(&text)
        .exits(1)
        .says(&["breeze has published no key that terms could be sealed to: it runs charter negotiate key"]);
    negotiate(&world, "breeze", &["key"]).exits(0).says(&["published the key"]);
    negotiate(&world, "breeze", &["key"])
        .exits(0)
        .says(&["nothing to say: breeze has published the key"]);
    pair(&text).exits(0).says(&["offered round 1 of negotiation pair"]);
    negotiate(&world, "breeze", &["terminate", "pair", "--reason", "the share is too small"]).exits(0);
    negotiate(&world, "tram", &["show", "pair"]).exits(0).says(&[
        "negotiation pair is TERMINATED",
        "the share is too small",
        "tram can do nothing here now",
    ]);
    negotiate(&world, "breeze", &["accept", "pair", "--round", "1"])
        .exits(1)
        .says(&["negotiation pair is TERMINATED: accept is not possible now; it has ended"]);
    ledger.stop();
}
