//! `up --story`: plays an example's story on a ledger of its own, command by command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use embedded::Server;
use ledger_sync::Ledger;
use state::ids::{Channel, MemberId};

use super::error::{CliError, Doing, Exit};
use super::up::{self, Until, Up};
use super::{Global, access, output, serve};
use crate::clock;
use crate::config::Config;
use crate::discovery::Pattern;
use crate::network::{self, Network, NetworkChannel};
use crate::service::Service;
use crate::story::{self, Chapter, Open, Run, Step, Story};

/// The folder of a data directory that a story's commands write into.
pub(crate) const WORK: &str = "work";
/// The folder of a data directory with the example that is part of the binary.
pub(crate) const EXAMPLE: &str = "example";
/// How long a command may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long something may be on its way.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often what is on its way is asked for.
const LOOK: Duration = Duration::from_millis(400);
/// The most lines of one command that a reader is shown.
const SHOWN: usize = 24;
/// How far the clocks of a story's members may be from the ledger's: hours pass in it within a minute.
const CLOCKS_APART: Duration = Duration::from_secs(20 * 366 * 86_400);

/// Plays a story from its first line on.
pub(crate) async fn run(global: &Global, example: Option<&Path>, until: Until) -> Result<Exit, CliError> {
    let told = serve::told_to_stop();
    tokio::pin!(told);
    if access::ledger_folder(&global.data_dir).join("network.json").exists() {
        return Err(CliError::new(format!(
            "{} has a ledger already, and a story starts from nothing",
            global.data_dir.display()
        ))
        .next("charter down, or name another --data-dir"));
    }
    let folder = example_folder(global, example)?;
    let unusable = |error| CliError::new("the story can't be used; nothing was started").because(error);
    let story = Story::read(&folder).map_err(unusable)?;
    let members = Network::read(&folder).map_err(unusable)?.members;
    let network = Network {
        folder: None,
        channels: vec![NetworkChannel {
            name: story.market.clone(),
            members: members.iter().map(|member| member.name.clone()).collect(),
            transactions: Vec::new(),
        }],
        members,
    };
    let pattern: Pattern = story
        .discover
        .parse()
        .map_err(|error| CliError::new("the story's discover is no pattern").because(error))?;
    let ledger = up::start_ledger(global, &network, Some(CLOCKS_APART))?;
    let mark = up::story_file(&global.data_dir);
    std::fs::write(&mark, format!("{}\n", folder.display())).doing(format!("cannot write {}", mark.display()))?;
    let server = access::serve(ledger.clone(), &global.data_dir, None, access::Elsewhere::Remembered).await?;
    output::note(embedded::TRUST_NOTICE);
    let up = Up {
        global,
        network: &network,
        ledger: &ledger,
        server: &server,
        discover: Some(vec![pattern]),
    };
    let mut stage = Stage {
        global,
        up: &up,
        ledger: &ledger,
        folder,
        members: BTreeMap::new(),
        kept: BTreeMap::new(),
        opened: BTreeMap::new(),
    };
    let played = tokio::select! {
        played = stage.play(&story, until) => played,
        () = &mut told => match until {
            Until::Converged => Err(CliError::new("interrupted before the story ended").next("charter down, and play it again")),
            Until::Stopped => Ok(Exit::Clean),
        },
    };
    stage.leave().await;
    let server: Server = server;
    server.stop().await.doing("the embedded ledger did not stop cleanly")?;
    played
}

/// The folder with the story's files; the example that is part of the binary is written below the data directory.
fn example_folder(global: &Global, example: Option<&Path>) -> Result<PathBuf, CliError> {
    let beside = Path::new("examples/smart-city");
    match example {
        Some(folder) => std::path::absolute(folder).doing(format!("cannot find {}", folder.display())),
        None if beside.join(story::FILE_NAME).is_file() => std::path::absolute(beside).doing("cannot find the example"),
        None => {
            let folder = std::path::absolute(global.data_dir.join(EXAMPLE)).doing("cannot find the data directory")?;
            for (name, text) in network::built_in_files() {
                let path = folder.join(name);
                let parent = path.parent().unwrap_or(&folder);
                std::fs::create_dir_all(parent).doing(format!("cannot make {}", parent.display()))?;
                std::fs::write(&path, text).doing(format!("cannot write {}", path.display()))?;
            }
            Ok(folder)
        }
    }
}

/// A member, and its Charter while it runs.
struct Player {
    config: Config,
    ledger: Arc<dyn Ledger>,
    service: Option<Service>,
}

/// Where a story is played.
struct Stage<'a> {
    global: &'a Global,
    up: &'a Up<'a>,
    ledger: &'a embedded::Ledger,
    folder: PathBuf,
    members: BTreeMap<MemberId, Player>,
    kept: BTreeMap<String, String>,
    /// The channels that were opened, and for whom.
    opened: BTreeMap<Channel, Vec<MemberId>>,
}

