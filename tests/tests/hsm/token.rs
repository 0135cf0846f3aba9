//! What a member's Charter signs in a token, and what it says when it can't.

use msp::key_id;
use state::report::Envelope;
use tests::{documents, until};

use crate::member::{PIN, TOKEN, Town, certificate, fingerprint};

const CHANNEL: &str = "smart-city-1";
const ACTUAL: &str = "actual/smart-city-1";
const REPORT: &str = "members/city/report.dsse.json";

/// Waits until the city's report on a resource is on the ledger.
fn reported(town: &Town, resource: &str) {
    until("the new file is reported", || {
        let told = town.store().reports(CHANNEL, "city");
        let found = told
            .iter()
            .any(|report| report.changes.keys().any(|name| name.as_str() == resource));
        if found { Ok(()) } else { Err(format!("{} reports", told.len())) }
    });
}

#[test]
fn transactions_reports_and_commits_are_signed_in_the_token() {
    let Some(town) = Town::new() else { return };
    let issued = town.world.issue("city");
    town.import(&issued, "charter", "01");
    town.certify(&issued);
    town.configure(&[]);
    let before = town.store().good_commits(ACTUAL);

    let ledger = town.world.ledger();
    let city = town.serve();
    let order = documents::order(vec![documents::file("in-the-token", "city", "signed\n")]);
    town.world.submit("city", CHANNEL, &order).exits(0);
    reported(&town, "in-the-token");
    let log = city.stderr() + &city.stdout();
    city.stop();

    let after = town.store().good_commits(ACTUAL);
    assert_eq!(after.len(), 2, "{after:?}");
    let new = after[&fingerprint(&issued)];
    assert!(new >= 2, "{new} commits for an intention and what came of it");
    assert_eq!(after.values().sum::<usize>(), before.values().sum::<usize>() + new);
    let shown = town.store().git(&["log", "--show-signature", "-1", ACTUAL]).exits(0);
    shown.says(&["Good \"git\" signature for city@CityMSP", &fingerprint(&issued)]);

    let head = town.store().head(&format!("reported/{CHANNEL}"));
    let envelope: Envelope = town.store().json(&head, REPORT);
    assert_eq!(envelope.signature().unwrap().0, key_id("CityMSP", &certificate(&issued)));

    // The ledger knows the key from the transactions that it signed.
    let rows = town.charter(&["verify", "-o", "json"]).exits(0).json();
    let row = rows.as_array().unwrap().iter().find(|row| row["channel"] == CHANNEL).unwrap();
    assert_eq!(row["keys"][fingerprint(&issued)]["known"], "ledger", "{row}");
    ledger.stop();
    town.world.charter(&["verify"]).exits(0);
    town.world.charter(&["replay", "--compare"]).exits(0);
    // Bringing the example up again puts no key in a file.
    town.world.up().exits(0);
    assert!(!town.folder().join("identity/msp/keystore").exists());
    assert_eq!(town.store().good_commits(ACTUAL).len(), 2);

    let status = std::fs::read_to_string(town.folder().join("status.json")).unwrap_or_default();
    for (what, text) in [("log", log), ("store", town.store().all_contents()), ("status", status)] {
        assert!(!text.contains(PIN), "the PIN is in the {what}");
    }
}

#[test]
fn a_service_that_is_killed_signs_on_and_a_renewed_certificate_may_move_into_the_token() {
    let Some(town) = Town::new() else { return };
    let (first, second) = (town.world.issue("city"), town.world.issue("city"));
    let ledger = town.world.ledger();
    for (issued, label, id) in [(&first, "charter", "01"), (&second, "charter-2", "02")] {
        town.import(issued, label, id);
        town.certify(issued);
        // The PIN from the environment, and a key by its id, do as well.
        town.world.give("CITY_HSM_PIN", PIN);
        town.configure(&[("key", ""), ("id", id), ("pin_file", ""), ("pin_env", "CITY_HSM_PIN")]);
        let mut city = town.serve();
        let order = documents::order(vec![documents::file(label, "city", "signed\n")]);
        town.world.submit("city", CHANNEL, &order).exits(0);
        city.kill();
        let city = town.serve();
        reported(&town, label);
        city.stop();
    }
    let keys = town.store().good_commits(ACTUAL);
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert!(keys.contains_key(&fingerprint(&first)) && keys.contains_key(&fingerprint(&second)));
    ledger.stop();
    town.world.charter(&["verify"]).exits(0);
}

#[test]
fn each_mistake_has_one_clear_error() {
    let Some(town) = Town::new() else { return };
    let (issued, other) = (town.world.issue("city"), town.world.issue("city"));
    town.import(&issued, "charter", "01");
    town.import(&other, "another", "02");
    town.certify(&issued);
    let _ledger = town.world.ledger();
    let pin = town.folder().join("secrets/pin");
    let write = |content: &str| msp::folder::write_file(&pin, content.as_bytes(), msp::folder::Readers::Owner).unwrap();
    let wrong = |more: &[(&str, &str)], words: &[&str]| {
        town.configure(more);
        for command in [&["serve"][..], &["verify"]] {
            let said = town.charter(command).exits(1);
            assert_eq!(said.stderr.matches("charter:").count(), 1, "{said}");
            assert!(!said.stderr.contains(PIN) && !said.stderr.contains("999999"), "{said}");
            said.says(words);
        }
    };
    wrong(
        &[("module", "/usr/lib/no-such-hsm.so")],
        &["/usr/lib/no-such-hsm.so", "install the token's driver"],
    );
    wrong(&[("module", "identity/hsm.pem")], &["hsm.pem can't be loaded as a PKCS#11 module"]);
    wrong(&[("token", "village-hsm")], &["no token «village-hsm»; it has: «city-hsm»"]);
    wrong(&[("key", "mayor")], &["token «city-hsm» has no private EC key «mayor»"]);
    wrong(&[("key", "another")], &["does not belong to the certificate of client.city"]);
    wrong(&[("key", "")], &["has no private EC key with the id that Fabric gives"]);
    wrong(&[("pin_file", "")], &["wants a PIN", "pin_file"]);
    wrong(&[("pin_file", ""), ("pin_env", "NOT_SET_HERE")], &["NOT_SET_HERE"]);
    wrong(&[("pin", "999999")], &["unknown field `pin`", "line "]);
    wrong(&[("certificate", "identity/none.pem")], &["identity/none.pem"]);
    std::fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    wrong(&[], &["open to others than its owner (mode 640)", "chmod 600"]);
    write("999999");
    town.configure(&[]);
    let said = town.charter(&["serve"]).exits(1);
    said.says(&["the PIN of token", TOKEN, "is wrong", "secrets/pin", "not tried twice"]);
    // And with the right one everything is well.
    write(PIN);
    town.serve().stop();
}
