//! A member renews its certificate: what it signed before stays good, and what it signs from then on is good too.

use std::collections::BTreeMap;

use msp::{Certificate, Issued, PemSigner, folder, sshsig};
use state::report::Envelope;
use tests::{World, documents, until};

const CHANNEL: &str = "smart-city-1";
const ACTUAL: &str = "actual/smart-city-1";

/// Puts a certificate and its key in the place of the present ones.
fn install(world: &World, issued: &Issued) {
    let identity = world.member("city").join("identity/msp");
    let ca = std::fs::read_to_string(identity.join("cacerts/ca.pem")).unwrap();
    let tls = std::fs::read_to_string(identity.join("tlscacerts/tlsca.pem")).unwrap();
    folder::write(&identity, &ca, &tls, issued).unwrap();
}

/// Runs the city's Charter until the ledger has its report on a new file.
fn works(world: &World, file: &str) {
    let ledger = world.ledger();
    let city = world.serve("city");
    let order = documents::order(vec![documents::file(file, "city", "renewed\n")]);
    world.submit("city", CHANNEL, &order).exits(0);
    until("the new file is reported", || {
        let told = world.store("city").reports(CHANNEL, "city");
        let found = told.iter().any(|report| report.changes.keys().any(|name| name.as_str() == file));
        if found { Ok(()) } else { Err(format!("{} reports", told.len())) }
    });
    city.stop();
    ledger.stop();
}

fn fingerprint(certificate_pem: &str) -> String {
    sshsig::fingerprint(Certificate::from_pem(certificate_pem.as_bytes()).unwrap().public_key())
}

fn present(world: &World) -> String {
    std::fs::read_to_string(world.member("city").join("identity/msp/signcerts/cert.pem")).unwrap()
}

/// The keys of the city's commits as `verify` knows them: fingerprint, how it is known, and how many commits.
fn verified(world: &World) -> BTreeMap<String, (String, usize)> {
    let rows = world
        .charter(&["verify", "--member", "city", "--channel", CHANNEL, "-o", "json"])
        .exits(0)
        .json();
    let keys = rows[0]["keys"].as_object().unwrap();
    keys.iter()
        .map(|(key, row)| {
            let commits = usize::try_from(row["commits"].as_u64().unwrap()).unwrap();
            (key.clone(), (row["known"].as_str().unwrap().to_owned(), commits))
        })
        .collect()
}

#[test]
fn commits_of_the_key_before_stay_good() {
    let world = World::smart_city();
    let (store, old) = (world.store("city"), present(&world));
    let before = store.good_commits(ACTUAL);
    assert_eq!(before.keys().collect::<Vec<_>>(), [&fingerprint(&old)]);

    let issued = world.issue("city");
    let new = fingerprint(&issued.certificate_pem);
    let old_key = std::fs::read(world.member("city").join("identity/msp/keystore/priv_sk")).unwrap();
    install(&world, &issued);
    works(&world, "renewed");

    let after = store.good_commits(ACTUAL);
    assert_eq!(after.len(), 2, "{after:?}");
    assert_eq!(after[&fingerprint(&old)], before[&fingerprint(&old)]);
    let known = verified(&world);
    assert_eq!(known[&fingerprint(&old)], ("ledger".to_owned(), after[&fingerprint(&old)]));
    assert_eq!(known[&new], ("ledger".to_owned(), after[&new]));
    // One chain of reports, whichever key signed them.
    assert!(store.report_chain(CHANNEL, "city") >= 2);
    world.charter(&["verify"]).exits(0);

    // Without what is written down here, the ledger is witness enough.
    let written = world.member("city").join("identity/allowed_signers");
    let text = std::fs::read_to_string(&written).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("valid-before=")).count(), 1, "{text}");
    std::fs::remove_file(&written).unwrap();
    assert_eq!(verified(&world).len(), 2);
    std::fs::write(&written, text).unwrap();

    // The key that was followed by another signs nothing new, in git's eyes and in ours.
    let old_signer = PemSigner::new("CityMSP", old.as_bytes(), &old_key).unwrap();
    forge(&world, &old_signer);
    assert_eq!(store.log(ACTUAL, "%G?")[0], "U");
    let said = world.charter(&["verify", "--member", "city", "--channel", CHANNEL]).exits(1);
    said.says(&["followed by another key", &fingerprint(&old)]);
}

