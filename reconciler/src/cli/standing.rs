//! How each resource of a member stands, from its store alone: ordered, owned, reported.

use serde::Serialize;
use serde_json::Value;
use state::canonical::Digest;
use state::desired::Ordered;
use state::git::Store;
use state::ids::{Channel, Kind, MemberId, ResourceName};
use state::report::Condition;

use super::error::{CliError, Doing};
use super::output;
use crate::view::ChannelView;

/// How one resource stands, as its owner has reported it to the channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Standing {
    /// The channel.
    pub channel: Channel,
    /// The owner.
    pub owner: MemberId,
    /// The resource.
    pub resource: ResourceName,
    /// What it is.
    pub kind: Kind,
    /// What the owner has reported; none: nothing yet.
    pub condition: Option<Condition>,
    /// Whether the reported order is the present one.
    pub current: bool,
    /// Whether it is ordered: what is retired may still be there.
    pub ordered: bool,
    /// Its exported address, if it has one.
    pub address: Option<String>,
    /// Why it stands so, in the owner's words.
    pub why: Option<String>,
}

impl Standing {
    /// Whether nothing is left to do for it.
    pub(crate) fn ready(&self) -> bool {
        match self.condition {
            Some(Condition::InSync) => self.current && self.ordered,
            Some(Condition::Deleted | Condition::Retained) => !self.ordered,
            _ => false,
        }
    }

    /// The condition in words.
    pub(crate) fn word(&self) -> String {
        match self.condition {
            None => "not reported yet".into(),
            Some(Condition::InSync) if !self.current => "amended".into(),
            Some(condition) => condition.to_string(),
        }
    }
}

/// A member's own resources on a channel.
pub(crate) fn of(store: &Store, channel: &Channel, member: &MemberId) -> Result<Vec<Standing>, CliError> {
    let view = ChannelView::load(store, channel).doing(format!("cannot read channel {channel}"))?;
    Ok(from(&view, channel, Some(member)))
}

/// Whether a retired resource is behind us: its owner has reported since, and has nothing more to say of it.
fn over(view: &ChannelView, ordered: &Ordered) -> bool {
    let (owner, name) = (&ordered.resource.owner, &ordered.resource.name);
    let reported = view.reported.members().get(owner).map(|reports| reports.head.desired);
    view.reported.status(owner, name).is_none() && reported >= Some(ordered.last().position)
}

/// Every resource of a channel, or those of one owner.
pub(crate) fn from(view: &ChannelView, channel: &Channel, only: Option<&MemberId>) -> Vec<Standing> {
    let all = view.desired.resources().values().map(|ordered| (ordered, true)).chain(
        view.desired
            .retired()
            .values()
            .filter(|ordered| !over(view, ordered))
            .map(|ordered| (ordered, false)),
    );
    all.filter(|(ordered, _)| only.is_none_or(|only| ordered.resource.owner == *only))
        .map(|(ordered, in_force)| {
            let resource = &ordered.resource;
            let status = view.reported.status(&resource.owner, &resource.name);
            let digest: Option<Digest> = resource.digest().ok();
            Standing {
                channel: channel.clone(),
                owner: resource.owner.clone(),
                resource: resource.name.clone(),
                kind: resource.kind.clone(),
                condition: status.map(|status| status.condition),
                current: status.is_some_and(|status| status.applied == digest),
                ordered: in_force,
                address: status
                    .and_then(|status| status.exports.get("address"))
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                why: status.and_then(|status| status.why.clone()),
            }
        })
        .collect()
}

/// Prints them for people.
pub(crate) fn table(standing: &[Standing]) {
    let rows = standing.iter().map(|one| {
        vec![
            one.channel.to_string(),
            one.owner.to_string(),
            one.resource.to_string(),
            one.kind.to_string(),
            match &one.why {
                Some(why) if !one.ready() => format!("{}: {why}", one.word()),
                _ => one.word(),
            },
            one.address.clone().unwrap_or_else(|| "-".into()),
        ]
    });
    output::table(&["channel", "owner", "resource", "kind", "state", "address"], rows.collect());
}
