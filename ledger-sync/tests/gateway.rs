//! The whole way through a real server: signed transactions over gRPC and TLS, and their commits in a store.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use embedded::{MemberSpec, NetworkSpec, Server};
use futures::StreamExt;
use ledger_sync::gateway::Timeouts;
use ledger_sync::reports::{Recorded, Recording, submit_report};
use ledger_sync::{
    EvaluateError, FollowError, Follower, GatewayClient, GatewayConfig, Ledger, Options, PeerConfig, Pending, Progress, StreamError,
    SubmitError, catch_up, reports,
};
use msp::{PemSigner, Signer};
use serde_json::json;
use state::ids::Channel;
use state::paths;
use state::report::Condition;
use tokio::sync::{oneshot, watch};

async fn serve(place: &Path, address: &str) -> Server {
    let member = |name: &str, msp_id: &str| MemberSpec {
        name: name.into(),
        msp_id: msp_id.into(),
    };
    let members = vec![member("city", CITY), member("energy", ENERGY), member("health", "HealthMSP")];
    let ledger = embedded::Ledger::init(&place.join("ledger"), &NetworkSpec { members }).unwrap();
    ledger.create_channel(channel().as_str(), &["city", "energy"]).unwrap();
    for name in ["city", "energy", "health"] {
        ledger.export_identity(name, &place.join(name)).unwrap();
    }
    Server::bind(ledger, address.parse().unwrap()).await.unwrap()
}

fn signer(place: &Path, name: &str, msp_id: &str) -> Arc<PemSigner> {
    Arc::new(PemSigner::from_msp_dir(&place.join(name).join("msp"), msp_id).unwrap())
}

fn client(place: &Path, name: &str, msp_id: &str, server: &Server) -> GatewayClient {
    let config = GatewayConfig {
        peers: vec![PeerConfig {
            endpoint: format!("https://localhost:{}", server.address().port()),
            tls_ca_pem: std::fs::read(place.join(name).join("tls-ca.pem")).unwrap(),
            server_name: None,
        }],
        client_tls: None,
        timeouts: Timeouts {
            commit: Duration::from_secs(20),
            ..Timeouts::default()
        },
        pending: Pending::new(place.join(name).join("pending")),
    };
    GatewayClient::connect(config, signer(place, name, msp_id)).unwrap()
}

async fn agree(city: &GatewayClient, energy: &GatewayClient) {
    let json = |value: serde_json::Value| vec![value.to_string().into_bytes()];
    let on = channel();
    let register = |name: &str, role: &str| json(json!({ "member": name, "role": role }));
    city.submit(&on, "register", register("city", "data-service-provider"))
        .await
        .unwrap();
    energy
        .submit(&on, "register", register("energy", "value-service-provider"))
        .await
        .unwrap();
    let agreement = agreement();
    city.submit(&on, "constitute", vec![serde_json::to_vec(&agreement).unwrap()])
        .await
        .unwrap();
    let digest = agreement.digest().unwrap();
    energy.submit(&on, "accept", json(json!({ "digest": digest }))).await.unwrap();
}

