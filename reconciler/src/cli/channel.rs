//! `channel create` and `channel join`: a DAO version's channel on a Fabric network, made from what its members hand out.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use state::ids::Channel;

use super::error::{CliError, Exit};
use super::{Format, Global, output, targets};
use crate::config::Config;
use crate::fabric::site::Site;
use crate::fabric::steps::{self, Ended, Outcome, StepReport, Way};
use crate::fabric::tools::Tools;
use crate::fabric::{ChannelDocument, FabricConfig, FabricError};

#[derive(Debug, Subcommand)]
pub(crate) enum ChannelCommand {
    /// Makes the channel's first block from the members' public MSP folders, and has this organisation's orderers join.
    ///
    /// One member runs it, and hands the block to the others. It may be run again after any failure.
    Create {
        #[command(flatten)]
        what: What,
    },
    /// Checks the first block, joins this organisation's nodes, and approves and commits the chaincode.
    ///
    /// Every member runs it, the creator too. It may be run again after any failure. Exits with 2 while others have to approve first.
    Join {
        #[command(flatten)]
        what: What,
    },
}

/// What both take.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// The channel document.
    file: PathBuf,
    /// The channel's first block (default: fabric/CHANNEL/CHANNEL.block beside charter.toml, which join fetches if it is not there).
    #[arg(long, value_name = "FILE")]
    block: Option<PathBuf>,
    /// The folder with configtxgen, osnadmin and peer (default: bin in [fabric] of charter.toml, or PATH).
    #[arg(long, value_name = "DIR")]
    fabric_bin: Option<PathBuf>,
    /// Print the commands and configtx.yaml; run and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Runs one of the two.
pub(crate) async fn run(global: &Global, command: ChannelCommand) -> Result<Exit, CliError> {
    let (way, what) = match command {
        ChannelCommand::Create { what } => (Way::Create, what),
        ChannelCommand::Join { what } => (Way::Join, what),
    };
    let document = ChannelDocument::read(&what.file)
        .map_err(|error| CliError::new(format!("{} can't be used; nothing was done", what.file.display())).because(error))?;
    let config = targets::one(global)?;
    let settings = global
        .config
        .clone()
        .unwrap_or_else(|| config.folder().join(crate::config::FILE_NAME));
    let site = site(&config, &settings, document, &what)?;
    if let (Way::Join, Some(block)) = (way, what.block.as_ref().filter(|block| !block.exists())) {
        return Err(CliError::new(format!("{} is not there; nothing was done", block.display()))
            .next("name the block that the creator handed out, or leave --block out to fetch the orderers'"));
    }
    if what.dry_run {
        return rehearse(global, &site, way);
    }
    let tell = |report: &StepReport| output::note(&line(report));
    let work = async {
        match way {
            Way::Create => steps::create(&site, tell).await,
            Way::Join => steps::join(&site, tell).await,
        }
    };
    // Whoever is told to stop ends the tool that runs, too.
    let outcome = tokio::select! {
        outcome = work => outcome.map_err(|error| failed(&site, error))?,
        () = super::serve::told_to_stop() => {
            return Err(CliError::new("stopped on the way").next("run the same command again: it goes on where it stopped"));
        }
    };
    if global.output == Format::Json {
        output::json(&outcome)?;
    } else {
        output::line(&format!("{} first block {}", outcome.channel, outcome.first_block));
    }
    output::note(&next(&site, &what.file, way, &outcome));
    if way == Way::Join && !follows(&config, site.channel()) {
        output::note(&unfollowed(&settings, site.channel()));
    }
    Ok(if outcome.missing.is_empty() {
        Exit::Clean
    } else {
        Exit::Difference
    })
}

/// Whether `charter serve` follows a channel that a peer of this member has joined.
fn follows(config: &Config, channel: &Channel) -> bool {
    config.ledger.channels.contains(channel) || config.discover().iter().any(|pattern| pattern.fits(channel))
}

fn unfollowed(settings: &Path, channel: &Channel) -> String {
    format!(
        "next: {} follows other channels only: add {channel} to channels of [ledger], or leave channels out and use discover",
        settings.display()
    )
}

