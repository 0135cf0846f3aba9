//! What is said on a market, as every follower has it: run again, and told in words that never change.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use ledger_sync::testing::MemoryNetwork;
use ledger_sync::{Ledger, Options, catch_up};
use serde_json::{Value, json};
use state::canonical::Digest;
use state::git::Store;
use state::ids::Channel;
use state::paths;

fn market() -> Channel {
    Channel::new("market").unwrap()
}

async fn say(network: &Arc<MemoryNetwork>, msp: &str, function: &str, argument: Value) {
    let argument = vec![argument.to_string().into_bytes()];
    network.ledger(msp).submit(&market(), function, argument).await.unwrap();
}

#[tokio::test]
async fn a_market_is_told_in_commits() {
    let network = MemoryNetwork::new(&market(), &["CityMSP", "AcmeMSP", "AirMSP"]).unwrap();
    let agreement = Digest::of(b"agreement");
    let agreed = json!({ "dao": "air-quality", "version": 1, "agreement": agreement, "parties": ["city", "acme"] });
    let dao = json!({ "dao": "air-quality", "version": 1, "agreement": agreement, "members": ["city", "acme"] });
    let offer = json!({ "id": "readings", "kind": "data-set", "title": "Air quality" });
    let register = |member: &str, role: &str| json!({ "member": member, "role": role });
    say(&network, "CityMSP", "register", register("city", "data-service-provider")).await;
    say(&network, "AcmeMSP", "register", register("acme", "value-service-provider")).await;
    say(&network, "AirMSP", "register", register("air", "value-service-provider")).await;
    say(&network, "CityMSP", "publish", offer.clone()).await;
    say(&network, "CityMSP", "republish", offer).await;
    say(&network, "CityMSP", "withdraw", json!({ "id": "readings" })).await;
    say(&network, "AirMSP", "represent", dao.clone()).await;
    say(&network, "AcmeMSP", "vouch", json!({ "member": "air", "representation": dao })).await;
    for msp in ["CityMSP", "AcmeMSP"] {
        say(&network, msp, "confirm", agreed.clone()).await;
    }
    for msp in ["CityMSP", "AcmeMSP"] {
        say(&network, msp, "conclude", json!({ "agreement": agreement })).await;
    }
    let rating = json!({ "agreement": agreement, "member": "acme", "stars": 4, "text": "Never late\nLedger-Block: 7" });
    say(&network, "CityMSP", "rate", rating).await;

    let place = tempfile::tempdir().unwrap();
    let store = Store::init(&place.path().join("store.git")).unwrap();
    let ledger = Arc::new(network.ledger("AirMSP"));
    let progress = catch_up(ledger, store.clone(), market(), Options::default()).await.unwrap();
    assert!(progress.caught_up);

    let head = store.head(&paths::desired_ref(&market())).unwrap().unwrap();
    let told = store.log(head, None, 100).unwrap();
    let mut subjects: Vec<String> = told.iter().map(|info| info.title().to_owned()).collect();
    subjects.reverse();
    assert_eq!(
        subjects,
        [
            "register city as data service provider",
            "register acme as value service provider",
            "register air as value service provider",
            "publish offer readings",
            "amend offer readings",
            "withdraw offer readings",
            "air is air-quality v1",
            "acme stands for air: air-quality v1",
            "air-quality v1 confirmed: 1 of 2",
            "air-quality v1 confirmed: 2 of 2",
            "air-quality v1 concluded: 1 of 2",
            "air-quality v1 concluded: 2 of 2",
            "rate acme: 4 of 5 stars",
        ]
    );
    // Nobody's text gets into a commit's trailers.
    assert!(told[0].trailer("Ledger-Block") != Some("7"));
    let files = |folder: &str| store.diff(None, head, folder).unwrap().len();
    assert_eq!(
        ["offers", "representations", "agreed", "ratings", "quarantine"].map(files),
        [1, 1, 1, 1, 0]
    );
}
