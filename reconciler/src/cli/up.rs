//! `up`: an embedded ledger, the members of an example, what they agree on and order, and one Charter for each of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use embedded::{MemberSpec, NetworkSpec, Server};
use ledger_sync::Ledger;
use providers::machine::{Command, Machine, MachineConfig};
use state::git::Store;
use state::ids::{Channel, MemberId};

use super::error::{CliError, Doing, Exit};
use super::progress::Progress;
use super::standing::{self, Standing};
use super::{Global, access, hosts, output, serve, submit, targets};
use crate::config::{Config, LedgerConfig};
use crate::discovery::Pattern;
use crate::document::Document;
use crate::network::{Network, NetworkMember};
use crate::service::Service;
use crate::submission::{Present, Said, Voice};

/// When `up` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// When everything has converged.
    Converged,
    /// When it is told to.
    Stopped,
}

/// How long nothing may change before `up --once` gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the members of an example look at their machines: often, so that drift made by hand is healed before it is forgotten.
const INTERVAL_SECONDS: u32 = 5;
/// How often the stores are looked at.
const LOOK: Duration = Duration::from_millis(150);

/// Runs an example.
pub(crate) async fn run(global: &Global, example: Option<&Path>, until: Until) -> Result<Exit, CliError> {
    let told = serve::told_to_stop();
    tokio::pin!(told);
    if story_file(&global.data_dir).exists() {
        return Err(CliError::new(format!(
            "a story was played in {}: its members go on by themselves",
            global.data_dir.display()
        ))
        .next("charter ledger serve and, for each member, charter serve --member; or charter down"));
    }
    let network = example_network(global, example)?;
    let ledger = start_ledger(global, &network, None)?;
    let server = access::serve(ledger.clone(), &global.data_dir, None, access::Elsewhere::Remembered).await?;
    output::note(embedded::TRUST_NOTICE);
    let work = Up {
        global,
        network: &network,
        ledger: &ledger,
        server: &server,
        discover: None,
    };
    let mut services = Vec::new();
    let ended = tokio::select! {
        ended = work.run(until, &mut services) => ended,
        () = &mut told => match until {
            Until::Converged => Err(CliError::new("interrupted before everything converged")
                .next("run charter up again: it goes on from what is there")),
            Until::Stopped => Ok(Exit::Clean),
        },
    };
    if until == Until::Stopped && ended.is_ok() {
        output::note("stopping: running steps are finished; what runs goes on, and the next start picks it up");
    }
    for service in services {
        service.stop().await;
    }
    server.stop().await.doing("the embedded ledger did not stop cleanly")?;
    ended
}

/// The file that remembers which example a data directory was made from.
fn example_file(global: &Global) -> PathBuf {
    access::ledger_folder(&global.data_dir).join("example")
}

/// The file that tells that a data directory holds a story, which `up` alone can't go on with.
pub(crate) fn story_file(data_dir: &Path) -> PathBuf {
    access::ledger_folder(data_dir).join("story")
}

/// The example that was named, or that the data directory was made from, or the one beside us, or the one in the binary.
fn example_network(global: &Global, example: Option<&Path>) -> Result<Network, CliError> {
    let kept = example_file(global);
    let beside = Path::new("examples/smart-city");
    let remembered = std::fs::read_to_string(&kept).ok().map(|text| PathBuf::from(text.trim_end()));
    let folder = match (example, remembered) {
        (Some(folder), _) => Some(std::path::absolute(folder).doing(format!("cannot find {}", folder.display()))?),
        (None, Some(folder)) if folder.as_os_str().is_empty() => None,
        (None, Some(folder)) => Some(folder),
        (None, None) if beside.join(crate::network::FILE_NAME).is_file() => {
            Some(std::path::absolute(beside).doing("cannot find the example")?)
        }
        (None, None) => None,
    };
    let network = match &folder {
        Some(folder) => Network::read(folder),
        None => Network::built_in(),
    };
    let network = network.map_err(|error| CliError::new("the example can't be used; nothing was started").because(error))?;
    let parent = access::ledger_folder(&global.data_dir);
    std::fs::create_dir_all(&parent).doing(format!("cannot make {}", parent.display()))?;
    let text = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
    std::fs::write(&kept, format!("{text}\n")).doing(format!("cannot write {}", kept.display()))?;
    Ok(network)
}

