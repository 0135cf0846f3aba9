//! Fabric's own tools: where they are, and running one with a deadline and bounds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::error::FabricError;

/// The most that is read of each of a tool's outputs, in bytes.
const MAX_OUTPUT: u64 = 4 * 1024 * 1024;
/// The most of a tool's words that an error repeats, in characters; the end is what matters.
const MAX_SAID: usize = 1_500;
/// Variables that would make a tool do something else than it is told here.
const STEERING: [&str; 5] = ["CORE_", "ORDERER_", "CONFIGTX_", "FABRIC_", "CONFIGTXGEN_"];
/// What of them a member may set: how its HSM is reached.
const KEPT: &str = "CORE_PEER_BCCSP_";

/// One of Fabric's tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// Makes a channel's first block.
    ConfigTxGen,
    /// Administers an orderer node.
    OsnAdmin,
    /// Speaks with peers, as their administrator.
    Peer,
}

impl Tool {
    /// The file's name.
    pub fn name(self) -> &'static str {
        match self {
            Tool::ConfigTxGen => "configtxgen",
            Tool::OsnAdmin => "osnadmin",
            Tool::Peer => "peer",
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the tools are.
#[derive(Clone, Debug)]
pub struct Tools {
    folders: Vec<PathBuf>,
    timeout: Duration,
}

impl Tools {
    /// Looks for tools in one folder, or else in those of `PATH`.
    pub fn new(bin: Option<&Path>, path: Option<OsString>, timeout: Duration) -> Self {
        let folders = match bin {
            Some(bin) => vec![bin.to_owned()],
            None => path.map(|path| std::env::split_paths(&path).collect()).unwrap_or_default(),
        };
        Self { folders, timeout }
    }

    /// How long one run may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Finds a tool.
    pub fn find(&self, tool: Tool) -> Result<PathBuf, FabricError> {
        let found = self.folders.iter().map(|folder| folder.join(tool.name())).find(|path| runs(path));
        found.ok_or_else(|| FabricError::NoTool {
            tool,
            looked: self.folders.clone(),
        })
    }

    /// Runs a tool to its end. A tool that is not done in time is ended; so is one that is not waited for any longer.
    pub async fn run(&self, call: &Call) -> Result<Said, FabricError> {
        let program = self.find(call.tool)?;
        let started = |source| FabricError::Start { tool: call.tool, source };
        let mut command = Command::new(&program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if STEERING.iter().any(|prefix| text.starts_with(prefix)) && !text.starts_with(KEPT) {
                command.env_remove(&name);
            }
        }
        command.args(&call.args).envs(&call.env).env("FABRIC_LOGGING_SPEC", "error");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let mut child = command.spawn().map_err(started)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let done = async {
            let (stdout, stderr) = tokio::join!(bounded(stdout), bounded(stderr));
            let status = child.wait().await?;
            Ok::<_, std::io::Error>((status, stdout?, stderr?))
        };
        let ended = tokio::time::timeout(self.timeout, done).await;
        let (status, stdout, stderr) = match ended {
            Ok(done) => done.map_err(started)?,
            Err(_) => {
                // Whether the end is waited for or not, nothing more comes of it.
                let _ = child.kill().await;
                return Err(FabricError::TimedOut {
                    call: call.to_string(),
                    tool: call.tool,
                    after: self.timeout,
                });
            }
        };
        if stdout.len() as u64 >= MAX_OUTPUT || stderr.len() as u64 >= MAX_OUTPUT {
            return Err(FabricError::Answer {
                tool: call.tool,
                call: call.to_string(),
                what: format!("more than {MAX_OUTPUT} bytes"),
            });
        }
        let said = Said {
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        };
        if status.success() {
            return Ok(said);
        }
        Err(FabricError::Tool {
            tool: call.tool,
            call: call.to_string(),
            status: status.to_string(),
            said: said.words(),
        })
    }
}

async fn bounded(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
        // The rest is let through, so that the tool is not held up by a full pipe.
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

fn runs(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// What a tool said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// On standard output.
    pub stdout: String,
    /// On standard error.
    pub stderr: String,
}

impl Said {
    /// The end of its words: of standard error, or of standard output where a tool complains there.
    fn words(&self) -> String {
        let text = if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        let text = without_colours(text.trim());
        let text = complaint(&text).to_owned();
        let length = text.chars().count();
        match length.checked_sub(MAX_SAID) {
            Some(cut) if cut > 0 => format!("… {}", text.chars().skip(cut).collect::<String>()),
            _ => text,
        }
    }
}

/// The complaint itself, where a tool also logs before it or tells its usage after it.
fn complaint(text: &str) -> &str {
    let start = text
        .match_indices("Error: ")
        .map(|(at, _)| at)
        .find(|at| *at == 0 || text[..*at].ends_with('\n'));
    let text = start.map_or(text, |start| &text[start..]);
    text.split("\nUsage:").next().unwrap_or(text).trim_end()
}

/// Text without the escape sequences that colour a terminal.
fn without_colours(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        // `ESC [ … letter`
        for skipped in chars.by_ref() {
            if skipped.is_ascii_alphabetic() {
                break;
            }
        }
    }
    out
}

/// One run of a tool: its arguments and what it needs in its environment. Neither holds a secret, only paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The tool.
    pub tool: Tool,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its environment, beside the present one.
    pub env: BTreeMap<&'static str, OsString>,
}

impl Call {
    /// A run of a tool with these words.
    pub fn new(tool: Tool, words: &[&str]) -> Self {
        Self {
            tool,
            args: words.iter().map(OsString::from).collect(),
            env: BTreeMap::new(),
        }
    }

