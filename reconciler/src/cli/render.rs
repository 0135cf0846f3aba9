//! `render`: what a provider runs or sends for a resource, written out for a person or for another tool.

use std::path::PathBuf;

use clap::Args;
use providers::Script;
use serde::Serialize;
use state::ids::{Kind, ResourceName};

use super::error::{CliError, Doing, Exit};
use super::{Format, Global, output, plan, targets};

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// The resources (default: all of the member's).
    #[arg(value_name = "RESOURCE")]
    resources: Vec<ResourceName>,
    /// Write each to a file of its own in this folder, instead of printing them.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Rendering<'a> {
    resource: &'a ResourceName,
    kind: &'a Kind,
    file: &'a str,
    content: &'a str,
}

/// Writes out what would be run for the resources of one member. Nothing outside is looked at or changed.
pub(crate) async fn run(global: &Global, args: &RenderArgs) -> Result<Exit, CliError> {
    let config = targets::one(global)?;
    let channel = targets::one_channel(global, &config)?;
    let controller = plan::looking(&config, &channel)?;
    let rendered = controller.render().await;
    let mut rendered =
        rendered.map_err(|error| CliError::new(format!("nothing is rendered for {} on {channel}", config.member)).because(error))?;
    if let Some(unknown) = args.resources.iter().find(|name| rendered.iter().all(|one| one.name != **name)) {
        let names: Vec<&str> = rendered.iter().map(|one| one.name.as_str()).collect();
        return Err(CliError::new(format!("{} has no resource {unknown} on {channel}", config.member))
            .next(format!("RESOURCE is one of {}", names.join(", "))));
    }
    if !args.resources.is_empty() {
        rendered.retain(|one| args.resources.contains(&one.name));
    }
    let mut exit = Exit::Clean;
    let mut scripts: Vec<(&ResourceName, &Kind, &Script)> = Vec::new();
    for one in &rendered {
        match &one.scripts {
            Ok(found) => scripts.extend(found.iter().map(|script| (&one.name, &one.kind, script))),
            Err(why) => {
                exit = Exit::Denied;
                output::note(&format!("{}: not rendered: {}", one.name, output::plain(why)));
            }
        }
        if let Some(open) = &one.open {
            output::note(&format!("{}: not known yet, and left as it is: {open}", one.name));
        }
    }
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).doing(format!("cannot make {}", folder.display()))?;
        for (_, _, script) in &scripts {
            let path = folder.join(&script.name);
            std::fs::write(&path, &script.bytes).doing(format!("cannot write {}", path.display()))?;
            output::line(&path.display().to_string());
        }
        return Ok(exit);
    }
    let texts: Vec<String> = scripts
        .iter()
        .map(|(_, _, script)| String::from_utf8_lossy(&script.bytes).into_owned())
        .collect();
    if global.output == Format::Json {
        let all = scripts.iter().zip(&texts).map(|((resource, kind, script), content)| Rendering {
            resource,
            kind,
            file: &script.name,
            content,
        });
        output::json(&all.collect::<Vec<_>>())?;
        return Ok(exit);
    }
    for ((name, kind, _), content) in scripts.iter().zip(&texts) {
        // One of several documents, as YAML has it: kubectl takes all of them at once.
        output::line(&format!("---\n# {name} ({kind})"));
        output::text(&output::lines(content));
    }
    Ok(exit)
}