/// Makes or opens the ledger of a data directory. Its clients' clocks may be so far from its own; none: as far as Fabric allows.
pub(crate) fn start_ledger(global: &Global, network: &Network, apart: Option<Duration>) -> Result<embedded::Ledger, CliError> {
    let member = |member: &NetworkMember| MemberSpec {
        name: member.name.to_string(),
        msp_id: member.msp.to_string(),
    };
    let spec = NetworkSpec {
        members: network.members.iter().map(member).collect(),
    };
    let folder = access::ledger_folder(&global.data_dir);
    let failed = |error| CliError::new("the embedded ledger can't be started").because(error);
    let mut options = embedded::Options::default();
    if let Some(apart) = apart {
        options.limits.clock_window = apart;
    }
    let ledger = embedded::Ledger::init_with(&folder, &spec, options).map_err(|error| {
        failed(error).next(format!(
            "stop the other one, or use another --data-dir than {}",
            global.data_dir.display()
        ))
    })?;
    for channel in &network.channels {
        let members: Vec<&str> = channel.members.iter().map(AsRef::as_ref).collect();
        ledger.create_channel(channel.name.as_str(), &members).map_err(failed)?;
    }
    Ok(ledger)
}

/// What an example is run with.
pub(crate) struct Up<'a> {
    pub(crate) global: &'a Global,
    pub(crate) network: &'a Network,
    pub(crate) ledger: &'a embedded::Ledger,
    pub(crate) server: &'a Server,
    /// Which channels members find by themselves; none: only those that the network names are followed.
    pub(crate) discover: Option<Vec<Pattern>>,
}

