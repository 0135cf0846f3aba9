//! The `charter` command: what it takes, and which file does it.

mod access;
mod agreed;
mod approvals;
mod chaincode;
mod channel;
mod down;
mod error;
mod floor;
mod handover;
mod history;
mod hosts;
mod import;
mod ledger;
mod life;
mod market;
mod members;
mod negotiate;
mod offers;
mod output;
mod pause;
mod plan;
mod progress;
mod render;
mod replay;
mod reputation;
mod schema;
mod serve;
mod shares;
mod standing;
mod status;
mod story;
mod submit;
mod targets;
mod tfc_server;
mod thaw;
mod transfer;
mod up;
mod verify;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use state::ids::{Channel, MemberId, ResourceName};

use crate::demo::Demo;
use error::{CliError, Exit};

/// Turns what organisations agree on a ledger into running infrastructure, and keeps it so.
#[derive(Debug, Parser)]
#[command(name = "charter", version, disable_version_flag = true, propagate_version = false)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What is logged where nobody says otherwise.
const LOG: &str = "warn,embedded::server=error";

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The folder that `up` keeps everything in.
    #[arg(long, global = true, default_value = ".charter", value_name = "DIR")]
    data_dir: PathBuf,
    /// A member's configuration, instead of the members below the data directory.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "member")]
    config: Option<PathBuf>,
    /// Only this member's Charter.
    #[arg(long, global = true, value_name = "NAME")]
    member: Option<MemberId>,
    /// Only this channel.
    #[arg(long, global = true, value_name = "NAME")]
    channel: Option<Channel>,
    /// How to print what was found.
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,
    /// What to log on standard error: error, warn, info, debug, or a filter such as ledger_sync=debug.
    #[arg(
        long,
        global = true,
        env = "CHARTER_LOG",
        default_value = LOG,
        value_name = "FILTER"
    )]
    log: String,
}

