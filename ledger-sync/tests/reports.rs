//! A report says who signed it, and sending it twice is no fault.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use ledger_sync::reports::{Recorded, Recording, SignedReportError, sign, submit_report, verify};
use msp::Signer;
use state::canonical::Digest;
use state::report::Condition;

#[test]
fn only_the_signers_certificate_fits() {
    let network = network();
    let (energy, city) = (network.signer(ENERGY).unwrap(), network.signer(CITY).unwrap());
    let report = report("energy", "x", Condition::InSync, None);
    let envelope = sign(&report, energy.as_ref()).unwrap();
    let (read, digest) = verify(&envelope, energy.certificate()).unwrap();
    assert_eq!((&read, digest), (&report, Digest::of(&report.payload().unwrap())));
    assert!(matches!(verify(&envelope, city.certificate()), Err(SignedReportError::Key)));
    let mut forged = envelope.clone();
    forged.payload = sign(&state::report::Report { sequence: 2, ..report }, energy.as_ref())
        .unwrap()
        .payload;
    assert!(matches!(
        verify(&forged, energy.certificate()),
        Err(SignedReportError::Signature(_))
    ));
}

#[tokio::test]
async fn a_report_is_recorded_once() {
    let network = network();
    found(&network).await;
    let ledger = network.ledger(ENERGY);
    let report = report("energy", "x", Condition::InSync, None);
    let envelope = sign(&report, network.signer(ENERGY).unwrap().as_ref()).unwrap();
    assert!(matches!(
        submit_report(&ledger, &channel(), &envelope, Recording::Report).await.unwrap(),
        Recorded::Now(_)
    ));
    let height = network.blocks().len();
    assert_eq!(
        submit_report(&ledger, &channel(), &envelope, Recording::Report).await.unwrap(),
        Recorded::Before
    );
    assert_eq!(network.blocks().len(), height);
    // Somebody else's report is refused, not recorded.
    assert!(
        submit_report(&network.ledger(CITY), &channel(), &envelope, Recording::Report)
            .await
            .is_err()
    );
}
