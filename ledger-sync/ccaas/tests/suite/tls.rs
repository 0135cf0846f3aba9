//! TLS, and who may speak.

use ccaas::{Dial, DialTls, External, Options, Program, Server, Tls};
use chaincode::stub::{Response, Stub, StubError};
use msp::{CertificateAuthority, Enrolment, Issued, Role};

use crate::peer::{PACKAGE, ok};
use crate::proposals::{NOW, Proposed, args, somebody};

/// The stub of a ledger without a state.
struct Nothing;

impl Stub for Nothing {
    fn get_state(&mut self, _: &str) -> Result<Option<Vec<u8>>, StubError> {
        Ok(None)
    }
    fn get_state_by_range(&mut self, _: &str, _: &str) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        Ok(Vec::new())
    }
    fn put_state(&mut self, _: &str, _: Vec<u8>) {}
    fn del_state(&mut self, _: &str) {}
    fn set_event(&mut self, _: &str, _: Vec<u8>) {}
}

async fn answer(dial: Dial) -> Response {
    let external = External::new(dial).unwrap();
    let proposed = Proposed::new(1, &somebody(), &args(&["a"]));
    tokio::task::spawn_blocking(move || external.run(&mut Nothing, &proposed.invocation(), &proposed.signed))
        .await
        .unwrap()
}

fn issue(authority: &CertificateAuthority, enrolment: &Enrolment<'_>) -> Issued {
    authority.enrol("CityMSP", enrolment, NOW - 300_000_000).unwrap()
}

#[tokio::test]
async fn with_client_authorities_only_their_peers_are_heard() {
    let authority = |name| CertificateAuthority::create("CityMSP", name, NOW - 300_000_000).unwrap();
    let (ours, theirs) = (authority("tlsca"), authority("other"));
    let hosts = Enrolment::TlsServer {
        hosts: &["localhost", "127.0.0.1"],
    };
    let client = Enrolment::Member {
        name: "peer",
        role: Role::Peer,
    };
    let serving = issue(&ours, &hosts);
    let mut options = Options::new(PACKAGE);
    options.program = Program::new(|_, _| ok(b"heard"));
    options.tls = Some(Tls {
        certificate: serving.certificate_pem.into_bytes(),
        key: serving.key_pem.into_bytes(),
        client_authorities: Some(ours.certificate_pem().as_bytes().to_vec()),
    });
    let mutual = Server::bind("127.0.0.1:0", options.clone()).await.unwrap();
    options.tls.as_mut().unwrap().client_authorities = None;
    let open = Server::bind("127.0.0.1:0", options).await.unwrap();

    let dial = |server: &Server, root: &CertificateAuthority, shown: Option<Issued>| {
        let mut dial = Dial::new(format!("localhost:{}", server.address().port()));
        dial.tls = Some(DialTls {
            authority: root.certificate_pem().as_bytes().to_vec(),
            client: shown.map(|issued| (issued.certificate_pem.into_bytes(), issued.key_pem.into_bytes())),
        });
        dial
    };
    assert_eq!(answer(dial(&open, &ours, None)).await.payload, b"heard");
    assert_eq!(answer(dial(&mutual, &ours, Some(issue(&ours, &client)))).await.payload, b"heard");
    for refused in [
        dial(&mutual, &ours, None),
        dial(&mutual, &ours, Some(issue(&theirs, &client))),
        dial(&open, &theirs, None),
        Dial::new(open.address().to_string()),
    ] {
        let response = answer(refused.clone()).await;
        assert_eq!(response.status, 500, "{refused:?}");
        assert!(
            response.message.contains("could not launch the chaincode") || response.message.contains("registration failed"),
            "{response:?}"
        );
    }
    for server in [mutual, open] {
        server.stop().await.unwrap();
    }
}
