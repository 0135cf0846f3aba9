//! `import`: passing on, from one channel to another, what an exported resource gives.

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;
use state::acts::imports::{Import, ImportRecord, PREFIX};
use state::ids::{Channel, MemberId, ResourceName};
use state::report::Condition;
use state::resource::{Origin, Outputs};

use super::error::{CliError, Exit};
use super::floor::Floor;
use super::{Format, Global, output, targets};
use crate::config::Config;

/// What to do about imports.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Passes on what an exported resource of another channel gives, or renews it.
    Add {
        /// The resource there.
        resource: ResourceName,
        /// The channel that it is on; --channel says where to.
        #[arg(long, value_name = "CHANNEL")]
        from: Channel,
        /// Its name here; it begins with `import-` (default: that and the resource's name).
        #[arg(long = "as", value_name = "NAME")]
        name: Option<ResourceName>,
    },
    /// Lists what is imported, and whether it is what its channel reports now.
    List,
    /// Takes out an own import that nobody needs any more.
    Drop {
        /// Its name.
        name: ResourceName,
    },
}

/// Runs a command of imports.
pub(crate) async fn run(global: &Global, command: &ImportCommand) -> Result<Exit, CliError> {
    match command {
        ImportCommand::Add { resource, from, name } => {
            let floor = Floor::open(global).await?;
            let outputs = given(&floor.config, from, resource)?;
            let import = Import {
                name: match name {
                    Some(name) => name.clone(),
                    None => ResourceName::new(format!("{PREFIX}{resource}")).map_err(|error| {
                        CliError::new("the import needs a shorter name")
                            .because(error)
                            .next("name it with --as")
                    })?,
                },
                from: Origin {
                    channel: from.clone(),
                    resource: resource.clone(),
                },
                outputs,
            };
            let what = format!("imported {resource} of {from} as {}", import.name);
            floor.act("import", &import, what).await?;
            floor.close().await?;
            Ok(Exit::Clean)
        }
        ImportCommand::List => list(global),
        ImportCommand::Drop { name } => {
            let floor = Floor::open(global).await?;
            floor
                .act("drop_import", &json!({ "name": name }), format!("dropped import {name}"))
                .await?;
            floor.close().await?;
            Ok(Exit::Clean)
        }
    }
}

/// What a resource gives on a channel, as this member's own store has it: exported by its order, and reported in sync by its owner.
fn given(config: &Config, channel: &Channel, resource: &ResourceName) -> Result<Outputs, CliError> {
    let refused = |why: String| CliError::new(why).within(format!("{resource} of {channel} can't be imported"));
    if !config.channels().contains(channel) {
        return Err(refused(format!("{} does not follow {channel}", config.member)));
    }
    let view = targets::view(config, channel)?;
    let Some(ordered) = view.desired.resources().get(resource) else {
        return Err(refused(format!("{resource} is not ordered there")));
    };
    if ordered.resource.exports.is_empty() {
        return Err(refused(format!(
            "it exports nothing: its owner {} amends its exports first",
            ordered.resource.owner
        )));
    }
    match view.reported.status(&ordered.resource.owner, resource) {
        Some(status) if status.condition == Condition::InSync => Ok(status.exports.clone()),
        Some(status) => Err(refused(format!("{} reports it {}", ordered.resource.owner, status.condition))),
        None => Err(refused(format!("{} has not reported it yet", ordered.resource.owner))),
    }
}

#[derive(Serialize)]
struct Shown {
    channel: Channel,
    import: Import,
    by: MemberId,
    /// Whether its channel reports the same now; none: that channel is not followed here.
    same: Option<bool>,
}

fn list(global: &Global) -> Result<Exit, CliError> {
    let mut all = Vec::new();
    for (channel, configs) in targets::by_channel(global)? {
        let Some(config) = targets::newest(&configs, &channel) else {
            continue;
        };
        for record in targets::view(config, &channel)?.desired.records().all::<ImportRecord>() {
            if record.dropped.is_some() {
                continue;
            }
            let from = &record.import.from;
            let follower = configs.iter().find(|config| config.channels().contains(&from.channel));
            all.push(Shown {
                channel: channel.clone(),
                same: follower
                    .map(|config| given(config, &from.channel, &from.resource).is_ok_and(|outputs| outputs == record.import.outputs)),
                by: record.voucher().clone(),
                import: record.import.clone(),
            });
        }
    }
    if global.output == Format::Json {
        output::json(&all)?;
        return Ok(Exit::Clean);
    }
    if all.is_empty() {
        output::note("nothing is imported");
        return Ok(Exit::Clean);
    }
    let rows = all.iter().map(|one| {
        let from = &one.import.from;
        vec![
            one.channel.to_string(),
            one.import.name.to_string(),
            format!("{}/{}", from.channel, from.resource),
            one.by.to_string(),
            match one.same {
                Some(true) => "as it is reported there".to_owned(),
                Some(false) => format!(
                    "not what is reported there: charter import add {} --from {}",
                    from.resource, from.channel
                ),
                None => "the word of its member: that channel is not followed here".to_owned(),
            },
        ]
    });
    output::table(&["channel", "import", "from", "by", "state"], rows.collect());
    Ok(Exit::Clean)
}
