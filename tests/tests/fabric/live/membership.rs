//! A channel's configuration changes while it is followed: who joined later is believed, because the configuration block says so.

use tests::{World, documents, until};

use super::example::{self, FIRST, SECOND};

#[test]
fn a_newcomer_is_known_by_the_configuration_block_that_lets_it_in() {
    let world = World::new();
    let Some(network) = example::consortium(&world) else { return };
    let mut members = example::serve(&world);
    example::submit(&world);
    example::converged(&world, 0);
    network.admit(FIRST.0, "tram", SECOND.0);
    network.enrol("tram", &[FIRST.0, SECOND.0]);

    // Its first word on the channel: it registers. It is no party of the agreement that is in force, and is told so.
    let agreement = tests::world::smart_city().join("v2/agreement.yaml").display().to_string();
    until("the tram has registered", || {
        let said = world.charter(&["submit", &agreement, "--member", "tram", "--channel", FIRST.0]);
        match said.code == Some(1) && said.stderr.contains("has another agreement") {
            true => Ok(()),
            false => Err(said),
        }
    });
    // The others were there before, and the tram's store begins now: to all of them it is the tram that spoke.
    until("everybody has taken in the newcomer's transaction", || {
        for member in ["city", "breeze", "tram"] {
            let listed = world
                .store(member)
                .git(&["ls-tree", "-r", "--name-only", &format!("desired/{}", FIRST.0)]);
            if !listed.stdout.contains("members/tram.json") {
                return Err(format!("{member}: {listed}"));
            }
        }
        Ok(())
    });
    // A Charter that starts in the middle takes the configuration from the block that made it.
    for member in ["city", "breeze"] {
        members.get_mut(member).unwrap().kill();
        members.insert(member, world.serve(member));
    }
    let order = documents::order(vec![documents::file("later", "city", "x\n")]);
    let said = world.submit("city", FIRST.0, &order).exits(0);
    world.converged_at(FIRST.0, documents::block(&said.stdout));
    for (_, member) in members {
        member.stop();
    }
    example::same_history(&world);
    let heads = ["city", "tram"].map(|member| world.store(member).head(&format!("desired/{}", FIRST.0)));
    assert_eq!(heads[0], heads[1]);
}
