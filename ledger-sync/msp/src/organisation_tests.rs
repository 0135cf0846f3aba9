//! What membership accepts and refuses.

use std::sync::Arc;

use protos::common::msp_role::MspRoleType;

use crate::organisation::definition;
use crate::signer::serialize_identity;
use crate::{CertificateAuthority, Enrolment, Identity, MspError, MspSet, Organisation, Role, policy};

const NOW: i64 = 1_780_000_000;

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(name, &format!("ca.{name}"), NOW).unwrap()
}

fn member(ca: &CertificateAuthority, msp_id: &str, role: Role) -> Vec<u8> {
    let issued = ca.enrol("org", &Enrolment::Member { name: "someone", role }, NOW).unwrap();
    serialize_identity(msp_id, issued.certificate_pem.as_bytes())
}

fn set(organisations: &[(&str, &CertificateAuthority)]) -> MspSet {
    let read = |(msp_id, ca): &(&str, &CertificateAuthority)| {
        Organisation::from_config(&definition(msp_id, ca.certificate_pem(), ca.certificate_pem())).unwrap()
    };
    MspSet::new(organisations.iter().map(read)).unwrap()
}

#[test]
fn members_are_known_with_their_role() {
    let city = authority("city");
    let set = set(&[("CityMSP", &city)]);
    for role in Role::ALL {
        let identity = set.authenticate(&member(&city, "CityMSP", role)).unwrap();
        assert_eq!((identity.msp_id.as_str(), identity.role), ("CityMSP", Some(role)));
    }
}

#[test]
fn strangers_are_refused() {
    let (city, other) = (authority("city"), authority("city"));
    let set = set(&[("CityMSP", &city)]);
    let unknown = set.authenticate(&member(&other, "OtherMSP", Role::Client)).unwrap_err();
    assert!(
        matches!(&unknown, MspError::UnknownOrganisation(id) if id == "OtherMSP"),
        "{unknown}"
    );
    // Another authority with the very same subject, claiming the same organisation.
    let forged = set.authenticate(&member(&other, "CityMSP", Role::Client)).unwrap_err();
    assert!(forged.to_string().contains("no authority of the organisation vouches"), "{forged}");
    let authority_itself = serialize_identity("CityMSP", city.certificate_pem().as_bytes());
    assert!(set.authenticate(&authority_itself).is_err());
    let server = city.enrol("org", &Enrolment::TlsServer { hosts: &["localhost"] }, NOW).unwrap();
    let no_role = set
        .authenticate(&serialize_identity("CityMSP", server.certificate_pem.as_bytes()))
        .unwrap_err();
    assert!(no_role.to_string().contains("claims no role"), "{no_role}");
    assert!(set.authenticate(b"\xff\xff").is_err());
}

#[test]
fn expiry_is_its_own_question() {
    let city = authority("city");
    let identity = set(&[("CityMSP", &city)])
        .authenticate(&member(&city, "CityMSP", Role::Client))
        .unwrap();
    identity.certificate.check_expiry(NOW).unwrap();
    let late = identity.certificate.not_after() + 1;
    let expired = identity.certificate.check_expiry(late).unwrap_err();
    assert!(matches!(expired, MspError::Expired { .. }));
    let text = expired.to_string();
    assert!(
        text.contains(" expired on 20") && text.contains("-") && text.contains("(UTC)"),
        "{text}"
    );
}

#[test]
fn what_its_authority_has_revoked_is_refused() {
    let (city, other) = (authority("city"), authority("city"));
    let (gone, stays) = (member(&city, "CityMSP", Role::Client), member(&city, "CityMSP", Role::Client));
    let unrevoked = set(&[("CityMSP", &city)]);
    let certificate = &unrevoked.authenticate(&gone).unwrap().certificate;
    let with = |list: String| {
        let mut config = definition("CityMSP", city.certificate_pem(), city.certificate_pem());
        config.revocation_list = vec![list.into_bytes()];
        MspSet::new([Organisation::from_config(&config)?])
    };
    let list = city.revoke(&[certificate], NOW).unwrap();
    let revoked = with(list).unwrap();
    let error = revoked.authenticate(&gone).unwrap_err();
    assert!(error.to_string().contains("its certificate was revoked"), "{error}");
    revoked.authenticate(&stays).unwrap();
    // Another authority of the same name has nothing to say.
    let foreign = with(other.revoke(&[certificate], NOW).unwrap()).unwrap();
    foreign.authenticate(&gone).unwrap();
    // A list that can't be read must not let anybody through.
    let broken = with("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".into());
    assert!(broken.is_err() || broken.unwrap().authenticate(&gone).is_err());
}

#[test]
fn a_signature_policy_counts_each_identity_once() {
    let (a, b, c) = (authority("a"), authority("b"), authority("c"));
    let set = set(&[("A", &a), ("B", &b), ("C", &c)]);
    let signer = |ca, id, role| -> Arc<Identity> { set.authenticate(&member(ca, id, role)).unwrap() };
    let peers = [
        signer(&a, "A", Role::Peer),
        signer(&b, "B", Role::Peer),
        signer(&c, "C", Role::Peer),
    ];
    let two = policy::out_of(2, &["A", "B", "C"], MspRoleType::Peer);
    assert!(policy::satisfied(&two, &peers[..2]));
    assert!(policy::satisfied(&two, &peers[1..]));
    assert!(!policy::satisfied(&two, &peers[..1]));
    assert!(!policy::satisfied(&two, &[Arc::clone(&peers[0]), Arc::clone(&peers[0])]));
    assert!(!policy::satisfied(&two, &[Arc::clone(&peers[0]), signer(&b, "B", Role::Client)]));
}

#[test]
fn an_organisation_defined_twice_is_refused() {
    let city = authority("city");
    let config = definition("CityMSP", city.certificate_pem(), city.certificate_pem());
    let twice = [
        Organisation::from_config(&config).unwrap(),
        Organisation::from_config(&config).unwrap(),
    ];
    assert!(MspSet::new(twice).is_err());
}
