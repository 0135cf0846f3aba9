//! A chaincode that is served as a process of its own: the ledger runs it as a peer does.

use std::sync::{Arc, Mutex, mpsc};

use ccaas::{Dial, External, Options, Server as Chaincode};
use embedded::{Ledger, Program, Server};
use protos::envelope;
use protos::peer::TxValidationCode as Tx;
use tonic::Code;

use crate::client::{Client, Prepared, answer, ledger, ledger_of, serve};

async fn chaincode(address: &str, program: ccaas::Program) -> Chaincode {
    let mut options = Options::new("test:1");
    options.program = program;
    Chaincode::bind(address, options).await.unwrap()
}

fn external(chaincode: &Chaincode) -> Program {
    Program::external(External::new(Dial::new(chaincode.address().to_string())).unwrap())
}

/// A ledger's server, and a member's client of it.
async fn client(place: &tempfile::TempDir, ledger: &Ledger, name: &'static str) -> (Server, Client) {
    let server = serve(ledger).await;
    let mut client = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    client.chaincode = name;
    (server, client)
}

/// What a prepared transaction reads, writes and tells.
fn effects(prepared: &Prepared) -> impl PartialEq + std::fmt::Debug + use<> {
    let opened = envelope::open(&prepared.envelope).unwrap();
    let transaction = envelope::endorsed(&opened).unwrap();
    let set = &transaction.namespaces[0].rwset;
    let written: Vec<_> = set
        .writes
        .iter()
        .map(|write| (write.key.clone(), write.is_delete, write.value.clone()))
        .collect();
    let read: Vec<_> = set.reads.iter().map(|read| (read.key.clone(), read.version.is_some())).collect();
    let event = transaction.event.map(|event| (event.event_name, event.payload));
    (written, read, event, transaction.response)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_the_same_chaincode_does_in_process() {
    let served = chaincode("127.0.0.1:0", ccaas::Program::new(answer)).await;
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ledgers = [
        ledger_of(places[0].path(), external(&served)),
        ledger_of(places[1].path(), Program::new(chaincode::NAME, answer)),
    ];
    let (_there, mut there) = client(&places[0], &ledgers[0], chaincode::NAME).await;
    let (_here, mut here) = client(&places[1], &ledgers[1], chaincode::NAME).await;
    let mut all: Vec<Vec<String>> = (0..120)
        .map(|number| vec!["put".into(), format!("k{number:03}"), "1".into()])
        .collect();
    for words in [
        &["incr", "k007"][..],
        &["count", "k", "l", "n"],
        &["count", "k119", "k120", "n"],
        &["first", "k", "n"],
        &["del", "k007"],
        &["count", "k", "l", "n"],
    ] {
        all.push(words.iter().map(|word| (*word).to_owned()).collect());
    }
    for words in &all {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut done = Vec::new();
        for client in [&mut there, &mut here] {
            let prepared = client.prepare("ch-1", &words).await.unwrap();
            client.submit("ch-1", &prepared).await.unwrap();
            let status = client.status("ch-1", &prepared.tx_id).await.unwrap();
            assert_eq!(status.result(), Tx::Valid, "{words:?}");
            done.push(effects(&prepared));
        }
        assert_eq!(done[0], done[1], "{words:?}");
    }
    for client in [&mut there, &mut here] {
        assert_eq!(client.evaluate("ch-1", chaincode::NAME, &["get", "n"]).await.unwrap(), b"119");
        let refused = client.prepare("ch-1", &["get", "k007"]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted);
        assert!(refused.message().contains("there is no key k007") || format!("{refused:?}").contains("there is no key k007"));
    }
    served.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_one_holds_up_nobody_and_sees_one_state() {
    let (asked, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let program = ccaas::Program::new(move |stub, invocation| {
        if invocation.args[0] != b"incr" {
            return answer(stub, invocation);
        }
        asked.send(()).unwrap();
        gate.lock().unwrap().recv().unwrap();
        answer(stub, invocation)
    });
    let served = chaincode("127.0.0.1:0", program).await;
    let place = tempfile::tempdir().unwrap();
    let ledger = ledger_of(place.path(), external(&served));
    let (_server, mut dsp) = client(&place, &ledger, chaincode::NAME).await;
    assert_eq!(dsp.transact("ch-1", &["put", "a", "1"]).await.result(), Tx::Valid);
    let slow = tokio::spawn({
        let mut dsp = dsp.clone();
        async move { dsp.prepare("ch-1", &["incr", "a"]).await.unwrap() }
    });
    waiting.recv().await.unwrap();
    for value in ["5", "7"] {
        assert_eq!(dsp.transact("ch-1", &["put", "a", value]).await.result(), Tx::Valid);
    }
    go.send(()).unwrap();
    let slow = slow.await.unwrap();
    // It has counted on from the state at its beginning, and that is why it comes too late.
    let opened = envelope::open(&slow.envelope).unwrap();
    assert_eq!(envelope::endorsed(&opened).unwrap().response.payload, b"2");
    dsp.submit("ch-1", &slow).await.unwrap();
    let status = dsp.status("ch-1", &slow.tx_id).await.unwrap();
    assert_eq!(status.result(), Tx::MvccReadConflict);
    served.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_away_is_an_error_until_it_is_back() {
    let served = chaincode("127.0.0.1:0", ccaas::Program::new(answer)).await;
    let address = served.address().to_string();
    let place = tempfile::tempdir().unwrap();
    let ledger = ledger_of(place.path(), external(&served));
    let (_server, mut dsp) = client(&place, &ledger, chaincode::NAME).await;
    assert_eq!(dsp.transact("ch-1", &["put", "a", "1"]).await.result(), Tx::Valid);
    served.stop().await.unwrap();
    let away = dsp.prepare("ch-1", &["put", "a", "2"]).await.unwrap_err();
    assert_eq!(away.code(), Code::Aborted);
    let said = String::from_utf8_lossy(away.details()).into_owned();
    assert!(said.contains("could not launch the chaincode"), "{said}");
    let back = chaincode(&address, ccaas::Program::new(answer)).await;
    assert_eq!(dsp.transact("ch-1", &["put", "a", "3"]).await.result(), Tx::Valid);
    back.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blocks_of_one_are_the_others() {
    let place = tempfile::tempdir().unwrap();
    drop(ledger(place.path()));
    let served = chaincode("127.0.0.1:0", ccaas::Program::new(answer)).await;
    let again = |program| {
        let options = embedded::Options {
            program,
            ..embedded::Options::default()
        };
        Ledger::open_with(&place.path().join("ledger"), options).unwrap()
    };
    for (number, program) in [external(&served), Program::new(chaincode::NAME, answer), external(&served)]
        .into_iter()
        .enumerate()
    {
        let ledger = again(program);
        let (server, mut dsp) = client(&place, &ledger, chaincode::NAME).await;
        let payload = dsp.prepare("ch-2", &["incr", "a"]).await.unwrap();
        dsp.submit("ch-2", &payload).await.unwrap();
        assert_eq!(dsp.status("ch-2", &payload.tx_id).await.unwrap().result(), Tx::Valid);
        let counted = dsp.evaluate("ch-2", chaincode::NAME, &["get", "a"]).await.unwrap();
        assert_eq!(counted, (number + 1).to_string().into_bytes());
        drop(dsp);
        server.stop().await.unwrap();
    }
    served.stop().await.unwrap();
}