fn order(name: &str, owner: &str) -> Vec<Vec<u8>> {
    vec![
        json!({ "resources": [serde_json::to_value(resource(name, owner, &[])).unwrap()] })
            .to_string()
            .into_bytes(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_become_commits() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(directory.path(), "127.0.0.1:0").await;
    let city = client(directory.path(), "city", CITY, &server);
    let energy = client(directory.path(), "energy", ENERGY, &server);
    agree(&city, &energy).await;
    let on = channel();

    // Orders at the same moment conflict; each is endorsed anew until it is through.
    let at_once = (0..8).map(|n| {
        let (ledger, owner) = if n % 2 == 0 { (&city, "city") } else { (&energy, "energy") };
        let on = on.clone();
        async move { ledger.submit(&on, "order", order(&format!("r{n}"), owner)).await }
    });
    let committed: Vec<_> = futures::future::join_all(at_once).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        city.height(&on).await.unwrap(),
        committed.iter().map(|done| done.block).max().unwrap() + 1
    );

    // The chaincode's own words arrive.
    let error = city.submit(&on, "order", order("r0", "city")).await.unwrap_err();
    assert!(
        matches!(&error, SubmitError::Refused { status: 409, .. }) && !error.transient(),
        "{error}"
    );
    assert!(error.to_string().contains("resource r0 exists already"), "{error}");
    let error = city.evaluate(&on, "resource", vec![b"nothing".to_vec()]).await.unwrap_err();
    assert!(matches!(&error, EvaluateError::Refused { status: 404, .. }), "{error}");
    city.evaluate(&on, "resource", vec![b"r1".to_vec()]).await.unwrap();

    // A report, twice.
    let signer = signer(directory.path(), "energy", ENERGY);
    let report = report("energy", "r1", Condition::InSync, None);
    let envelope = reports::sign(&report, signer.as_ref()).unwrap();
    let certificate = signer.certificate();
    assert_eq!(reports::verify(&envelope, certificate).unwrap().0, report);
    assert!(matches!(
        submit_report(&energy, &on, &envelope, Recording::Report).await.unwrap(),
        Recorded::Now(_)
    ));
    assert_eq!(
        submit_report(&energy, &on, &envelope, Recording::Report).await.unwrap(),
        Recorded::Before
    );

    // Both members get the same commits.
    let (a, b) = (place(), place());
    let first = catch_up(Arc::new(city), a.store.clone(), on.clone(), Options::default())
        .await
        .unwrap();
    let second = catch_up(Arc::new(energy), b.store.clone(), on.clone(), Options::default())
        .await
        .unwrap();
    assert!(first.desired.is_some() && first.reported.is_some());
    assert_eq!((first.desired, first.reported), (second.desired, second.reported));
    assert_eq!(subjects(&a.store, &paths::reported_ref(&on)), ["report 1 from energy: 1 in sync"]);
    assert_eq!(subjects(&a.store, &paths::desired_ref(&on)).len(), 4 + 8);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(directory.path(), "127.0.0.1:0").await;
    let address = server.address().to_string();
    let city = client(directory.path(), "city", CITY, &server);
    let energy = client(directory.path(), "energy", ENERGY, &server);
    let on = channel();
    let place = place();
    let (sender, mut progress) = watch::channel(Progress::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let follower = Follower {
        ledger: Arc::new(city.clone()),
        store: place.store.clone(),
        channel: on.clone(),
        options: Options {
            longest_pause: Duration::from_millis(200),
            ..Options::default()
        },
    };
    let task = tokio::spawn(follower.run(sender, async { drop(stopped.await) }));
    agree(&city, &energy).await;
    wait(&mut progress, |progress| progress.block == Some(4)).await;
    server.stop().await.unwrap();
    let down = wait(&mut progress, |progress| !progress.connected).await;
    assert!(down.frozen.is_none() && down.last_error.is_some());
    let error = city.submit(&on, "order", order("x", "city")).await.unwrap_err();
    assert!(error.transient(), "{error}");
    let server = serve(directory.path(), &address).await;
    let done = city.submit(&on, "order", order("x", "city")).await.unwrap();
    let up = wait(&mut progress, |progress| progress.block == Some(done.block)).await;
    assert_eq!((up.desired, up.reported), heads(&place.store));
    drop(stop);
    task.await.unwrap().unwrap();
    server.stop().await.unwrap();
}

async fn wait(progress: &mut watch::Receiver<Progress>, what: impl FnMut(&Progress) -> bool) -> Progress {
    let waited = tokio::time::timeout(Duration::from_secs(30), progress.wait_for(what)).await;
    waited.expect("the follower gets there").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_member_is_refused_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(directory.path(), "127.0.0.1:0").await;
    let health = client(directory.path(), "health", "HealthMSP", &server);
    let on = channel();
    let error = health.submit(&on, "order", order("x", "health")).await.unwrap_err();
    assert!(
        matches!(error, SubmitError::Endorse(_)) && !error.transient(),
        "{}",
        state::errors::chain(&error)
    );
    let error = health.evaluate(&on, "resources", Vec::new()).await.unwrap_err();
    assert!(!error.transient(), "{}", state::errors::chain(&error));
    let error = health.blocks(&on, 0).await.unwrap().next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, StreamError::Refused { status: 403, .. }),
        "{}",
        state::errors::chain(&error)
    );
    let place = place();
    let error = catch_up(Arc::new(health), place.store.clone(), on, Options::default())
        .await
        .unwrap_err();
    assert!(matches!(&error, FollowError::Ledger(_)) && !error.transient(), "{error}");
    // A channel that isn't there, as a member sees it.
    let city = client(directory.path(), "city", CITY, &server);
    let nowhere = Channel::new("nowhere").unwrap();
    assert!(matches!(
        city.height(&nowhere).await.unwrap_err(),
        StreamError::Refused { status: 404, .. }
    ));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_does_not_vouch_for_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(directory.path(), "127.0.0.1:0").await;
    let other = msp::CertificateAuthority::create("other", "ca.other", 1_780_000_000).unwrap();
    let config = GatewayConfig {
        peers: vec![PeerConfig {
            endpoint: format!("https://localhost:{}", server.address().port()),
            tls_ca_pem: other.certificate_pem().as_bytes().to_vec(),
            server_name: None,
        }],
        client_tls: None,
        timeouts: Timeouts::default(),
        pending: Pending::new(directory.path().join("pending")),
    };
    let signer = signer(directory.path(), "city", CITY);
    assert_eq!(signer.msp_id(), CITY);
    let city = GatewayClient::connect(config, signer).unwrap();
    let error = city.height(&channel()).await.unwrap_err();
    assert!(
        state::errors::chain(&error).to_lowercase().contains("certificate"),
        "{}",
        state::errors::chain(&error)
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_told_of_its_own_channels_only() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(place.path(), "127.0.0.1:0").await;
    let names = |channels: std::collections::BTreeSet<Channel>| channels.iter().map(ToString::to_string).collect::<Vec<_>>();
    let city = client(place.path(), "city", CITY, &server);
    assert_eq!(names(city.joined().await.unwrap()), [channel().to_string()]);
    // A member of the network that is in none of its channels.
    let health = client(place.path(), "health", "HealthMSP", &server);
    assert!(names(health.joined().await.unwrap()).is_empty());
    server.stop().await.unwrap();
    assert!(city.joined().await.unwrap_err().transient());
}
