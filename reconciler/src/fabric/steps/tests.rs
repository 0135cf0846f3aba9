//! The steps against tools that pretend to be Fabric's: what is done once is not done again, whatever fails in between.

use super::*;
use crate::fabric::testing::{Parties, Place};

/// Everything that the members of a consortium of three run, with one more try after a failure. Gives the number of failures.
async fn run_all(place: &Place) -> usize {
    let mut failures = 0;
    for (member, way) in [
        ("city", Way::Create),
        ("city", Way::Join),
        ("breeze", Way::Join),
        ("tram", Way::Join),
    ] {
        let site = place.site(member);
        if go(&site, way).await.is_err() {
            failures += 1;
            go(&site, way).await.unwrap();
        }
    }
    failures
}

async fn go(site: &Site, way: Way) -> Result<Outcome, FabricError> {
    match way {
        Way::Create => create(site, |_| {}).await,
        Way::Join => join(site, |_| {}).await,
    }
}

const EFFECTS: [&str; 12] = [
    "block",
    "orderer",
    "join CityMSP",
    "install CityMSP",
    "approve CityMSP",
    "join BreezeMSP",
    "install BreezeMSP",
    "approve BreezeMSP",
    "commit",
    "join TramMSP",
    "install TramMSP",
    "approve TramMSP",
];

#[tokio::test]
async fn a_consortium_of_three_needs_each_step_once() {
    let place = Place::new(Parties::Three);
    assert_eq!(run_all(&place).await, 0);
    assert_eq!(place.effects(), EFFECTS);
    // Again, all of it: nothing is left to do.
    assert_eq!(run_all(&place).await, 0);
    assert_eq!(place.effects(), EFFECTS);
}

#[tokio::test]
async fn after_a_failure_anywhere_a_second_run_goes_on_and_repeats_nothing() {
    for number in 1..=EFFECTS.len() {
        for when in ["before", "after"] {
            let place = Place::new(Parties::Three);
            place.fail(number, when);
            let failures = run_all(&place).await;
            let mut effects = place.effects();
            if (number, when) == (1, "after") {
                // What a tool left behind when it failed is not taken for a block. Nobody has seen it.
                assert_eq!(effects.remove(0), "block");
            }
            // A tool that fails after its work has done it.
            let expected = usize::from(when == "before" || number == 1);
            assert_eq!(failures, expected, "{number} {when}");
            assert_eq!(effects, EFFECTS, "{number} {when}");
        }
    }
}

#[tokio::test]
async fn a_network_that_is_settling_is_tried_again_by_itself() {
    for number in [5, 9] {
        let place = Place::new(Parties::Three);
        place.fail(number, "settling");
        assert_eq!(run_all(&place).await, 0);
        assert_eq!(place.effects(), EFFECTS);
    }
}

#[tokio::test]
async fn who_is_missing_is_said() {
    let place = Place::new(Parties::Three);
    let city = place.site("city");
    create(&city, |_| {}).await.unwrap();
    let outcome = join(&city, |_| {}).await.unwrap();
    let missing: Vec<&str> = outcome.missing.iter().map(|missing| missing.member.as_str()).collect();
    assert_eq!(missing, ["breeze", "tram"]);
    let last = outcome.steps.last().unwrap();
    assert_eq!(last.ended, Ended::Waiting);
    insta::assert_snapshot!(last.detail, @"version 1.0, sequence 1: 1 of 3 members have approved, 2 have to; still to approve: breeze, tram");
    assert!(!place.effects().contains(&"commit".to_owned()));
    let outcome = join(&place.site("breeze"), |_| {}).await.unwrap();
    assert!(outcome.missing.is_empty());
}

