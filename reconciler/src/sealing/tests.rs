//! Who can open what, where.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use state::ids::{Channel, NegotiationId};

use super::*;

struct Party {
    name: MemberId,
    keys: KeyRing,
    public: PublicKey,
}

fn party(place: &Path, name: &str) -> Party {
    let keys = KeyRing::at(place.join(name));
    Party {
        name: name.parse().unwrap(),
        public: keys.make().unwrap(),
        keys,
    }
}

fn terms() -> Terms {
    let text = include_str!("../../../examples/smart-city/market/terms.yaml");
    let value = crate::document::yaml(Path::new("terms.yaml"), text).unwrap();
    serde_json::from_value(value).unwrap()
}

struct Sealed {
    channel: Channel,
    negotiation: NegotiationId,
    by: MemberId,
    salted: Salted,
    digest: Digest,
    envelope: Envelope,
}

impl Sealed {
    fn to(parties: &[&Party]) -> Self {
        let (salted, digest) = salted(terms()).unwrap();
        let mut sealed = Self {
            channel: "market".parse().unwrap(),
            negotiation: "air".parse().unwrap(),
            by: "city".parse().unwrap(),
            envelope: Envelope {
                key: PublicKey::from_bytes([0; 32]),
                enc: PublicKey::from_bytes([0; 32]),
                sealed: Ciphertext::new(vec![0; 16]).unwrap(),
                to: BTreeMap::new(),
            },
            salted,
            digest,
        };
        let keys = parties.iter().map(|party| (party.name.clone(), party.public)).collect();
        sealed.envelope = seal(&sealed.salted, &sealed.place(), &keys).unwrap();
        sealed
    }

    fn place(&self) -> Binding<'_> {
        Binding {
            channel: &self.channel,
            negotiation: &self.negotiation,
            round: 1,
            by: &self.by,
            digest: self.digest,
        }
    }
}

#[test]
fn every_party_reads_the_same_and_nobody_else_anything() {
    let place = tempfile::tempdir().unwrap();
    let [city, breeze, tram] = ["city", "breeze", "tram"].map(|name| party(place.path(), name));
    let sealed = Sealed::to(&[&city, &breeze]);
    for one in [&city, &breeze] {
        assert_eq!(
            open(&sealed.envelope, &sealed.place(), &one.name, &one.keys).unwrap(),
            sealed.salted
        );
    }
    let refused = |name: &MemberId, keys| open(&sealed.envelope, &sealed.place(), name, keys).unwrap_err();
    assert!(matches!(refused(&tram.name, &tram.keys), SealError::NotAddressed(_)));
    // Pretending to be a party doesn't help without its key, nor with another under its key's name.
    assert!(matches!(refused(&breeze.name, &tram.keys), SealError::NoKey(_)));
    std::fs::copy(tram.keys.path(tram.public), tram.keys.path(breeze.public)).unwrap();
    assert!(matches!(refused(&breeze.name, &tram.keys), SealError::Open));
    // No word of the terms, and no two envelopes alike.
    let text = sealed.salted.pack().unwrap();
    let words = |bytes: &[u8]| {
        bytes
            .windows(8)
            .any(|part| text.windows(8).any(|word| part == word && word != [b' '; 8]))
    };
    assert!(words(&text) && !words(sealed.envelope.sealed.as_bytes()));
    assert_ne!(Sealed::to(&[&city, &breeze]).envelope, sealed.envelope);
}

