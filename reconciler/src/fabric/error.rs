//! Why work on a Fabric network could not be done.

use std::path::PathBuf;
use std::time::Duration;

use state::ids::{Channel, MemberId, MspId};
use thiserror::Error;

use super::address::Address;
use super::block::BlockFault;
use super::tools::Tool;

/// A step on a Fabric network could not be done. What was done before it stays, and the same command goes on from there.
#[derive(Debug, Error)]
pub enum FabricError {
    /// A tool is not there.
    #[error("{tool} is not there; looked in {}", folders(.looked))]
    NoTool {
        /// The tool.
        tool: Tool,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// A tool can't be started.
    #[error("{tool} can't be run")]
    Start {
        /// The tool.
        tool: Tool,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A tool said no.
    #[error("{tool} failed ({status}): {said}\n(it was run as: {call})")]
    Tool {
        /// The tool.
        tool: Tool,
        /// How it was run.
        call: String,
        /// How it ended.
        status: String,
        /// Its own words.
        said: String,
    },
    /// A tool was not done in time, and was ended.
    #[error("{tool} was not done within {} s and was ended (it was run as: {call})", .after.as_secs())]
    TimedOut {
        /// The tool.
        tool: Tool,
        /// How it was run.
        call: String,
        /// Its time.
        after: Duration,
    },
    /// A tool said something that is no answer.
    #[error("{tool} answered with {what} (it was run as: {call})")]
    Answer {
        /// The tool.
        tool: Tool,
        /// How it was run.
        call: String,
        /// What it said.
        what: String,
    },
    /// A file can't be read or written.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `configtx.yaml` can't be written as YAML.
    #[error("configtx.yaml of {channel} can't be put together")]
    ConfigTx {
        /// The channel.
        channel: Channel,
        /// Why.
        #[source]
        source: serde_saphyr::ser::Error,
    },
    /// The channel's first block is not what the channel document says.
    #[error("{} is not the first block of the channel that the document describes", .path.display())]
    Block {
        /// The block's file.
        path: PathBuf,
        /// In what it differs.
        #[source]
        source: BlockFault,
    },
    /// The orderers serve another first block than the one at hand.
    #[error("the orderers serve channel {channel} with first block {served}; {} holds {held}", .path.display())]
    OtherBlock {
        /// The channel.
        channel: Channel,
        /// The hash of the orderers' block.
        served: String,
        /// The file of the block at hand.
        path: PathBuf,
        /// Its hash.
        held: String,
    },
    /// No orderer of the document has the channel.
    #[error("no orderer serves channel {channel} yet")]
    NotServed {
        /// The channel.
        channel: Channel,
        /// The channel document.
        document: PathBuf,
    },
    /// This member takes no part in the channel.
    #[error("{member} is no member of {channel}: the agreement names {}", .parties.join(", "))]
    Stranger {
        /// This member.
        member: MemberId,
        /// The channel.
        channel: Channel,
        /// Who is.
        parties: Vec<String>,
    },
    /// This member's MSP is another one than the agreement says.
    #[error("{member} is {configured} by its configuration and {agreed} by the agreement")]
    OtherMsp {
        /// The member.
        member: MemberId,
        /// Its MSP id in `charter.toml`.
        configured: MspId,
        /// Its MSP id in the agreement.
        agreed: MspId,
    },
    /// Something that is needed is not configured or not there.
    #[error("{0}")]
    Missing(String),
    /// A step was carried out, and what it is for is still not so.
    #[error("{step} was carried out without an error and is still not done: {state}")]
    NotDone {
        /// The step.
        step: String,
        /// How it stands.
        state: String,
    },
    /// The chaincode was approved or committed otherwise than the document says.
    #[error(
        "the channel has {name} in version {found} with sequence {sequence}; the document says version {wanted} with sequence \
         {wanted_sequence}"
    )]
    Definition {
        /// The chaincode.
        name: &'static str,
        /// Its version on the channel.
        found: String,
        /// Its sequence there.
        sequence: u32,
        /// The version in the document.
        wanted: String,
        /// The sequence in the document.
        wanted_sequence: u32,
    },
    /// No orderer could be reached.
    #[error("none of the orderers {} took it; the last one said", .tried.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Orderers {
        /// Which were tried.
        tried: Vec<Address>,
        /// What the last one said.
        #[source]
        last: Box<FabricError>,
    },
}

