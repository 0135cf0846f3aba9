//! A ledger and a Charter for each member, each a process of its own.

use std::collections::BTreeMap;

use crate::serving::Running;
use crate::world::World;

/// The members of the example.
pub const MEMBERS: [&str; 3] = ["city", "breeze", "tram"];

/// The processes of a whole consortium.
pub struct Consortium {
    /// The ledger.
    pub ledger: Running,
    /// Each member's Charter.
    pub members: BTreeMap<&'static str, Running>,
}

impl Consortium {
    /// Starts all of them in a world that was brought up before.
    #[track_caller]
    pub fn start(world: &World) -> Self {
        Self {
            ledger: world.ledger(),
            members: MEMBERS.map(|member| (member, world.serve(member))).into(),
        }
    }

    /// Stops all of them, members first.
    ///
    /// # Panics
    /// When one doesn't end well.
    #[track_caller]
    pub fn stop(self) {
        for (_, member) in self.members {
            member.stop();
        }
        self.ledger.stop();
    }
}