#[test]
fn an_envelope_opens_in_its_own_place_only() {
    let place = tempfile::tempdir().unwrap();
    let [city, breeze] = ["city", "breeze"].map(|name| party(place.path(), name));
    let sealed = Sealed::to(&[&city, &breeze]);
    let (channel, negotiation) = ("market-2".parse().unwrap(), "water".parse().unwrap());
    let others = [
        Binding {
            channel: &channel,
            ..sealed.place()
        },
        Binding {
            negotiation: &negotiation,
            ..sealed.place()
        },
        Binding {
            round: 2,
            ..sealed.place()
        },
        Binding {
            by: &breeze.name,
            ..sealed.place()
        },
        Binding {
            digest: Digest::of(b"other"),
            ..sealed.place()
        },
    ];
    for other in others {
        let error = open(&sealed.envelope, &other, &breeze.name, &breeze.keys).unwrap_err();
        assert!(matches!(error, SealError::Open), "{other:?}: {error}");
    }
    // One addressee's key is nothing in another's place.
    let mut swapped = sealed.envelope.clone();
    let of_city = swapped.to[&city.name].clone();
    swapped.to.insert(
        breeze.name.clone(),
        Wrapped {
            key: breeze.public,
            ..of_city
        },
    );
    assert!(matches!(
        open(&swapped, &sealed.place(), &breeze.name, &breeze.keys),
        Err(SealError::Open)
    ));
}

#[test]
fn a_changed_envelope_does_not_open() {
    let place = tempfile::tempdir().unwrap();
    let city = party(place.path(), "city");
    let sealed = Sealed::to(&[&city]);
    let flipped = |sealed: &Ciphertext, at: usize| {
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[at] ^= 1;
        Ciphertext::new(bytes).unwrap()
    };
    let mut changed = Vec::new();
    for at in [0, 2048, 4096 + 15] {
        let mut one = sealed.envelope.clone();
        one.sealed = flipped(&one.sealed, at);
        changed.push(one);
    }
    let mut one = sealed.envelope.clone();
    let wrapped = one.to.get_mut(&city.name).unwrap();
    wrapped.sealed = flipped(&wrapped.sealed, 3);
    changed.push(one);
    for field in ["key", "enc"] {
        let mut value = serde_json::to_value(&sealed.envelope).unwrap();
        value[field] = json!(city.public);
        changed.push(serde_json::from_value(value).unwrap());
    }
    for one in changed {
        let error = open(&one, &sealed.place(), &city.name, &city.keys).unwrap_err();
        assert!(matches!(error, SealError::Open), "{error}");
    }
}

#[test]
fn terms_other_than_the_digest_says_are_not_taken() {
    let place = tempfile::tempdir().unwrap();
    let city = party(place.path(), "city");
    let mut sealed = Sealed::to(&[&city]);
    // An offerer who seals one thing and puts the digest of another on the market.
    sealed.digest = Digest::of(b"other");
    sealed.envelope = seal(&sealed.salted, &sealed.place(), &[(city.name.clone(), city.public)].into()).unwrap();
    let error = open(&sealed.envelope, &sealed.place(), &city.name, &city.keys).unwrap_err();
    assert!(matches!(error, SealError::Unpack(UnpackError::OtherTerms)), "{error}");
}

#[test]
fn a_key_is_its_owners_file_and_stays_after_the_next() {
    let place = tempfile::tempdir().unwrap();
    let mut city = party(place.path(), "city");
    let sealed = Sealed::to(&[&city]);
    let path = city.keys.path(city.public);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    city.public = city.keys.make().unwrap();
    assert!(city.keys.has(city.public));
    assert_eq!(
        open(&sealed.envelope, &sealed.place(), &city.name, &city.keys).unwrap(),
        sealed.salted
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        open(&sealed.envelope, &sealed.place(), &city.name, &city.keys),
        Err(SealError::File(_))
    ));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "nothing\n").unwrap();
    assert!(matches!(
        open(&sealed.envelope, &sealed.place(), &city.name, &city.keys),
        Err(SealError::NoKeyIn(_))
    ));
}

#[test]
fn a_key_of_low_order_is_not_sealed_to() {
    let place = tempfile::tempdir().unwrap();
    let city = party(place.path(), "city");
    let sealed = Sealed::to(&[&city]);
    let error = seal(
        &sealed.salted,
        &sealed.place(),
        &[(city.name.clone(), PublicKey::from_bytes([0; 32]))].into(),
    )
    .unwrap_err();
    assert!(matches!(error, SealError::Key(_)), "{error}");
}