fn folders(looked: &[PathBuf]) -> String {
    if looked.is_empty() {
        return "no folder: PATH is empty".into();
    }
    looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl FabricError {
    /// What a tool said, when it failed.
    pub(crate) fn said(&self) -> Option<&str> {
        match self {
            FabricError::Tool { said, .. } => Some(said),
            _ => None,
        }
    }

    /// Tells whether the same call may succeed in a moment: the network is still settling.
    pub(crate) fn passing(&self) -> bool {
        const PASSING: [&str; 5] = [
            "no Raft leader",
            "SERVICE_UNAVAILABLE",
            // A peer that has only just joined, or that hears of an approval a moment later than its own organisation's.
            "MVCC_READ_CONFLICT",
            "PHANTOM_READ_CONFLICT",
            "chaincode definition not agreed to by this org",
        ];
        if let FabricError::Orderers { last, .. } = self {
            return last.passing();
        }
        self.said().is_some_and(|said| PASSING.iter().any(|text| said.contains(text)))
    }

    /// What to do next.
    pub fn next(&self) -> String {
        match self {
            FabricError::NoTool { tool, .. } => format!(
                "install Hyperledger Fabric's binaries (https://hyperledger-fabric.readthedocs.io, «install»), and name the folder with {tool} \
                 with --fabric-bin, with bin in [fabric] of charter.toml, or on PATH"
            ),
            FabricError::Start { tool, .. } => format!("run '{tool} version' by hand: it has to be made for this machine"),
            FabricError::Tool { said, .. } => for_words(said).to_owned(),
            FabricError::TimedOut { .. } => {
                "see whether the node that it speaks with answers; a slow network needs a larger timeout_seconds in [fabric]; then run the \
                 same command again"
                    .into()
            }
            FabricError::Answer { .. } => "use the binaries of Hyperledger Fabric 2.5, all of one release".into(),
            FabricError::Block { .. } => "if it is this channel's block, compare your channel document and MSP folders with the \
                                          creator's, and join nothing until they agree; if it is another file, name the right one with --block"
                .into(),
            FabricError::OtherBlock { path, .. } => format!(
                "remove {} and run the same command again: it takes the orderers' block; a peer that has joined the other one has to leave \
                 the channel first, as docs/channels.md describes",
                path.display()
            ),
            FabricError::NotServed { channel, document } => format!(
                "an organisation that runs orderers has to run 'charter channel join {} --config FILE --block FILE' (or 'osnadmin channel join \
                 --channelID {channel} --config-block FILE -o ADMIN-ENDPOINT') first; then run the same command again",
                document.display()
            ),
            FabricError::Stranger { .. } => "only the agreement's parties join its channel; name another document, or another member".into(),
            FabricError::OtherMsp { .. } => "correct ledger.msp_id in charter.toml, or the agreement".into(),
            FabricError::Definition { .. } => {
                "a definition is changed by the next sequence: agree on it with the others, put version and sequence in the document, and run \
                 the same command again"
                    .into()
            }
            FabricError::Orderers { last, .. } => last.next(),
            FabricError::Missing(_) | FabricError::File { .. } | FabricError::ConfigTx { .. } | FabricError::NotDone { .. } => {
                "mend it and run the same command again: it goes on where it stopped".into()
            }
        }
    }
}

/// What to do where the orderers don't have the channel.
const NOBODY_SERVES: &str = "no orderer serves the channel yet: an organisation that runs orderers has to run 'charter channel join FILE \
                             --config FILE --block FILE' (or osnadmin channel join …); then run the same command again";

/// What to do about words of Fabric's that users meet.
fn for_words(said: &str) -> &'static str {
    const KNOWN: &[(&str, &str)] = &[
        ("orderer system channel is not defined", NOBODY_SERVES),
        ("can't read the block: &{NOT_FOUND}", NOBODY_SERVES),
        (
            "can't read the block: &{FORBIDDEN}",
            "the channel doesn't know this organisation as your MSP folder has it: name the creator's block with --block, and the same command \
             says where they differ",
        ),
        (
            "connection reset by peer",
            "the node has ended while it was asked: see its log; a peer with «unexpected Previous block hash» there has to leave the channel, \
             as docs/channels.md describes",
        ),
        (
            "is not an admin",
            "fabric.admin_msp has to be the folder of an identity with the role admin (NodeOUs)",
        ),
        (
            "access denied",
            "fabric.admin_msp has to be an administrator of this organisation; compare ledger.msp_id with the channel document",
        ),
        (
            "creator org unknown",
            "this organisation is not in the channel: compare ledger.msp_id with the channel document",
        ),
        (
            "certificate signed by unknown authority",
            "a TLS authority is wrong: compare tlscacerts/ of the MSP folders and tls in [fabric] with what the nodes use",
        ),
        (
            "certificate is valid for",
            "the node's TLS certificate doesn't name the host in the channel document: use a name that it holds",
        ),
        (
            "certificate required",
            "the node asks for a client certificate: set peer_tls, orderer_tls or orderers.tls in [fabric]",
        ),
        (
            "context deadline exceeded",
            "see whether the node answers at its address in the channel document, and run the same command again",
        ),
        (
            "connection refused",
            "start the node, or correct its address in the channel document or in [fabric]; then run the same command again",
        ),
        (
            "chaincode definition not agreed to by this org",
            "that member has approved another definition: compare version and sequence in your channel documents",
        ),
    ];
    KNOWN.iter().find(|(text, _)| said.contains(text)).map_or(
        "mend what it says and run the same command again: it goes on where it stopped",
        |(_, next)| next,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_fabrics_that_help_nobody_are_explained() {
        let undefined = "Error: proposal failed: BAD_REQUEST: channel creation request not allowed because the orderer system channel is \
                         not defined";
        for said in [undefined, "Error: can't read the block: &{NOT_FOUND}"] {
            assert!(for_words(said).contains("no orderer serves the channel yet"), "{said}");
        }
        let reset = "Error: rpc error: code = Unavailable desc = read tcp: connection reset by peer";
        assert!(for_words(reset).contains("see its log"));
    }

    #[test]
    fn orderers_that_settle_are_tried_again_and_others_are_not() {
        let orderers = |said: &str| FabricError::Orderers {
            tried: Vec::new(),
            last: Box::new(FabricError::Tool {
                tool: Tool::Peer,
                call: String::new(),
                status: String::new(),
                said: said.into(),
            }),
        };
        assert!(orderers("Error: can't read the block: &{SERVICE_UNAVAILABLE}").passing());
        assert!(!orderers("Error: can't read the block: &{FORBIDDEN}").passing());
    }
}