impl Stage<'_> {
    async fn play(&mut self, story: &Story, until: Until) -> Result<Exit, CliError> {
        let work = std::path::absolute(self.global.data_dir.join(WORK)).doing("cannot find the data directory")?;
        std::fs::create_dir_all(&work).doing(format!("cannot make {}", work.display()))?;
        self.kept.insert("work".into(), work.display().to_string());
        for member in &self.up.network.members {
            let config = self.up.enrol(member)?;
            let ledger = access::connect(&config, None)?;
            let service = start(&config, &ledger)?;
            self.members.insert(
                member.name.clone(),
                Player {
                    config,
                    ledger,
                    service: Some(service),
                },
            );
        }
        for (index, chapter) in (1..).zip(&story.chapters) {
            output::note(&format!("\n{index}. {}", chapter.title));
            for step in &chapter.steps {
                self.step(step).await.map_err(|error| self.where_it_broke(error, index, chapter))?;
            }
        }
        output::note("\nthe story is told. What it left to look at:");
        for command in ["charter history", "charter status", "charter verify", "charter down"] {
            output::note(&format!("  {command}{}", self.named()));
        }
        if until == Until::Stopped {
            output::note("\nwatching, until Ctrl-C");
            std::future::pending::<()>().await;
        }
        Ok(Exit::Clean)
    }

    fn where_it_broke(&self, error: CliError, index: usize, chapter: &Chapter) -> CliError {
        error
            .within(format!("the story stopped in chapter {index}, {:?}", chapter.title))
            .next(format!(
                "look around with charter status{} and charter history{}, then charter down",
                self.named(),
                self.named()
            ))
    }

    /// How the data directory is named on the command line.
    fn named(&self) -> String {
        up::named_data_dir(self.global)
    }

    async fn step(&mut self, step: &Step) -> Result<(), CliError> {
        match step {
            Step::Say(text) => say(text),
            Step::Run(run) => self.run(run).await?,
            Step::Open(Open { channel, members }) => {
                let names: Vec<&str> = members.iter().map(AsRef::as_ref).collect();
                self.ledger
                    .create_channel(channel.as_str(), &names)
                    .map_err(|error| CliError::new(format!("channel {channel} can't be opened")).because(error))?;
                output::note(&format!("   channel {channel} is opened for {}", names.join(", ")));
                self.opened.insert(channel.clone(), members.clone());
            }
            Step::Settle(channels) => self.settle(channels).await?,
            Step::Silence(member) => {
                if let Some(service) = self.players(member)?.service.take() {
                    service.stop().await;
                }
                output::note(&format!("   {member}'s Charter is stopped"));
            }
            Step::Return(member) => {
                let player = self.players(member)?;
                if player.service.is_none() {
                    player.service = Some(start(&player.config, &player.ledger)?);
                }
                output::note(&format!("   {member}'s Charter is started again"));
            }
            Step::Later(seconds) => {
                clock::pass(i64::from(*seconds));
                output::note(&format!("   {} pass on the story's clock", duration(*seconds)));
            }
        }
        Ok(())
    }

    fn players(&mut self, member: &MemberId) -> Result<&mut Player, CliError> {
        self.members
            .get_mut(member)
            .ok_or_else(|| CliError::new(format!("{member} is not in this story")))
    }

    /// Waits until everything on the channels is as it was ordered, as its owners have reported it.
    async fn settle(&self, channels: &[Channel]) -> Result<(), CliError> {
        self.found(channels).await?;
        let running: Vec<(&Config, &Service)> = self
            .members
            .values()
            .filter_map(|player| player.service.as_ref().map(|service| (&player.config, service)))
            .collect();
        let mut said = BTreeMap::new();
        for channel in channels {
            let reader = self.members.values().find(|player| player.config.channels().contains(channel));
            let Some(reader) = reader else { continue };
            let height = reader.ledger.height(channel).await;
            let height = height.doing(format!("cannot ask how many blocks {channel} has"))?;
            said.insert(channel.clone(), height.saturating_sub(1));
        }
        let standing = up::converge(&running, channels, &said).await?;
        super::standing::table(&standing);
        Ok(())
    }

    /// Waits until the members of channels that were opened follow them.
    async fn found(&self, channels: &[Channel]) -> Result<(), CliError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for (channel, members) in self.opened.iter().filter(|(channel, _)| channels.contains(channel)) {
            let services = members.iter().filter_map(|member| self.members.get(member)?.service.as_ref());
            for service in services {
                while !service.status().borrow().channels.contains_key(channel) {
                    if tokio::time::Instant::now() > deadline {
                        return Err(CliError::new(format!("a member of {channel} does not find it")).next("charter status"));
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        Ok(())
    }

    async fn run(&mut self, run: &Run) -> Result<(), CliError> {
        let mut typed = run.charter.clone();
        for (name, value) in &self.kept {
            typed = typed.replace(&format!("{{{name}}}"), value);
        }
        let shown = self
            .kept
            .get("work")
            .map_or_else(|| typed.clone(), |work| typed.replace(work.as_str(), "work"));
        let kept_in = run.save.as_ref().map_or_else(String::new, |name| format!(" > work/{name}"));
        output::note(&format!("   $ charter {shown}{kept_in}"));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let output = loop {
            let output = self.command(&typed).await?;
            let Err(complaint) = ended_well(run, &output) else { break output };
            if !run.until || tokio::time::Instant::now() > deadline {
                return Err(CliError::new(format!("charter {shown}: {complaint}\n{}", text(&output).trim_end())));
            }
            tokio::time::sleep(LOOK).await;
        };
        if let (Some(name), Some(work)) = (&run.save, self.kept.get("work")) {
            let path = Path::new(work).join(name);
            std::fs::write(&path, &output.stdout).doing(format!("cannot write {}", path.display()))?;
        }
        if !run.quiet {
            let said = text(&output);
            let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            for line in lines.iter().take(SHOWN) {
                output::note(&format!("     {line}"));
            }
            if lines.len() > SHOWN {
                output::note(&format!("     … and {} more lines", lines.len() - SHOWN));
            }
        }
        if !run.keep.is_empty() {
            let answer: serde_json::Value =
                serde_json::from_slice(&output.stdout).doing(format!("charter {shown} did not answer in JSON"))?;
            for (name, pointer) in &run.keep {
                let found = answer.pointer(pointer).and_then(serde_json::Value::as_str);
                let found = found.ok_or_else(|| CliError::new(format!("charter {shown} has nothing at {pointer}")))?;
                self.kept.insert(name.clone(), found.to_owned());
            }
        }
        Ok(())
    }

    /// Runs this very binary, as a user would.
    async fn command(&self, typed: &str) -> Result<Output, CliError> {
        let program = std::env::current_exe().doing("cannot find the charter binary")?;
        let data = std::path::absolute(&self.global.data_dir).doing("cannot find the data directory")?;
        let mut command = tokio::process::Command::new(program);
        command
            .args(story::words(typed).unwrap_or_default())
            .arg("--data-dir")
            .arg(data)
            .current_dir(&self.folder)
            .env("NO_COLOR", "1")
            .env(clock::OFFSET, clock::offset().to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let done = tokio::time::timeout(DEADLINE, command.output()).await;
        done.map_err(|_| CliError::new(format!("charter {typed} did not end within {} s", DEADLINE.as_secs())))?
            .doing("cannot run the charter binary")
    }

    /// Stops every Charter; what runs goes on running.
    async fn leave(&mut self) {
        for player in self.members.values_mut() {
            if let Some(service) = player.service.take() {
                service.stop().await;
            }
        }
    }
}

fn start(config: &Config, ledger: &Arc<dyn Ledger>) -> Result<Service, CliError> {
    Service::start(config, ledger, None).map_err(|error| CliError::new(format!("{} can't be started", config.member)).because(error))
}

/// What a command said: its data, then what it told beside.
fn text(output: &Output) -> String {
    let mut all = String::from_utf8_lossy(&output.stdout).into_owned();
    all.push_str(&String::from_utf8_lossy(&output.stderr));
    all
}

/// Holds a command's end to what the story says of it.
fn ended_well(run: &Run, output: &Output) -> Result<(), String> {
    let code = output.status.code();
    if code != Some(i32::from(run.exit)) {
        return Err(format!(
            "it should exit with {}, and did with {}",
            run.exit,
            code.map_or_else(|| "a signal".to_owned(), |code| code.to_string())
        ));
    }
    let said = text(output);
    if let Some(missing) = run.shows.iter().find(|part| !said.contains(part.as_str())) {
        return Err(format!("it should say {missing:?}, and doesn't"));
    }
    if let Some(there) = run.hides.iter().find(|part| said.contains(part.as_str())) {
        return Err(format!("it should not say {there:?}, and does"));
    }
    Ok(())
}

/// Explains, in lines that fit a terminal.
fn say(text: &str) {
    const WIDTH: usize = 96;
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            output::note(&format!("   {line}"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        output::note(&format!("   {line}"));
    }
}

/// Seconds in the largest unit that says them whole.
fn duration(seconds: u32) -> String {
    match seconds {
        s if s % 86_400 == 0 => format!("{} days", s / 86_400),
        s if s % 3_600 == 0 => format!("{} hours", s / 3_600),
        s if s % 60 == 0 => format!("{} minutes", s / 60),
        s => format!("{s} seconds"),
    }
}