#[tokio::test]
async fn a_member_that_is_away_is_left_out_of_the_commit() {
    let place = Place::new(Parties::Three);
    let (city, breeze, tram) = (place.site("city"), place.site("breeze"), place.site("tram"));
    create(&city, |_| {}).await.unwrap();
    join(&city, |_| {}).await.unwrap();
    // Breeze approves with city; its commit is prevented, so that tram commits with a peer of breeze that is gone by then.
    place.fail(9, "before");
    join(&breeze, |_| {}).await.unwrap_err();
    let away = place.state().join("away");
    std::fs::create_dir_all(&away).unwrap();
    std::fs::write(away.join("peer0.city:7051"), "").unwrap();
    let outcome = join(&tram, |_| {}).await.unwrap();
    assert!(outcome.missing.is_empty());
    let commits: Vec<String> = place.runs().into_iter().filter(|run| run.contains("chaincode commit")).collect();
    let last = commits.last().unwrap();
    assert!(
        last.contains("peer0.tram") && last.contains("peer0.breeze") && !last.contains("peer0.city"),
        "{last}"
    );
}

#[tokio::test]
async fn an_orderer_that_is_away_is_told_and_holds_up_nothing_else() {
    let place = Place::new(Parties::Two);
    let mut city = place.site("city");
    create(&city, |_| {}).await.unwrap();
    let second = crate::fabric::settings::OrdererAdmin {
        admin: "127.0.0.1:7054".parse().unwrap(),
        tls: None,
    };
    city.settings.orderers.push(second);
    let away = place.state().join("away");
    std::fs::create_dir_all(&away).unwrap();
    std::fs::write(away.join("127.0.0.1:7054"), "").unwrap();
    let mut ends = Vec::new();
    let error = join(&city, |report| ends.push(report.ended)).await.unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    use Ended::{Already, Done, Failed};
    assert_eq!(ends, [Already, Already, Failed, Done, Done, Done, Done]);
    std::fs::remove_dir_all(&away).unwrap();
    join(&city, |_| {}).await.unwrap();
}

#[tokio::test]
async fn a_block_that_the_orderer_has_is_never_made_a_second_time() {
    let place = Place::new(Parties::Two);
    let city = place.site("city");
    let first = create(&city, |_| {}).await.unwrap().first_block;
    std::fs::remove_dir_all(&city.folder).unwrap();
    let again = create(&city, |_| {}).await.unwrap();
    assert_eq!(again.first_block, first);
    assert_eq!(place.effects(), ["block", "orderer"]);
}

#[tokio::test]
async fn a_member_without_orderers_takes_the_block_that_they_serve_and_makes_none() {
    let place = Place::new(Parties::Two);
    let first = create(&place.site("city"), |_| {}).await.unwrap().first_block;
    let breeze = create(&place.site("breeze"), |_| {}).await.unwrap();
    assert_eq!(breeze.first_block, first);
    join(&place.site("breeze"), |_| {}).await.unwrap();
    assert_eq!(place.effects()[..3], ["block", "orderer", "join BreezeMSP"]);
}

#[tokio::test]
async fn a_block_with_the_same_configuration_that_the_orderers_do_not_serve_is_not_joined() {
    let place = Place::new(Parties::Two);
    let (city, breeze) = (place.site("city"), place.site("breeze"));
    // Made while nobody served the channel: the same configuration as city's, with another hash.
    create(&breeze, |_| {}).await.unwrap();
    let group = crate::fabric::testing::configuration(&["BreezeMSP", "CityMSP"]);
    std::fs::write(&breeze.block, crate::fabric::testing::first_block("smart-city-1", group, 9)).unwrap();
    let stale = create(&breeze, |_| {}).await.unwrap().first_block;
    let served = create(&city, |_| {}).await.unwrap().first_block;
    assert_ne!(stale, served);
    for way in [Way::Join, Way::Create] {
        let error = go(&breeze, way).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("first block {served}")), "{text}");
        assert!(text.contains(&format!("{} holds {stale}", breeze.block.display())), "{text}");
        assert!(
            error.next().contains(&format!("remove {}", breeze.block.display())),
            "{}",
            error.next()
        );
    }
    assert_eq!(place.effects(), ["block", "block", "orderer"]);
    std::fs::remove_file(&breeze.block).unwrap();
    assert_eq!(join(&breeze, |_| {}).await.unwrap().first_block, served);
    assert!(!breeze.folder.join(".served.block").exists());
}