impl Up<'_> {
    async fn run(&self, until: Until, services: &mut Vec<Service>) -> Result<Exit, CliError> {
        let mut members: BTreeMap<MemberId, (Config, Arc<dyn Ledger>)> = BTreeMap::new();
        for member in &self.network.members {
            let config = self.enrol(member)?;
            let ledger = access::connect(&config, None)?;
            members.insert(member.name.clone(), (config, ledger));
        }
        self.channels();
        for (config, ledger) in members.values() {
            let service = Service::start(config, ledger, None)
                .map_err(|error| CliError::new(format!("{} can't be started", config.member)).because(error))?;
            services.push(service);
        }
        self.submit(&members).await?;
        self.strangers(&members).await;
        let said = self.said(&members).await?;
        let running: Vec<(&Config, &Service)> = members.values().map(|(config, _)| config).zip(services.iter()).collect();
        let channels: Vec<Channel> = self.network.channels.iter().map(|channel| channel.name.clone()).collect();
        let standing = converge(&running, &channels, &said).await?;
        show(self.global, &standing);
        if until == Until::Stopped {
            output::note("\nwatching; drift is healed and reported. Ctrl-C stops Charter, and leaves what runs running.");
            std::future::pending::<()>().await;
        }
        Ok(Exit::Clean)
    }

    /// Gives a member its identity and its configuration.
    pub(crate) fn enrol(&self, member: &NetworkMember) -> Result<Config, CliError> {
        let folder = std::path::absolute(targets::members(&self.global.data_dir).join(member.name.as_str()))
            .doing("cannot find the data directory")?;
        let path = folder.join(crate::config::FILE_NAME);
        let present = Config::read(&path);
        let signer = present.as_ref().ok().and_then(|config| config.ledger.signer.clone());
        // A member that keeps its key elsewhere gets none in a file.
        if signer.is_none() {
            self.ledger
                .export_identity(member.name.as_str(), &folder.join("identity"))
                .map_err(|error| CliError::new(format!("{} can't be enrolled", member.name)).because(error))?;
        }
        let ledger = LedgerConfig {
            endpoint: access::endpoint(self.server.address()),
            tls_ca: "identity/tls-ca.pem".into(),
            server_name: None,
            client_certificate: None,
            client_key: None,
            msp_id: member.msp.clone(),
            msp: "identity/msp".into(),
            channels: self.network.channels_of(&member.name),
            discover: self.discover.clone(),
            signer,
            peers: Vec::new(),
            witness: None,
        };
        let config = match present {
            // What the member's engineer has changed stays; only where the ledger is follows the ledger.
            Ok(mut config) => {
                let follows = config.ledger != ledger;
                config.ledger = ledger;
                if !hosts::complete(&mut config, self.network, &member.name)? && !follows {
                    return Ok(config);
                }
                config
            }
            Err(_) if !path.exists() => {
                let config = machine(&folder)?;
                Machine::new(config.clone())
                    .and_then(|machine| machine.init_root())
                    .doing("the member's machine can't be prepared")?;
                let mut new = Config::new(&folder, member.name.clone(), ledger, Some(config));
                new.service.interval_seconds = INTERVAL_SECONDS;
                hosts::complete(&mut new, self.network, &member.name)?;
                new
            }
            Err(error) => return Err(CliError::new("the member's configuration can't be used").because(error)),
        };
        config.write().doing(format!("cannot write {}", path.display()))?;
        Config::read(&path).doing(format!("cannot read {}", path.display()))
    }

    fn channels(&self) {
        for channel in &self.network.channels {
            let names: Vec<&str> = channel.members.iter().map(AsRef::as_ref).collect();
            output::note(&format!("channel {}: {}", channel.name, names.join(", ")));
        }
    }

    /// Says what the example's members say, unless the ledger says it already.
    async fn submit(&self, members: &BTreeMap<MemberId, (Config, Arc<dyn Ledger>)>) -> Result<(), CliError> {
        for channel in &self.network.channels {
            let voice = |member: &MemberId| {
                members.get_key_value(member).map(|(member, (_, ledger))| Voice {
                    ledger: ledger.as_ref(),
                    channel: &channel.name,
                    member,
                })
            };
            // Everybody registers first: an agreement names registered members.
            for transaction in &channel.transactions {
                let Document::Agreement(agreement) = &transaction.document else {
                    continue;
                };
                let Some(voice) = voice(&transaction.by) else { continue };
                let said = voice.register(agreement).await;
                said_by(
                    &channel.name,
                    &transaction.by,
                    &said
                        .map_err(|error| CliError::new(format!("{} can't register on {}", transaction.by, channel.name)).because(error))?,
                );
            }
            for transaction in &channel.transactions {
                let Some(voice) = voice(&transaction.by) else { continue };
                let said = voice.say(&transaction.document, Present::Amend).await;
                let said = said
                    .map_err(|error| CliError::new(format!("{} by {} was not taken", transaction.file, transaction.by)).because(error))?;
                for one in &said {
                    said_by(&channel.name, &transaction.by, one);
                }
            }
        }
        Ok(())
    }

    /// The last block of each channel: what is judged has to hold everything that was said, now or by an earlier run.
    async fn said(&self, members: &BTreeMap<MemberId, (Config, Arc<dyn Ledger>)>) -> Result<BTreeMap<Channel, u64>, CliError> {
        let mut last = BTreeMap::new();
        for channel in &self.network.channels {
            let Some((_, ledger)) = channel.members.iter().find_map(|member| members.get(member)) else {
                continue;
            };
            let height = ledger.height(&channel.name).await;
            let height = height.doing(format!("cannot ask how many blocks {} has", channel.name))?;
            last.insert(channel.name.clone(), height.saturating_sub(1));
        }
        Ok(last)
    }

    /// Shows that who is not in a channel can't read it.
    async fn strangers(&self, members: &BTreeMap<MemberId, (Config, Arc<dyn Ledger>)>) {
        for channel in &self.network.channels {
            for (member, (_, ledger)) in members {
                if channel.members.contains(member) {
                    continue;
                }
                match ledger.height(&channel.name).await {
                    Ok(_) => output::note(&format!("{member} can read {}, though it is no member of it", channel.name)),
                    Err(error) => output::note(&format!(
                        "{member} is refused {}, as it should be: {}",
                        channel.name,
                        state::errors::chain(&error)
                    )),
                }
            }
        }
    }
}

fn said_by(channel: &Channel, member: &MemberId, said: &Said) {
    if let Said::Committed { .. } | Said::Waiting { .. } = said {
        output::note(&format!("  {channel}  {member}: {}", submit::line(said)));
    }
}

/// The example's machine: a root below the member's folder, and the one command that the example's orders name.
fn machine(folder: &Path) -> Result<MachineConfig, CliError> {
    let program = std::env::current_exe().doing("cannot find the charter binary")?;
    let command = Command {
        program,
        args: vec!["demo".into()],
        env: None,
    };
    Ok(MachineConfig {
        root: folder.join("machine"),
        commands: [("smart-city".to_owned(), command)].into(),
        secrets: None,
    })
}