    /// Adds an option with its value.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.args.push(name.into());
        self.args.push(value.into());
        self
    }

    /// Adds a word.
    #[must_use]
    pub fn word(mut self, word: impl Into<OsString>) -> Self {
        self.args.push(word.into());
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.insert(name, value.into());
        self
    }
}

impl fmt::Display for Call {
    /// As one types it in a shell, without the environment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tool.name())?;
        for word in &self.args {
            write!(f, " {}", quoted(&word.to_string_lossy()))?;
        }
        Ok(())
    }
}

impl Call {
    /// As one types it in a shell, with the environment.
    pub fn with_environment(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.env {
            out.push_str(&format!("{name}={} ", quoted(&value.to_string_lossy())));
        }
        format!("{out}{self}")
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '=' | ',' | '+' | '@' | '$');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn tool(script: &str) -> (tempfile::TempDir, Tools) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("peer");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let tools = Tools::new(Some(place.path()), None, Duration::from_secs(10));
        (place, tools)
    }

    #[test]
    fn a_missing_tool_is_named_with_where_it_was_looked_for() {
        let tools = Tools::new(None, Some("/nowhere/one:/nowhere/two".into()), Duration::from_secs(1));
        let error = tools.find(Tool::OsnAdmin).unwrap_err().to_string();
        assert!(
            error.contains("osnadmin") && error.contains("/nowhere/one") && error.contains("/nowhere/two"),
            "{error}"
        );
    }

    #[test]
    fn a_call_is_shown_as_a_shell_takes_it() {
        let call = Call::new(Tool::Peer, &["channel", "join"])
            .option("-b", "a file's/c.block")
            .variable("CORE_PEER_ADDRESS", "peer0:7051");
        assert_eq!(
            call.with_environment(),
            r"CORE_PEER_ADDRESS=peer0:7051 peer channel join -b 'a file'\''s/c.block'"
        );
    }

    #[tokio::test]
    async fn a_failure_carries_the_tools_own_words_without_colours() {
        let (_place, tools) = tool(r"printf '\033[31mError: no such thing\033[0m\n' >&2; exit 3");
        let error = tools.run(&Call::new(Tool::Peer, &["x"])).await.unwrap_err();
        let text = state::errors::chain(&error);
        assert!(text.contains("Error: no such thing") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("peer x"), "{text}");
    }

    #[test]
    fn a_complaint_is_told_without_the_usage_after_it() {
        let said = Said {
            stdout: String::new(),
            stderr: "a warning\nError: orderer client failed to connect\nUsage:\n  peer channel fetch [flags]\n".into(),
        };
        assert_eq!(said.words(), "Error: orderer client failed to connect");
        let plain = Said {
            stdout: "no complaint".into(),
            stderr: " ".into(),
        };
        assert_eq!(plain.words(), "no complaint");
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_ended() {
        let (place, mut tools) = tool("echo $$ > \"$0.pid\"; exec sleep 600");
        tools.timeout = Duration::from_millis(500);
        let error = tools.run(&Call::new(Tool::Peer, &["x"])).await.unwrap_err();
        assert!(matches!(error, FabricError::TimedOut { .. }), "{error}");
        let pid = std::fs::read_to_string(place.path().join("peer.pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "{pid} still runs");
    }

    #[tokio::test]
    async fn what_would_steer_a_tool_is_taken_out_of_its_environment() {
        let (_place, tools) = tool("echo \"$FABRIC_LOGGING_SPEC $CORE_PEER_ADDRESS\"");
        let call = Call::new(Tool::Peer, &["x"]).variable("CORE_PEER_ADDRESS", "peer0:7051");
        assert_eq!(tools.run(&call).await.unwrap().stdout.trim(), "error peer0:7051");
    }

    #[tokio::test]
    async fn a_flood_of_output_is_no_answer() {
        let (_place, tools) = tool("head -c 5000000 /dev/zero");
        let error = tools.run(&Call::new(Tool::Peer, &["x"])).await.unwrap_err();
        assert!(matches!(error, FabricError::Answer { .. }), "{error}");
    }
}