/// How to print what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts an embedded ledger and one Charter for each member of an example, and makes what they order.
    Up {
        /// The example's folder (default: the one that the data directory was made from, or examples/smart-city).
        example: Option<PathBuf>,
        /// Stop when everything has converged, or when the story has ended.
        #[arg(long)]
        once: bool,
        /// Play the example's story from nothing: how its members meet, agree, grow, part, and what is left.
        #[arg(long)]
        story: bool,
    },
    /// Deletes the resources of an example, and its data directory.
    Down {
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Runs a member's Charter until it is told to stop: follows, plans, applies, heals, reports.
    Serve,
    /// The embedded ledger.
    Ledger {
        #[command(subcommand)]
        command: LedgerCommand,
    },
    /// A server that speaks Terraform Cloud's API, to try things out on this machine.
    TfcServer(tfc_server::TfcServer),
    /// The agreement's program on a Fabric network: serving it, and packaging it.
    Chaincode {
        #[command(subcommand)]
        command: chaincode::ChaincodeCommand,
    },
    /// A DAO version's channel on a Hyperledger Fabric network.
    Channel {
        #[command(subcommand)]
        command: channel::ChannelCommand,
    },
    /// Shows what would be done, and writes nothing anywhere.
    Plan {
        /// What an order, amendment or retirement that is not submitted yet would do.
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Keep the plan in a file, for `apply`.
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        out: Option<PathBuf>,
        /// Exit with 2 when there is something to do.
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Does what a plan says, once.
    Apply {
        /// A plan kept by `plan --out`; it is refused if the world has changed since. Without it: plans, shows and asks.
        plan: Option<PathBuf>,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Shows how every resource stands, and what is owned or unreachable.
    Status,
    /// Shows who ordered what, when: of a channel, or of one resource.
    History {
        /// One resource.
        resource: Option<ResourceName>,
    },
    /// Compares two versions: channels, commits, or CHANNEL@BLOCK. Exits with 2 when they differ.
    Diff {
        /// The older one.
        from: String,
        /// The newer one.
        to: String,
    },
    /// Compares what was applied last with what is there. Never writes. Exits with 2 when something drifted.
    Drift,
    /// Prints the dependency graph of what was ordered, in DOT.
    Graph,
    /// Writes out what is run or sent for the member's resources: Kubernetes manifests that kubectl takes, scripts that a shell takes.
    Render(render::RenderArgs),
    /// Rebuilds the store from the ledger's first block.
    ///
    /// A store that is lost, damaged or another history is replaced, and kept beside the new one; one that is only behind takes in
    /// the rest. The record of what was done here, `actual`, is on no ledger: after a replacement the next pass finds what is owned by
    /// its owner labels.
    Replay {
        /// Only compare commit ids: with the member's own store, or with another repository.
        #[arg(long, value_name = "REPO", num_args = 0..=1, require_equals = true)]
        compare: Option<Option<PathBuf>>,
    },
    /// Checks the chain of evidence: the ledger's blocks, the reports' and the commits' signatures.
    Verify,
    /// Submits an agreement, an order, an amendment, a retirement or an offer to the ledger.
    Submit {
        /// The document, YAML or JSON.
        #[arg(required_unless_present = "pending")]
        file: Option<PathBuf>,
        /// Finds out what became of transactions that were sent without an answer, instead of submitting anything.
        #[arg(long, conflicts_with = "file")]
        pending: bool,
        #[command(flatten)]
        demand: reputation::Demand,
    },
    /// Changes that have to be approved before they are in force: which wait, and saying yes or no.
    Approvals {
        #[command(subcommand)]
        command: approvals::ApprovalsCommand,
    },
    /// Passes on what an exported resource of another channel gives: what a later version needs of an earlier one.
    Import {
        #[command(subcommand)]
        command: import::ImportCommand,
    },
    /// Hands a member's resources over to another version of the DAO: each is carried on as it is, replaced, or retired.
    Handover(handover::HandOverArgs),
    /// Gives what a member owns to another: proposing, approving, accepting.
    Transfer {
        #[command(subcommand)]
        command: transfer::TransferCommand,
    },
    /// Shows when each party was heard of last, and whose silence is abandonment.
    Silence,
    /// Closes the part of a member that is silent for longer than the agreement's grace.
    Close {
        /// The silent member; --member says who closes its part.
        #[arg(value_name = "SILENT")]
        silent: MemberId,
    },
    /// Asks for the end of the agreement; with enough of its parties it has ended.
    End {
        /// Says instead that its date has come; a running service says so by itself.
        #[arg(long)]
        expired: bool,
    },
    /// Proves what became of everything that was retired. Exits with 2 when something is neither destroyed nor kept by agreement.
    Destruction,
    /// Stops applying on a channel; observing and reporting go on.
    Pause,
    /// Goes on applying.
    Resume,
    /// Asks for a pass now.
    Reconcile,
    /// Shares of profit: who owns what, what a newcomer changes, what a profit comes to, and laws of shares compared.
    Shares {
        #[command(subcommand)]
        command: shares::SharesCommand,
    },
    /// Negotiations on a market: how members come to terms that only they can read.
    Negotiate {
        #[command(subcommand)]
        command: negotiate::NegotiateCommand,
    },
    /// What members offer on a market: browsing, publishing, amending, withdrawing.
    Offers {
        #[command(subcommand)]
        command: offers::OffersCommand,
    },
    /// Who takes part in a market, and which members are DAOs.
    Members {
        #[command(subcommand)]
        command: Option<members::MembersCommand>,
    },
    /// What a market knows of its members' agreements: that they are in force, and that they are finished.
    Agreed {
        #[command(subcommand)]
        command: agreed::AgreedCommand,
    },
    /// Rates another party of a finished agreement, once.
    Rate(reputation::Rate),
    /// Shows what members say of each other on a market, and what their reports show.
    Reputation {
        /// Only this member, with each of its ratings.
        #[arg(value_name = "MEMBER")]
        of: Option<MemberId>,
    },
    /// Ends a channel's freezing, once a person has found out why it was frozen; needs --channel.
    Thaw,
    /// Prints the version.
    Version,
    /// Prints a JSON schema: of a document, or of the spec of a kind of resource; without a name, the names of all.
    Schema {
        /// Such as order, or machine/service.
        name: Option<String>,
    },
    /// Runs one of the example's services.
    #[command(hide = true)]
    Demo {
        #[command(subcommand)]
        service: Demo,
    },
    /// Speaks to libvirt for another process of Charter.
    #[command(name = crate::hypervisor::COMMAND, hide = true)]
    LibvirtHelper {
        /// The daemon.
        uri: String,
        /// Tell of what happens there, instead of making calls.
        #[arg(long)]
        events: bool,
    },
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Runs the embedded ledger of a data directory by itself.
    Serve {
        /// Where to listen; loopback (default: the address that the data directory was made with).
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<std::net::SocketAddr>,
        #[command(flatten)]
        chaincode: ledger::External,
    },
}

/// Runs the command line and gives the process's exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A usage error is 1: 2 means «there is a difference».
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(Exit::Error.code())
            };
        }
    };
    logging(match &cli.command {
        // A story says itself what a reader has to know.
        Command::Up { story: true, .. } if cli.global.log == LOG => "error",
        _ => &cli.global.log,
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("charter: cannot start: {error}");
            return ExitCode::from(Exit::Error.code());
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            eprint!("{}", error.render());
            ExitCode::from(Exit::Error.code())
        }
    }
}