#[tokio::test]
async fn a_second_block_joins_no_orderer() {
    let place = Place::new(Parties::Two);
    create(&place.site("city"), |_| {}).await.unwrap();
    let mut second = place.site("city");
    second.block = place.path().join("second.block");
    let group = crate::fabric::testing::configuration(&["BreezeMSP", "CityMSP"]);
    std::fs::write(&second.block, crate::fabric::testing::first_block("smart-city-1", group, 9)).unwrap();
    let error = create(&second, |_| {}).await.unwrap_err();
    assert!(matches!(error, FabricError::OtherBlock { .. }), "{error}");
    assert_eq!(place.effects(), ["block", "orderer"]);
}

#[tokio::test]
async fn before_an_orderer_serves_the_channel_no_peer_joins() {
    let place = Place::new(Parties::Two);
    let breeze = place.site("breeze");
    // Without a block, and with one.
    for _ in 0..2 {
        let error = join(&breeze, |_| {}).await.unwrap_err();
        assert_eq!(error.to_string(), "no orderer serves channel smart-city-1 yet");
        let next = error.next();
        assert!(
            next.contains("charter channel join") && next.contains("osnadmin channel join"),
            "{next}"
        );
        create(&breeze, |_| {}).await.unwrap();
    }
    assert_eq!(place.effects(), ["block"]);
}

#[tokio::test]
async fn while_an_orderer_cannot_be_asked_no_block_is_made_and_no_peer_joins() {
    let place = Place::new(Parties::Two);
    let (city, breeze) = (place.site("city"), place.site("breeze"));
    create(&city, |_| {}).await.unwrap();
    std::fs::create_dir_all(breeze.block.parent().unwrap()).unwrap();
    std::fs::create_dir_all(place.state().join("away")).unwrap();
    let away = place.state().join("away/orderer:7050");
    std::fs::write(&away, "").unwrap();
    let error = create(&breeze, |_| {}).await.unwrap_err();
    assert!(state::errors::chain(&error).contains("orderer:7050"), "{error}");
    std::fs::copy(&city.block, &breeze.block).unwrap();
    let error = join(&breeze, |_| {}).await.unwrap_err();
    assert!(error.next().contains("see whether the node answers"), "{}", error.next());
    assert_eq!(place.effects(), ["block", "orderer"]);
    std::fs::remove_file(&away).unwrap();
    join(&breeze, |_| {}).await.unwrap();
}

#[tokio::test]
async fn a_block_that_is_not_the_documents_is_not_joined() {
    let place = Place::new(Parties::Two);
    let breeze = place.site("breeze");
    std::fs::create_dir_all(&breeze.folder).unwrap();
    let group = crate::fabric::testing::configuration(&["BreezeMSP", "CityMSP", "EvilMSP"]);
    std::fs::write(&breeze.block, crate::fabric::testing::first_block("smart-city-1", group, 9)).unwrap();
    let error = join(&breeze, |_| {}).await.unwrap_err();
    let text = state::errors::chain(&error);
    assert!(text.contains("Channel/Application/EvilMSP (only in the block)"), "{text}");
    assert!(error.next().contains("compare"), "{}", error.next());
    assert_eq!(place.effects(), Vec::<String>::new());
}

#[tokio::test]
async fn the_next_definition_follows_and_another_one_is_refused() {
    let place = Place::new(Parties::Two);
    create(&place.site("city"), |_| {}).await.unwrap();
    join(&place.site("city"), |_| {}).await.unwrap();
    place.edit("version: \"1.0\"", "version: \"1.1\"");
    let error = join(&place.site("city"), |_| {}).await.unwrap_err();
    assert!(matches!(error, FabricError::Definition { .. }), "{error}");
    place.edit("version: \"1.1\"", "version: \"1.1\", sequence: 2");
    let outcome = join(&place.site("city"), |_| {}).await.unwrap();
    assert_eq!(outcome.steps.last().unwrap().ended, Ended::Done);
    place.edit("sequence: 2", "sequence: 4");
    assert!(matches!(
        join(&place.site("city"), |_| {}).await,
        Err(FabricError::Definition { .. })
    ));
}

