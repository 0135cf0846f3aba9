//! The chaincode as a process of its own: packaged, served, killed and started again, under a ledger that dials it as a peer does.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use msp::{CertificateAuthority, Enrolment, Issued, Role};
use tests::{Running, World, documents, until};

/// The keys and certificates for mutual TLS, as files of a world.
struct Tls {
    ca: String,
    cert: String,
    key: String,
    client_cert: String,
    client_key: String,
}

impl Tls {
    fn new(world: &World) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let authority = CertificateAuthority::create("city", "tlsca.city", now).unwrap();
        let server = Enrolment::TlsServer {
            hosts: &["localhost", "127.0.0.1"],
        };
        let client = Enrolment::Member {
            name: "peer",
            role: Role::Peer,
        };
        let issue = |enrolment: &Enrolment<'_>| -> Issued { authority.enrol("city", enrolment, now).unwrap() };
        let (server, client) = (issue(&server), issue(&client));
        let secret = |name: &str, text: &str| {
            let path = world.file(name, text);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        Self {
            ca: world.file("tlsca.pem", authority.certificate_pem()),
            cert: world.file("server.pem", &server.certificate_pem),
            key: secret("server.key", &server.key_pem),
            client_cert: world.file("client.pem", &client.certificate_pem),
            client_key: secret("client.key", &client.key_pem),
        }
    }
}

/// The package id of a plain package.
fn package(world: &World, address: &str) -> String {
    let file = world.root().join("charter.tgz").display().to_string();
    let made = world.charter(&["chaincode", "package", "--label", "charter_1", "--address", address, "--out", &file]);
    made.exits(0).stdout.trim().to_owned()
}

/// The command to serve a package that its making names, after the channel is joined.
fn made_next(world: &World, address: &str, more: &[&str]) -> String {
    let file = world.root().join("next.tgz").display().to_string();
    let words = ["chaincode", "package", "--label", "charter_1", "--address", address, "--out", &file];
    let made = world.charter(&[&words[..], more].concat()).exits(0);
    let (joined, served) = made.stderr.split_once("then: ").unwrap();
    assert!(joined.contains("next: charter channel join"), "{made}");
    served.trim().to_owned()
}

/// Where a server says that it listens.
fn listens(server: &mut Running) -> String {
    let said = server.says("listening on");
    said.rsplit_once(' ').unwrap().1.to_owned()
}

#[test]
fn orders_go_through_a_chaincode_that_is_killed_and_comes_back() {
    let world = World::smart_city();
    let tls = Tls::new(&world);
    let id = package(&world, "localhost:9999");
    let serve = |address: &str| {
        let words = [
            "chaincode",
            "serve",
            "--id",
            &id,
            "--address",
            address,
            "--tls-cert",
            &tls.cert,
            "--tls-key",
            &tls.key,
            "--client-ca",
            &tls.ca,
        ];
        world.start(&words)
    };
    let mut chaincode = serve("127.0.0.1:0");
    let address = listens(&mut chaincode);
    let port = address.rsplit_once(':').unwrap().1;
    let mut ledger = world.start(&[
        "ledger",
        "serve",
        "--chaincode",
        &format!("localhost:{port}"),
        "--chaincode-ca",
        &tls.ca,
        "--chaincode-client-cert",
        &tls.client_cert,
        "--chaincode-client-key",
        &tls.client_key,
    ]);
    ledger.says("listening on");
    let (city, breeze) = (world.serve("city"), world.serve("breeze"));
    let file = |name: &str| documents::order(vec![documents::file(name, "city", "through a chaincode of its own\n")]);

    let block = documents::block(&world.submit("city", "smart-city-1", &file("first")).exits(0).stdout);
    until("the order is carried out, and reported", || {
        world.status().converged_at("smart-city-1", block)
    });

    // The chaincode's own refusal reaches the user.
    let refused = world.submit("city", "smart-city-1", &file("first"));
    refused.exits(1).says(&["first"]);

    chaincode.kill();
    let away = world.submit("city", "smart-city-1", &file("second"));
    away.exits(1).says(&["could not launch the chaincode"]);
    let mut chaincode = serve(&address);
    listens(&mut chaincode);
    let block = documents::block(&world.submit("city", "smart-city-1", &file("second")).exits(0).stdout);
    world.converged_at("smart-city-1", block);

    // Who shows no certificate is no peer of it; and it takes no transaction in clear.
    for words in [&["--chaincode-ca", tls.ca.as_str()][..], &[]] {
        let other = World::smart_city();
        let mut all = vec!["ledger", "serve", "--chaincode", &address];
        all.extend(words);
        let mut stranger = other.start(&all);
        stranger.says("listening on");
        let refused = other.submit("city", "smart-city-1", &file("first"));
        refused.exits(1).says(&["could not launch the chaincode"]);
    }

    for running in [city, breeze, ledger, chaincode] {
        running.stop();
    }
    // The blocks are those of any other ledger: the program in this process, and every check, say the same of them.
    world.charter(&["verify"]).exits(0);
    world.charter(&["replay", "--compare"]).exits(0);
}

