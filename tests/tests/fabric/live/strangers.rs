//! Who is no member of a channel: it reads nothing of it, and says nothing on it.

use std::path::Path;

use msp::{CertificateAuthority, Enrolment, Role, folder};
use tests::fabric::{Caller, Network};
use tests::{World, documents};

use super::example::{self, FIRST, SECOND};

#[test]
fn who_is_no_member_reads_nothing_and_says_nothing() {
    let world = World::new();
    let Some(network) = example::consortium(&world) else { return };
    let members = example::serve(&world);
    example::submit(&world);
    example::converged(&world, 0);
    for (_, member) in members {
        member.stop();
    }

    // VSP_2's store holds version 2 and nothing of version 1.
    let store = world.store("tram");
    assert!(store.refs().keys().all(|name| name.ends_with(SECOND.0)), "{:?}", store.refs());
    let contents = store.all_contents();
    assert!(contents.contains("ridership"));
    for secret in [FIRST.0, "air-quality", "hour,station,no2"] {
        assert!(!contents.contains(secret), "{secret} is in the tram's store");
    }

    let forged = world.root().join("forged");
    forge(&forged);
    let height = height(&network);
    let order = documents::order(vec![documents::file("intrusion", "city", "x\n")]);
    let order = world.file("intrusion.yaml", &order.to_string());
    // As the tram by its own peer, which never joined; as the tram by a member's peer; and as somebody who says to be the city.
    let other_peer = Caller {
        peer_of: "city",
        ..Caller::own("tram")
    };
    let forger = Caller {
        msp: Some(&forged),
        ..Caller::own("city")
    };
    for (name, caller, unsaid, unread) in [
        (
            "own-peer",
            Caller::own("tram"),
            "No metadata was found for chaincode charter",
            "no such channel",
        ),
        ("other-peer", other_peer, "creator org unknown", "may not read the channel (403)"),
        ("forged", forger, "creator org unknown", "may not read the channel (403)"),
    ] {
        let folder = world.root().join(name);
        let config = network.configure_member(&folder, caller, &[FIRST.0]);
        let said = world.charter(&["--config", &config, "submit", &order]).exits(1);
        assert!(
            said.stderr.contains("was not endorsed") && said.stderr.contains(unsaid),
            "{name}: {said}"
        );

        let mut serve = world.start(&["serve", "--config", &config]);
        serve.says(unread);
        assert!(serve.runs(), "{name}: a channel that refuses ended the service");
        serve.stop();
        let store = world.repository(&folder.join("store.git"));
        assert_eq!(store.refs(), [].into(), "{name}");
        assert!(!store.all_contents().contains("air-quality"), "{name}");
    }
    assert_eq!(self::height(&network), height, "the channel has a block more");
    example::same_history(&world);
}

/// The height of the first channel, as the city's peer tells its administrator.
fn height(network: &Network<'_>) -> String {
    let info = network.peer("city", &["channel", "getinfo", "-c", FIRST.0]).exits(0);
    info.stdout.trim().to_owned()
}

/// Writes an identity that calls itself the city's, from an authority that the city knows nothing of.
fn forge(at: &Path) {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let now = i64::try_from(now).unwrap();
    let authority = CertificateAuthority::create("city.test", "ca.city.test", now).unwrap();
    let member = Enrolment::Member {
        name: "User1@city.test",
        role: Role::Client,
    };
    let identity = authority.enrol("city.test", &member, now).unwrap();
    folder::write(at, authority.certificate_pem(), authority.certificate_pem(), &identity).unwrap();
}