/// Adds a commit of this moment to the record, signed by hand.
fn forge(world: &World, signer: &PemSigner) {
    let store = world.store("city");
    let tree = store.log(ACTUAL, "%T")[0].clone();
    let (parent, now) = (store.head(ACTUAL), std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 5);
    let head = format!(
        "tree {tree}\nparent {parent}\nauthor city <city@charter.invalid> {now} +0000\ncommitter city <city@charter.invalid> {now} +0000"
    );
    let message = "nothing happened\n";
    let signature = sshsig::sign(signer, sshsig::GIT_NAMESPACE, format!("{head}\n\n{message}").as_bytes()).unwrap();
    let commit = format!("{head}\ngpgsig {}\n\n{message}", signature.trim_end().replace('\n', "\n "));
    let file = world.file("forged", &commit);
    let id = store.git(&["hash-object", "-t", "commit", "-w", &file]).exits(0);
    store
        .git(&["update-ref", &format!("refs/heads/{ACTUAL}"), id.stdout.trim()])
        .exits(0);
}

#[test]
fn a_report_that_was_waiting_is_recorded_after_the_renewal() {
    let world = World::smart_city();
    let store = world.store("city");
    let before = store.report_chain(CHANNEL, "city");
    // Healed while the ledger is away: the report waits.
    let city = world.serve("city");
    let file = world.member("city").join("machine/smart-city-1/open-data/air-quality.csv");
    std::fs::write(&file, "hour,station,no2\n06,harbour,0\n").unwrap();
    let waiting = until("a report waits", || {
        let listed = store.git(&["ls-tree", "-r", "--name-only", ACTUAL, "outbox/"]).exits(0);
        listed.lines().first().map(|path| (*path).to_owned()).ok_or("the outbox is empty")
    });
    city.stop();
    let envelope = |head: &str, path: &str| store.json::<Envelope>(head, path);
    let sent = envelope(&store.head(ACTUAL), &waiting);

    let issued = world.issue("city");
    install(&world, &issued);
    works(&world, "renewed");
    assert!(store.report_chain(CHANNEL, "city") > before + 1);
    // The report that waited is the one that was recorded, signed with the new certificate.
    let reported = format!("reported/{CHANNEL}");
    let listed = store
        .git(&["log", "--format=%H", &reported, "--", "members/city/report.dsse.json"])
        .exits(0);
    let recorded: Vec<Envelope> = listed
        .lines()
        .into_iter()
        .map(|id| envelope(id, "members/city/report.dsse.json"))
        .collect();
    let same = recorded
        .iter()
        .find(|one| one.payload == sent.payload)
        .expect("the report that waited is recorded");
    let certificate = Certificate::from_pem(issued.certificate_pem.as_bytes()).unwrap();
    assert_eq!(same.signature().unwrap().0, msp::key_id("CityMSP", &certificate));
    assert_ne!(same.signature().unwrap().0, sent.signature().unwrap().0);
    world.charter(&["verify"]).exits(0);
    assert_eq!(store.good_commits(ACTUAL).len(), 2);
}

#[test]
fn a_new_certificate_for_the_same_key_changes_nothing_for_git() {
    let world = World::smart_city();
    let identity = world.member("city").join("identity/msp");
    let old = present(&world);
    let authority = world.data().join("ledger/organisations/city/ca");
    let openssl = |words: &str| {
        let mut command = world.bare_command("openssl");
        command.args(words.split(' '));
        tests::command::run(command, tests::wait::DEADLINE).exits(0);
    };
    let key = identity.join("keystore/priv_sk");
    openssl(&format!(
        "req -new -key {} -subj /O=city/OU=client/CN=client.city -out request.pem",
        key.display()
    ));
    openssl(&format!(
        "x509 -req -in request.pem -CA {ca} -CAkey {ca_key} -days 30 -out renewed.pem",
        ca = authority.join("ca.pem").display(),
        ca_key = authority.join("ca.key").display()
    ));
    std::fs::copy(world.root().join("renewed.pem"), identity.join("signcerts/cert.pem")).unwrap();
    assert_ne!(present(&world), old);
    assert_eq!(fingerprint(&present(&world)), fingerprint(&old));
    works(&world, "renewed");
    assert_eq!(world.store("city").good_commits(ACTUAL).len(), 1);
    assert_eq!(verified(&world).len(), 1);
    let written = std::fs::read_to_string(world.member("city").join("identity/allowed_signers")).unwrap();
    assert!(written.lines().count() == 1 && !written.contains("valid-before"), "{written}");
}