#[test]
fn a_package_is_the_same_each_time_and_tells_what_is_wrong() {
    let world = World::new();
    let id = package(&world, "localhost:9999");
    let bytes = std::fs::read(world.root().join("charter.tgz")).unwrap();
    assert_eq!(package(&world, "localhost:9999"), id);
    assert_eq!(std::fs::read(world.root().join("charter.tgz")).unwrap(), bytes);
    assert_ne!(package(&world, "localhost:9998"), id);
    let (label, hash) = id.split_once(':').unwrap();
    assert!(label == "charter_1" && hash.len() == 64, "{id}");

    // What it names as the next command can be run as it stands.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let served = made_next(&world, &free.unwrap().to_string(), &[]);
    let words: Vec<&str> = served.split_whitespace().skip(1).collect();
    let mut server = world.start(&words);
    listens(&mut server);
    server.stop();
    let filled_in = made_next(&world, "{{.peername}}_cc:9999", &[]);
    assert!(filled_in.ends_with(" --address 0.0.0.0:9999"), "{filled_in}");

    let tls = Tls::new(&world);
    let with_tls = made_next(&world, "localhost:9999", &["--tls-ca", &tls.ca]);
    assert!(with_tls.ends_with(" --tls-cert FILE --tls-key FILE"), "{with_tls}");
    let file = world.root().join("tls.tgz").display().to_string();
    let plain = ["chaincode", "package", "--label", "a", "--address", "localhost:1", "--out", &file];
    let with = |more: &[&str]| world.charter(&[&plain[..], more].concat());
    let made = with(&[
        "-o",
        "json",
        "--tls-ca",
        &tls.ca,
        "--client-cert",
        &tls.client_cert,
        "--client-key",
        &tls.client_key,
    ])
    .exits(0);
    assert_eq!(made.json()["file"].as_str(), Some(file.as_str()));
    let mode = std::fs::metadata(Path::new(&file)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a key stands in the package");
    assert!(!made.stdout.contains("PRIVATE") && !made.stderr.contains("PRIVATE"));

    with(&["--tls-ca", &tls.client_key])
        .exits(1)
        .says(&["authority of the server's certificate"]);
    with(&["--tls-ca", "/nowhere.pem"]).exits(1).says(&["/nowhere.pem"]);
    with(&["--client-cert", &tls.client_cert]).exits(1).says(&["--client-key"]);
    std::fs::set_permissions(&tls.client_key, std::fs::Permissions::from_mode(0o644)).unwrap();
    with(&[
        "--tls-ca",
        &tls.ca,
        "--client-cert",
        &tls.client_cert,
        "--client-key",
        &tls.client_key,
    ])
    .exits(1)
    .says(&["client.key", "chmod"]);
    for (label, address, words) in [("a b", "localhost:1", "the label"), ("a", "localhost", "HOST:PORT")] {
        let words_of = ["chaincode", "package", "--label", label, "--address", address, "--out", &file];
        world.charter(&words_of).exits(1).says(&[words]);
    }
}

#[test]
fn a_server_says_where_it_listens_or_why_not() {
    let world = World::new();
    world.give("CHAINCODE_ID", format!("charter_1:{}", "0a".repeat(32)));
    world.give("CHAINCODE_SERVER_ADDRESS", "127.0.0.1:0");
    let mut server = world.start(&["chaincode", "serve"]);
    let address = listens(&mut server);
    world
        .charter(&["chaincode", "serve", "--address", &address])
        .exits(1)
        .says(&["cannot listen", &address]);
    let tls = Tls::new(&world);
    for (more, words) in [
        (&["--tls-disabled", "false"][..], "there is no certificate"),
        (&["--tls-cert", &tls.cert, "--tls-key", &tls.cert], "key"),
        (&["--tls-cert", &tls.cert], "--tls-key"),
        (
            &["--tls-cert", &tls.client_cert, "--tls-key", &tls.key],
            "the key belongs to the certificate",
        ),
    ] {
        world.charter(&[&["chaincode", "serve"][..], more].concat()).exits(1).says(&[words]);
    }
    // A peer waits in vain for a chaincode that calls itself by a shortened id.
    let long = format!("charter_1:{}", "0a".repeat(33));
    for id in [
        "",
        "charter_1",
        "charter_1:",
        "charter_1:390b9d",
        "charter_1:390b9d…",
        &long,
        &long[9..74],
    ] {
        let refused = world.charter(&["chaincode", "serve", "--id", id]).exits(1);
        let refused = refused.says(&["is no package id", "64 hexadecimal digits"]);
        assert_eq!(refused.stderr.matches("charter: ").count(), 1, "{refused}");
    }
    server.signal(rustix::process::Signal::INT);
    assert_eq!(server.ended(), Some(0));
}
