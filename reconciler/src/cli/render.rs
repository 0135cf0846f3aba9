//! `render`: what a provider runs or sends for a resource, written out for a person or for another tool.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use providers::{Script, Tool};
use serde::Serialize;
use state::ids::{Kind, ResourceName};
use state::resource::Resource;

use super::error::{CliError, Doing, Exit};
use super::{Format, Global, output, plan, targets};

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// The resources (default: all of the member's).
    #[arg(value_name = "RESOURCE")]
    resources: Vec<ResourceName>,
    /// Write what another tool makes the same of, instead of what Charter runs.
    #[arg(long = "for", value_name = "TOOL", value_enum)]
    tool: Option<ForTool>,
    /// Write each to a file of its own in this folder, instead of printing them.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Another tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ForTool {
    /// A Vagrantfile of the virtual machines.
    Vagrant,
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
    for one in &rendered {
        if let Some(open) = &one.open {
            output::note(&format!("{}: not known yet, and left as it is: {open}", one.name));
        }
    }
    if let Some(ForTool::Vagrant) = args.tool {
        let resources: Vec<Resource> = rendered.into_iter().map(|one| one.resource).collect();
        return translated(args, controller.translate(Tool::Vagrant, &resources));
    }
    let mut exit = Exit::Clean;
    let mut scripts: Vec<(&ResourceName, &Kind, &Script)> = Vec::new();
    for one in &rendered {
        match &one.scripts {
            Ok(found) => scripts.extend(found.iter().map(|script| (&one.name, &one.resource.kind, script))),
            Err(why) => {
                exit = Exit::Denied;
                output::note(&format!("{}: not rendered: {}", one.name, output::plain(why)));
            }
        }
    }
    if let Some(folder) = &args.out {
        write(folder, scripts.iter().map(|(_, _, script)| *script))?;
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

fn write<'a>(folder: &Path, scripts: impl Iterator<Item = &'a Script>) -> Result<(), CliError> {
    std::fs::create_dir_all(folder).doing(format!("cannot make {}", folder.display()))?;
    for script in scripts {
        let path = folder.join(&script.name);
        std::fs::write(&path, &script.bytes).doing(format!("cannot write {}", path.display()))?;
        output::line(&path.display().to_string());
    }
    Ok(())
}

/// Shows what another tool makes the same of.
fn translated(args: &RenderArgs, scripts: Vec<Result<Script, String>>) -> Result<Exit, CliError> {
    if scripts.is_empty() {
        return Err(CliError::new("none of these resources is one that this tool makes").next("it makes virtual machines: libvirt/domain"));
    }
    let refused: Vec<&String> = scripts.iter().filter_map(|script| script.as_ref().err()).collect();
    if !refused.is_empty() {
        for why in refused {
            output::note(&format!("not rendered: {}", output::plain(why)));
        }
        return Ok(Exit::Denied);
    }
    let scripts: Vec<&Script> = scripts.iter().filter_map(|script| script.as_ref().ok()).collect();
    match &args.out {
        Some(folder) => write(folder, scripts.into_iter())?,
        None => {
            for script in scripts {
                output::text(&output::lines(&String::from_utf8_lossy(&script.bytes)));
            }
        }
    }
    Ok(Exit::Clean)
}