/// Whether every member's service has taken in the blocks that were there when everything was said.
fn level(running: &[(&Config, &Service)], said: &BTreeMap<Channel, u64>) -> bool {
    running.iter().all(|(config, service)| {
        let status = service.status();
        let status = status.borrow();
        let block = |channel| status.channels.get(channel).and_then(|one| one.block);
        said.iter()
            // On a channel that has its first block alone nobody has said anything yet.
            .filter(|(_, said)| **said > 0)
            .filter(|(channel, _)| config.channels().contains(*channel) || status.channels.contains_key(*channel))
            .all(|(channel, said)| block(channel) >= Some(*said))
    })
}

/// Waits until the stores are level with the ledger and every resource of the channels is in sync, and says so with a bar.
pub(crate) async fn converge(
    running: &[(&Config, &Service)],
    channels: &[Channel],
    said: &BTreeMap<Channel, u64>,
) -> Result<Vec<Standing>, CliError> {
    let progress = Progress::start();
    let mut last = (0, 0, Vec::new());
    let mut still_since = tokio::time::Instant::now();
    loop {
        // Asked first: what is looked at then is at least as new.
        let level = level(running, said);
        let standing = look(running, channels)?;
        let ready = standing.iter().filter(|one| one.ready()).count();
        let going_on = going_on(running, channels);
        progress.show(ready, standing.len(), &waiting(&standing, &going_on));
        if level && ready == standing.len() {
            progress.finish();
            return Ok(standing);
        }
        let now = (ready, standing.len(), going_on);
        if now != last {
            last = now;
            still_since = tokio::time::Instant::now();
        }
        if still_since.elapsed() > PATIENCE {
            progress.finish();
            standing::table(&standing);
            return Err(CliError::new(format!(
                "{ready} of {} resources are in sync, and nothing has changed for {} s",
                standing.len(),
                PATIENCE.as_secs()
            ))
            .next("charter status, and charter plan"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn look(running: &[(&Config, &Service)], channels: &[Channel]) -> Result<Vec<Standing>, CliError> {
    let mut all = Vec::new();
    for (config, _) in running {
        let store = Store::open(&config.store()).doing(format!("cannot read the store of {}", config.member))?;
        let followed = config.channels();
        for channel in channels.iter().filter(|channel| followed.contains(*channel)) {
            all.extend(standing::of(&store, channel, &config.member)?);
        }
    }
    all.sort();
    Ok(all)
}

/// What goes on right now, each with its resource.
fn going_on(running: &[(&Config, &Service)], channels: &[Channel]) -> Vec<String> {
    let mut all = Vec::new();
    for (_, service) in running {
        for channel in channels {
            let told = service.going_on(channel).into_iter();
            all.extend(told.map(|(resource, words)| format!("{channel}/{resource}: {}", output::plain(&words))));
        }
    }
    all
}

fn waiting(standing: &[Standing], going_on: &[String]) -> String {
    if let [first, rest @ ..] = going_on {
        return match rest.len() {
            0 => first.clone(),
            more => format!("{first} and {more} more"),
        };
    }
    let names: Vec<String> = standing
        .iter()
        .filter(|one| !one.ready())
        .map(|one| format!("{}/{}", one.channel, one.resource))
        .collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}

/// How a data directory is named on the command line.
pub(crate) fn named_data_dir(global: &Global) -> String {
    if global.data_dir == Path::new(".charter") {
        String::new()
    } else {
        format!(" --data-dir {}", global.data_dir.display())
    }
}

fn show(global: &Global, standing: &[Standing]) {
    output::note("");
    if global.output == super::Format::Json {
        let _ = output::json(&standing);
    } else {
        standing::table(standing);
    }
    let data = named_data_dir(global);
    // As it was called: who runs it from a checkout has no charter on the PATH.
    let charter = std::env::args().next().unwrap_or_else(|| "charter".into());
    let store = standing.first().map_or_else(PathBuf::new, |one| {
        targets::members(&global.data_dir).join(one.owner.as_str()).join("store.git")
    });
    output::note("\nnext:");
    for (command, what) in [
        (format!("{charter} status{data}"), "how every member sees it"),
        (format!("{charter} history{data}"), "who ordered what, when"),
        (format!("git -C {} log --all --graph", store.display()), "the same, by git"),
        (format!("{charter} drift{data}"), "kill a service or edit a file, then look"),
        (format!("{charter} replay --compare{data}"), "the same commit ids from the ledger"),
        (format!("{charter} down{data}"), "delete all of it"),
    ] {
        output::note(&format!("  {command:<64}  # {what}"));
    }
}
