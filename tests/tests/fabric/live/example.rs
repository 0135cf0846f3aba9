//! The example's consortium on a real network, and what its members say there.

use std::collections::BTreeMap;

use reconciler::document::Document;
use reconciler::network::Network as Example;
use tests::fabric::{Binaries, Clients, Network};
use tests::{MEMBERS, Running, World, until};

/// The channel of version 1, and its members.
pub(crate) const FIRST: (&str, [&str; 2]) = ("smart-city-1", ["city", "breeze"]);
/// The channel of version 2, and its members.
pub(crate) const SECOND: (&str, [&str; 3]) = ("smart-city-2", ["city", "breeze", "tram"]);

/// Starts a network with both channels, the chaincode on them, and a configuration for each member. `None` where Fabric's binaries
/// are missing.
#[track_caller]
pub(crate) fn consortium(world: &World) -> Option<Network<'_>> {
    consortium_for(world, Clients::All)
}

/// Does what [`consortium`] does, with peers that let only some speak to them.
#[track_caller]
pub(crate) fn consortium_for(world: &World, clients: Clients) -> Option<Network<'_>> {
    let mut network = Network::start_for(world, &Binaries::find()?, clients);
    network.channel(FIRST.0, &FIRST.1);
    network.channel(SECOND.0, &SECOND.1);
    network.install_chaincode();
    network.commit_chaincode(FIRST.0, &FIRST.1);
    network.commit_chaincode(SECOND.0, &SECOND.1);
    network.enrol("city", &[FIRST.0, SECOND.0]);
    network.enrol("breeze", &[FIRST.0, SECOND.0]);
    network.enrol("tram", &[SECOND.0]);
    Some(network)
}

/// Starts every member's Charter.
#[track_caller]
pub(crate) fn serve(world: &World) -> BTreeMap<&'static str, Running> {
    MEMBERS.map(|member| (member, world.serve(member))).into()
}

/// Has the members say what the example says, in its order, each by a command of its own.
#[track_caller]
pub(crate) fn submit(world: &World) {
    let folder = tests::world::smart_city();
    let example = Example::read(&folder).unwrap();
    let say = |channel: &str, member: &str, file: &str| {
        let path = folder.join(file).display().to_string();
        // An orderer on a busy machine may have no leader for a moment. What was sent is kept then, and the same is submitted again.
        until(&format!("{file} by {member} is on {channel}"), || {
            let said = world.charter(&["submit", &path, "--member", member, "--channel", channel]);
            match said.code {
                Some(0) => Ok(()),
                _ => Err(said),
            }
        });
    };
    for channel in &example.channels {
        let name = channel.name.as_str();
        // Everybody registers first, for an agreement names registered members: submitting it does that, and waits for the others. Who
        // registers last puts it before the others, so it is the first of the example.
        for transaction in channel.transactions.iter().rev() {
            if matches!(transaction.document, Document::Agreement(_)) {
                say(name, transaction.by.as_str(), &transaction.file);
            }
        }
        for transaction in &channel.transactions {
            say(name, transaction.by.as_str(), &transaction.file);
        }
    }
}

/// Waits until the example's resources, and as many more on the second channel, are all as ordered, for every member.
#[track_caller]
pub(crate) fn converged(world: &World, more: usize) -> tests::Members {
    until("the example is in sync for every member", || {
        let status = world.status().converged()?;
        for (channel, members, count) in [(FIRST.0, FIRST.1.as_slice(), 5), (SECOND.0, SECOND.1.as_slice(), 7 + more)] {
            for member in members {
                let seen = status.resources(member, channel).len();
                if seen != count {
                    return Err(format!("{member} sees {seen} of {count} resources on {channel}"));
                }
            }
        }
        Ok(status)
    })
}

/// Demands that the members of each channel have the same commits of it, and that the peers' blocks lead to them again.
#[track_caller]
pub(crate) fn same_history(world: &World) {
    until("every member has taken in the same reports", || {
        for (channel, members) in [(FIRST.0, FIRST.1.as_slice()), (SECOND.0, SECOND.1.as_slice())] {
            for branch in ["desired", "reported"] {
                let branch = format!("{branch}/{channel}");
                let heads: Vec<String> = members.iter().map(|member| world.store(member).head(&branch)).collect();
                if heads.iter().any(|head| *head != heads[0]) {
                    return Err(format!("{branch}: {heads:?}"));
                }
            }
        }
        Ok(())
    });
    world.charter(&["replay", "--compare"]).exits(0);
    world.charter(&["verify"]).exits(0);
}
