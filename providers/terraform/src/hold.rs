//! One Charter at a time works on a workspace: a service and a person's plan take turns.

use providers::hold;
use state::locked::Locked;

use crate::workspace::Workspace;
use crate::{Hindrance, Site};

/// Waits for a while until nobody works on it: no other Charter, and nothing that an earlier one has left running. `Err`: who does.
pub(crate) async fn hold(site: &Site, external: &str, workspace: &dyn Workspace) -> Result<Result<Locked, String>, Hindrance> {
    let locks = site.config.folder.join("locks");
    Ok(hold::hold(&locks, external, || workspace.going_on()).await?)
}
