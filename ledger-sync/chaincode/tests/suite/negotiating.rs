//! A market of members that negotiate, with a negotiation in any state.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};
use state::acts::keys::KeyRecord;
use state::acts::negotiations::{NegotiationRecord, NegotiationState, SealedRecord};
use state::canonical::{self, Digest};
use state::ids::MemberId;
use state::records::Record;
use state::sealed::{Ciphertext, Envelope, PublicKey, TAG, WRAPPED, Wrapped};

use crate::channel::{Actor, Channel};

pub(crate) static CITY: LazyLock<Actor> = LazyLock::new(|| Actor::new("CityMSP"));
pub(crate) static ACME: LazyLock<Actor> = LazyLock::new(|| Actor::new("AcmeMSP"));
pub(crate) static EVE: LazyLock<Actor> = LazyLock::new(|| Actor::new("EveMSP"));
/// On the market, and no party.
pub(crate) static MOB: LazyLock<Actor> = LazyLock::new(|| Actor::new("MobMSP"));

pub(crate) const PARTIES: [&str; 3] = ["acme", "city", "eve"];

pub(crate) fn key(name: &str) -> PublicKey {
    PublicKey::from_bytes(*Digest::of(name.as_bytes()).as_bytes())
}

pub(crate) fn sealed(bytes: usize) -> Ciphertext {
    Ciphertext::new(vec![7; bytes]).unwrap()
}

/// An envelope as the ledger sees one: it can't tell whether there is anything in it.
pub(crate) fn envelope(parties: &[&str]) -> Envelope {
    let to = |name: &&str| {
        let wrapped = Wrapped {
            key: key(name),
            enc: key("enc"),
            sealed: sealed(WRAPPED),
        };
        (MemberId::new(name).unwrap(), wrapped)
    };
    Envelope {
        key: key("round"),
        enc: key("enc"),
        sealed: sealed(4096 + TAG),
        to: parties.iter().map(to).collect(),
    }
}

pub(crate) fn digest(of: &str) -> Digest {
    Digest::of(of.as_bytes())
}

pub(crate) fn request() -> Value {
    json!({ "id": "air", "provider": "city", "parties": PARTIES })
}

pub(crate) fn tabled(round: u32) -> Value {
    json!({ "id": "air", "round": round, "digest": digest(&format!("terms {round}")), "envelope": envelope(&PARTIES) })
}

pub(crate) fn accepted(round: u32) -> Value {
    json!({ "id": "air", "round": round, "digest": digest(&format!("terms {round}")) })
}

pub(crate) fn resulting(round: u32) -> Value {
    json!({ "id": "air", "round": round, "digest": digest(&format!("terms {round}")), "agreement": digest("agreement") })
}

pub(crate) fn terminated() -> Value {
    json!({ "id": "air", "reason": "no common ground" })
}

/// A market on which everybody is registered, and the parties have keys.
pub(crate) fn market() -> Channel {
    let mut channel = Channel::new();
    channel.accept(&CITY, "register", &json!({ "member": "city", "role": "data-service-provider" }));
    for (actor, member) in [(&ACME, "acme"), (&EVE, "eve"), (&MOB, "mob")] {
        channel.accept(actor, "register", &json!({ "member": member, "role": "value-service-provider" }));
    }
    for (actor, member) in [(&CITY, "city"), (&ACME, "acme"), (&EVE, "eve")] {
        channel.accept(actor, "publish_key", &json!({ "key": key(member) }));
    }
    channel
}

/// A market with a negotiation in a state, after one round.
pub(crate) fn at(state: NegotiationState) -> Channel {
    let mut channel = market();
    let steps: [(&Actor, &str, Value); 8] = [
        (&ACME, "negotiate_request", request()),
        (&CITY, "negotiate_offer", tabled(1)),
        (&ACME, "negotiate_accept", accepted(1)),
        (&EVE, "negotiate_accept", accepted(1)),
        (&CITY, "negotiate_agree", resulting(1)),
        (&EVE, "negotiate_verify", resulting(1)),
        (&ACME, "negotiate_verify", resulting(1)),
        (&CITY, "negotiate_finalize", resulting(1)),
    ];
    let count = match state {
        NegotiationState::Requested | NegotiationState::Terminated => 1,
        NegotiationState::Offered => 2,
        NegotiationState::Accepted => 4,
        NegotiationState::Agreed => 5,
        NegotiationState::Verified => 7,
        NegotiationState::Finalized => 8,
    };
    for (actor, function, argument) in &steps[..count] {
        channel.accept(actor, function, argument);
    }
    if state == NegotiationState::Terminated {
        channel.accept(&EVE, "negotiate_terminate", &terminated());
    }
    assert_eq!(record(&channel).state, state);
    agree(&channel);
    channel
}

pub(crate) fn record(channel: &Channel) -> NegotiationRecord {
    channel.desired.records().of::<NegotiationRecord>("air").unwrap().clone()
}

/// The ledger and a follower have the same records, byte for byte.
pub(crate) fn agree(channel: &Channel) {
    fn of<T: Record>(channel: &Channel) -> BTreeMap<String, Vec<u8>> {
        let all = channel.desired.records().all::<T>();
        all.map(|record| {
            let record = record.clone().any();
            (record.key(), canonical::bytes(&record).unwrap())
        })
        .collect()
    }
    let mut expected = of::<NegotiationRecord>(channel);
    expected.extend(of::<SealedRecord>(channel));
    expected.extend(of::<KeyRecord>(channel));
    let ours = |key: &str| ["negotiation/", "sealed/", "key/"].iter().any(|start| key.starts_with(start));
    let kept = channel.state.iter().filter(|(key, _)| ours(key));
    let found: BTreeMap<String, Vec<u8>> = kept.map(|(key, value)| (key.to_owned(), value.to_vec())).collect();
    assert_eq!(found, expected);
}
