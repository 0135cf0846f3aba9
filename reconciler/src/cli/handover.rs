//! `handover`: what becomes of a member's resources as another version of the DAO goes on.

use clap::Args;
use serde::Serialize;
use serde_json::json;
use state::acts::handovers::{Becomes, HandOver};
use state::ids::{Channel, ResourceName};

use super::error::{CliError, Doing, Exit};
use super::floor::Floor;
use super::{Format, Global, output};
use crate::clock;
use crate::handover::{self, Asked, Prepared};

/// What to hand over, from where.
#[derive(Clone, Debug, Args)]
pub(crate) struct HandOverArgs {
    /// The channel of the earlier version; --channel says the later one's.
    #[arg(long, value_name = "CHANNEL")]
    from: Channel,
    /// What goes on as it is, and under which name there (default: the same). Can be given several times.
    #[arg(long, value_name = "RESOURCE[=NAME]")]
    carry: Vec<Pair>,
    /// What the later version has another resource for, and which; that one has to be in sync. Can be given several times.
    #[arg(long, value_name = "RESOURCE=RESOURCE")]
    replace: Vec<Pair>,
    /// What the later version does without. Can be given several times.
    #[arg(long, value_name = "RESOURCE", required_unless_present_any = ["carry", "replace"])]
    retire: Vec<ResourceName>,
    /// Only shows what would be said.
    #[arg(long)]
    dry_run: bool,
}

/// A resource, and its name or successor elsewhere.
#[derive(Clone, Debug)]
struct Pair {
    name: ResourceName,
    other: Option<ResourceName>,
}

impl std::str::FromStr for Pair {
    type Err = state::ids::NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, other) = text.split_once('=').map_or((text, None), |(name, other)| (name, Some(other)));
        Ok(Self {
            name: ResourceName::new(name)?,
            other: other.map(ResourceName::new).transpose()?,
        })
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    resource: &'a ResourceName,
    /// `carried`, `replaced` or `retired`.
    becomes: &'static str,
    /// Its name, or that of what replaces it, on the later channel.
    there: Option<&'a ResourceName>,
    /// Whether it is still to be ordered there.
    ordered: bool,
}

/// Hands resources over, or shows what it would say.
pub(crate) async fn run(global: &Global, args: &HandOverArgs) -> Result<Exit, CliError> {
    let asked = asked(args)?;
    let mut floor = Floor::open(global).await?;
    let done = hand_over(global, args, &asked, &mut floor).await;
    floor.close().await?;
    done
}

async fn hand_over(global: &Global, args: &HandOverArgs, asked: &Asked, floor: &mut Floor) -> Result<Exit, CliError> {
    let to = floor.channel.clone();
    if args.from == to {
        return Err(CliError::new(format!("{to} is the earlier channel and the later one"))
            .next("name the earlier one with --from, the later one with --channel"));
    }
    let prepared = prepare(args, asked, floor).await?;
    if args.dry_run {
        show(global, args, &prepared)?;
        return Ok(Exit::Clean);
    }
    if !prepared.orders.is_empty() {
        let said = floor.voice().order(&prepared.orders).await;
        floor.said(said.map(|said| vec![said])).await?;
    }
    // It may wait for approvals there: nothing is let go of before.
    let later = floor.fresh().await?;
    let waiting: Vec<&str> = prepared
        .orders
        .iter()
        .filter(|resource| !later.desired.resources().contains_key(&resource.name))
        .map(|resource| resource.name.as_str())
        .collect();
    if !waiting.is_empty() {
        output::note(&format!(
            "{} still has what is handed over: {} waits for approvals on {to}; type the same again when it is in force",
            args.from,
            waiting.join(", ")
        ));
        return Ok(Exit::Difference);
    }
    if prepared.hand_over.leaving().next().is_none() {
        output::line(&format!("nothing to say: it is handed over to {to}"));
        return Ok(Exit::Clean);
    }
    floor.turn(args.from.clone())?;
    let said = floor.voice().hand_over(&prepared.hand_over).await;
    floor.said(said.map(|said| vec![said])).await?;
    Ok(Exit::Clean)
}

async fn prepare(args: &HandOverArgs, asked: &Asked, floor: &mut Floor) -> Result<Prepared, CliError> {
    let later = floor.fresh().await?;
    let to = floor.turn(args.from.clone())?;
    let earlier = floor.fresh().await?;
    floor.turn(to)?;
    handover::prepare(&floor.config.member, &earlier, &later, asked, clock::now())
        .doing(format!("nothing was handed over from {}", args.from))
}

fn asked(args: &HandOverArgs) -> Result<Asked, CliError> {
    let twice = |name: &ResourceName| CliError::new(format!("{name} stands twice")).next("name each resource once");
    let mut asked = Asked::default();
    for Pair { name, other } in &args.carry {
        let new = other.clone().unwrap_or_else(|| name.clone());
        if asked.carry.insert(name.clone(), new).is_some() {
            return Err(twice(name));
        }
    }
    for Pair { name, other } in &args.replace {
        let by = other
            .clone()
            .ok_or_else(|| CliError::new(format!("--replace {name} doesn't say by what")).next(format!("--replace {name}=RESOURCE")))?;
        if asked.replace.insert(name.clone(), by).is_some() {
            return Err(twice(name));
        }
    }
    asked.retire = args.retire.iter().cloned().collect();
    Ok(asked)
}

fn show(global: &Global, args: &HandOverArgs, prepared: &Prepared) -> Result<(), CliError> {
    let hand_over = &prepared.hand_over;
    let rows: Vec<Shown<'_>> = hand_over.leaving().map(|(name, _)| shown(hand_over, prepared, name)).collect();
    if global.output == Format::Json {
        return output::json(&json!({ "from": args.from, "to": hand_over.to, "resources": rows }));
    }
    if rows.is_empty() {
        output::note(&format!("it is handed over to {}", hand_over.to));
        return Ok(());
    }
    let row = |one: &Shown<'_>| {
        vec![
            format!("{}/{}", args.from, one.resource),
            one.becomes.to_owned(),
            one.there
                .map_or_else(|| "-".to_owned(), |there| format!("{}/{there}", hand_over.to)),
            if one.ordered { "would be ordered" } else { "stands" }.to_owned(),
        ]
    };
    output::table(&["resource", "becomes", "there", "state there"], rows.iter().map(row).collect());
    Ok(())
}

fn shown<'a>(hand_over: &'a HandOver, prepared: &Prepared, name: &'a ResourceName) -> Shown<'a> {
    let (becomes, there) = match hand_over.becomes(name) {
        Some(Becomes::Carried(there)) => ("carried", Some(there)),
        Some(Becomes::Replaced(there)) => ("replaced", Some(there)),
        Some(Becomes::Retired) | None => ("retired", None),
    };
    Shown {
        resource: name,
        becomes,
        there,
        ordered: prepared.orders.iter().any(|resource| Some(&resource.name) == there),
    }
}