async fn run(cli: Cli) -> Result<Exit, CliError> {
    let global = &cli.global;
    match cli.command {
        Command::Up { example, once, story } => {
            let until = if once { up::Until::Converged } else { up::Until::Stopped };
            if story {
                story::run(global, example.as_deref(), until).await
            } else {
                up::run(global, example.as_deref(), until).await
            }
        }
        Command::Down { yes } => down::run(global, error::Consent::given(yes)).await,
        Command::Serve => serve::run(global).await,
        Command::Ledger {
            command: LedgerCommand::Serve { listen, chaincode },
        } => ledger::serve(global, listen, &chaincode).await,
        Command::TfcServer(args) => tfc_server::run(args).await,
        Command::Chaincode { command } => chaincode::run(global, command).await,
        Command::Channel { command } => channel::run(global, command).await,
        Command::Plan {
            file,
            out,
            detailed_exitcode,
        } => {
            let exit = plan::run(global, file.as_deref(), out.as_deref()).await?;
            Ok(if exit == Exit::Difference && !detailed_exitcode {
                Exit::Clean
            } else {
                exit
            })
        }
        Command::Apply { plan, yes } => plan::apply(global, plan.as_deref(), error::Consent::given(yes)).await,
        Command::Status => status::run(global).await,
        Command::History { resource } => history::run(global, resource.as_ref()),
        Command::Diff { from, to } => history::diff(global, &from, &to),
        Command::Drift => plan::drift(global).await,
        Command::Graph => history::graph(global),
        Command::Render(args) => render::run(global, &args).await,
        Command::Replay { compare } => replay::run(global, compare).await,
        Command::Verify => verify::run(global).await,
        Command::Submit {
            file: Some(file), demand, ..
        } => submit::run(global, &file, &demand).await,
        Command::Submit { file: None, .. } => submit::pending(global).await,
        Command::Approvals { command } => approvals::run(global, &command).await,
        Command::Import { command } => import::run(global, &command).await,
        Command::Handover(args) => handover::run(global, &args).await,
        Command::Transfer { command } => transfer::run(global, &command).await,
        Command::Silence => life::silence(global),
        Command::Close { silent } => life::close(global, &silent).await,
        Command::End { expired } => life::end(global, if expired { life::End::Expired } else { life::End::Asked }).await,
        Command::Destruction => life::destruction(global),
        Command::Pause => pause::run(global, pause::Word::Pause).await,
        Command::Resume => pause::run(global, pause::Word::Resume).await,
        Command::Reconcile => pause::run(global, pause::Word::Reconcile).await,
        Command::Shares { command } => shares::run(global, &command).await,
        Command::Negotiate { command } => negotiate::run(global, command).await,
        Command::Offers { command } => offers::run(global, command).await,
        Command::Members { command } => members::run(global, command).await,
        Command::Agreed { command } => agreed::run(global, command).await,
        Command::Rate(rate) => reputation::rate(global, rate).await,
        Command::Reputation { of } => reputation::show(global, of.as_ref()),
        Command::Thaw => thaw::run(global).await,
        Command::Version => {
            output::line(&format!("charter {}", env!("CARGO_PKG_VERSION")));
            Ok(Exit::Clean)
        }
        Command::Schema { name } => schema::run(name.as_deref()),
        Command::LibvirtHelper { uri, events } => {
            use crate::hypervisor::{Part, serve};
            // It blocks for as long as the C library does, and is alone in its process.
            let part = if events { Part::Events } else { Part::Calls };
            serve(&uri, part).map_err(CliError::new)?;
            Ok(Exit::Clean)
        }
        Command::Demo { service } => {
            crate::demo::run(service)
                .await
                .map_err(|error| CliError::new("the service stopped").because(error))?;
            Ok(Exit::Clean)
        }
    }
}

fn logging(filter: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Somebody else may have set one, as tests do.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .try_init();
}