#[tokio::test]
async fn a_new_package_is_approved_in_the_same_definition() {
    let place = Place::new(Parties::Two);
    create(&place.site("city"), |_| {}).await.unwrap();
    join(&place.site("city"), |_| {}).await.unwrap();
    std::fs::write(place.path().join("package.tgz"), "another address").unwrap();
    join(&place.site("city"), |_| {}).await.unwrap();
    assert_eq!(place.effects()[6..], ["install CityMSP", "approve CityMSP"]);
}

#[tokio::test]
async fn without_its_package_nothing_is_joined() {
    let place = Place::new(Parties::Two);
    create(&place.site("city"), |_| {}).await.unwrap();
    std::fs::remove_file(place.path().join("package.tgz")).unwrap();
    let error = join(&place.site("city"), |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("charter chaincode package"), "{error}");
    assert_eq!(place.effects(), ["block", "orderer"]);
}

#[test]
fn a_rehearsal_runs_and_writes_nothing() {
    let place = Place::new(Parties::Two);
    let site = place.site("city");
    let mut shown = String::new();
    for way in [Way::Create, Way::Join] {
        for (step, commands) in rehearse(&site, way).unwrap().commands {
            shown.push_str(&format!("# {step}\n{}\n", commands.join("\n")));
        }
    }
    assert_eq!(place.runs(), Vec::<String>::new());
    assert!(!site.folder.exists());
    let shown = shown.replace(&place.path().display().to_string(), "/c");
    // The environment is the same for every peer command, and is in the first of them.
    let environment = shown
        .find("CORE_")
        .zip(shown.find("peer channel fetch"))
        .map(|(from, to)| shown[from..to].to_owned());
    let environment = environment.unwrap();
    let shown = shown
        .replace(&environment, "$PEER ")
        .replace("/c/members/city/fabric/smart-city-1", "/f");
    let shown = format!("{}\n{shown}", environment.replace(' ', "\n"));
    insta::assert_snapshot!(shown, @r"
    CORE_PEER_ADDRESS=peer0.city:7051
    CORE_PEER_LOCALMSPID=CityMSP
    CORE_PEER_MSPCONFIGPATH=/c/secret/city
    CORE_PEER_TLS_ENABLED=true
    CORE_PEER_TLS_ROOTCERT_FILE=/c/msp/city/tlscacerts/tls.pem
    FABRIC_CFG_PATH=/c/members/city/fabric/smart-city-1

    # first block
    FABRIC_CFG_PATH=/f configtxgen -configPath /f -profile Charter -channelID smart-city-1 -outputBlock /f/smart-city-1.block
    # orderer 127.0.0.1:7053
    osnadmin channel join --channelID smart-city-1 -o 127.0.0.1:7053 --config-block /f/smart-city-1.block
    # first block
    $PEER peer channel fetch 0 /f/smart-city-1.block -c smart-city-1 --bestEffort -o orderer:7050 --tls --cafile /c/msp/orderer/tlscacerts/tls.pem --connTimeout 10s
    # orderer 127.0.0.1:7053
    osnadmin channel join --channelID smart-city-1 -o 127.0.0.1:7053 --config-block /f/smart-city-1.block
    # peer peer0.city:7051
    $PEER peer channel join -b /f/smart-city-1.block
    # package on peer0.city:7051
    $PEER peer lifecycle chaincode install /c/package.tgz
    # approval
    $PEER peer lifecycle chaincode calculatepackageid /c/package.tgz
    $PEER peer lifecycle chaincode approveformyorg -C smart-city-1 -n charter -v 1.0 --sequence 1 --package-id $PACKAGE_ID -o orderer:7050 --tls --cafile /c/msp/orderer/tlscacerts/tls.pem --connTimeout 10s
    # chaincode
    $PEER peer lifecycle chaincode commit -C smart-city-1 -n charter -v 1.0 --sequence 1 --peerAddresses peer0.city:7051 --tlsRootCertFiles /c/msp/city/tlscacerts/tls.pem -o orderer:7050 --tls --cafile /c/msp/orderer/tlscacerts/tls.pem --connTimeout 10s
    ");
}