fn site(config: &Config, file: &Path, document: ChannelDocument, what: &What) -> Result<Site, CliError> {
    let settings: FabricConfig = config.fabric.clone().ok_or_else(|| {
        CliError::new(format!("{} has no table [fabric]", file.display()))
            .next("add it with admin_msp and package, as docs/channels.md describes")
    })?;
    let bin = what.fabric_bin.as_deref().or(settings.bin.as_deref());
    let tools = Tools::new(bin, std::env::var_os("PATH"), settings.timeout());
    let (member, msp_id) = (&config.member, &config.ledger.msp_id);
    let mut site = Site::new(member, msp_id, document, settings, tools, config.folder())
        .map_err(|error| explained(CliError::new("nothing was done"), error))?;
    if let Some(block) = &what.block {
        site.block = std::path::absolute(block).unwrap_or_else(|_| block.clone());
    }
    Ok(site)
}

fn rehearse(global: &Global, site: &Site, way: Way) -> Result<Exit, CliError> {
    let rehearsal = steps::rehearse(site, way).map_err(|error| failed(site, error))?;
    if global.output == Format::Json {
        output::json(&rehearsal)?;
        return Ok(Exit::Clean);
    }
    output::line(&format!("# {}", site.folder.join(crate::fabric::configtx::FILE_NAME).display()));
    output::line(&rehearsal.configtx);
    for (step, commands) in &rehearsal.commands {
        output::line(&format!("# {step}"));
        for command in commands {
            output::line(command);
        }
    }
    Ok(Exit::Clean)
}

fn line(report: &StepReport) -> String {
    let word = match report.ended {
        Ended::Already => "already",
        Ended::Done => "done",
        Ended::Waiting => "waiting",
        Ended::Failed => "failed",
    };
    format!("{word:<8} {}: {}", report.step, report.detail)
}

fn failed(site: &Site, error: FabricError) -> CliError {
    explained(CliError::new(format!("channel {} is not complete", site.channel())), error)
}

fn explained(message: CliError, error: FabricError) -> CliError {
    let next = error.next();
    message.because(error).next(next)
}

/// What remains to be done, and by whom.
fn next(site: &Site, file: &Path, way: Way, outcome: &Outcome) -> String {
    let (file, block, channel) = (file.display(), site.block.display(), &outcome.channel);
    if way == Way::Create {
        let mut text = format!(
            "next: hand {block} to the other members; each compares the hash above, and runs: charter channel join {file} --config FILE \
             --block FILE"
        );
        let nodes = site.document.orderer_nodes().count();
        if site.settings.orderers.len() < nodes {
            text.push_str(&format!(
                "\n      {} of {nodes} orderer nodes are administered here; whoever runs the others runs: osnadmin channel join \
                 --channelID {channel} --config-block FILE -o ADMIN-ENDPOINT",
                site.settings.orderers.len()
            ));
        }
        return text;
    }
    // The whole id, to be copied: the steps show its beginning only.
    let serving = match &outcome.package_id {
        Some(id) => format!("charter chaincode serve --id {id} --address HOST:PORT"),
        None => "charter chaincode serve".to_owned(),
    };
    if outcome.missing.is_empty() {
        return format!(
            "next: start for {}, if they don't run yet: {serving}\n      and 'charter serve'; then the members submit {}",
            site.member, site.document.agreement.dao
        );
    }
    let who: Vec<String> = outcome
        .missing
        .iter()
        .map(|missing| format!("{} ({})", missing.member, missing.msp))
        .collect();
    format!(
        "next: each of {} runs: charter channel join {file} --config FILE --block FILE; whoever is the last to be needed commits\n      \
         start for {}, if it doesn't run yet: {serving}",
        who.join(", "),
        site.member,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &str) -> (tempfile::TempDir, Config) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("n.toml");
        let text = format!(
            "member = \"city\"\n[ledger]\nendpoint = \"https://127.0.0.1:7051\"\ntls_ca = \"ca.pem\"\nmsp_id = \"CityMSP\"\nmsp = \"msp\"\n{lines}\n"
        );
        std::fs::write(&path, text).unwrap();
        let config = Config::read(&path).unwrap();
        (place, config)
    }

    #[test]
    fn a_list_of_channels_that_lacks_the_joined_one_is_told() {
        let joined = Channel::new("smart-city-2").unwrap();
        for (lines, expected) in [
            ("", true),
            ("channels = [\"smart-city-2\"]", true),
            ("channels = [\"smart-city-1\"]", false),
            ("channels = [\"smart-city-1\"]\ndiscover = [\"smart-*\"]", true),
            ("discover = [\"other-*\"]", false),
        ] {
            let (_place, config) = config(lines);
            assert_eq!(follows(&config, &joined), expected, "{lines}");
        }
        let text = unfollowed(Path::new("n.toml"), &joined);
        assert!(
            text.contains("n.toml") && text.contains("add smart-city-2 to channels of [ledger]"),
            "{text}"
        );
    }
}
