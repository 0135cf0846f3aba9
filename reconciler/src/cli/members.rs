//! `members`: who takes part in a market, as what, and which members are DAOs.

use std::collections::BTreeSet;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use state::acts::accounts::{Representation, RepresentationRecord};
use state::agreement::Role;
use state::canonical::Digest;
use state::ids::{Channel, DaoId, MemberId, MspId, Version};

use super::error::{CliError, Doing, Exit};
use super::market::{Seen, close, floor, in_force};
use super::{Format, Global, output};
use crate::market;

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// Registers on the market; publishing an offer does it too.
    Register {
        /// What the member brings.
        #[arg(long)]
        role: Brings,
    },
    /// Says which DAO the member is; it counts once every member that the DAO's agreement names has said the same.
    Represent(Represent),
    /// Stands for a member that says to be a DAO of one's own.
    Vouch {
        /// The member that says to be a DAO.
        #[arg(value_name = "MEMBER")]
        of: MemberId,
        /// The channel of the DAO's agreement, which one's own store has.
        agreement: Channel,
    },
}

/// What a member brings.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Brings {
    /// Owns the data.
    DataServiceProvider,
    /// Adds a service above it.
    ValueServiceProvider,
}

impl From<Brings> for Role {
    fn from(brings: Brings) -> Self {
        match brings {
            Brings::DataServiceProvider => Role::DataServiceProvider,
            Brings::ValueServiceProvider => Role::ValueServiceProvider,
        }
    }
}

/// A DAO, as the member that is it says.
#[derive(Debug, Args)]
pub(crate) struct Represent {
    /// The DAO.
    dao: DaoId,
    /// Its version.
    #[arg(long = "dao-version", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
    /// The digest of its agreement.
    #[arg(long, value_name = "DIGEST")]
    agreement: Digest,
    /// The members that its agreement names.
    #[arg(long, value_name = "NAME", value_delimiter = ',', required = true)]
    of: Vec<MemberId>,
}

/// Runs a command of members; without one it lists them.
pub(crate) async fn run(global: &Global, command: Option<MembersCommand>) -> Result<Exit, CliError> {
    let Some(command) = command else {
        return list(global);
    };
    let floor = floor(global).await?;
    let said = match command {
        MembersCommand::Register { role } => floor.voice().enter(role.into()).await,
        MembersCommand::Represent(said) => {
            let representation = Representation {
                dao: said.dao,
                version: Version(said.version),
                agreement: said.agreement,
                members: said.of.into_iter().collect::<BTreeSet<_>>(),
            };
            floor.voice().represent(&representation).await
        }
        MembersCommand::Vouch { of, agreement } => {
            let standing = in_force(&floor.config, &agreement)?;
            let representation = market::representation(&standing).doing(format!("the agreement of {agreement} can't be digested"))?;
            floor.voice().vouch(&of, representation).await
        }
    };
    close(floor, said.map(|one| vec![one]), "it").await
}

/// A member's account.
#[derive(Serialize)]
struct Account<'a> {
    member: &'a MemberId,
    role: Role,
    msp: &'a MspId,
    /// The DAO that it says to be.
    dao: Option<Dao<'a>>,
}

#[derive(Serialize)]
struct Dao<'a> {
    #[serde(flatten)]
    record: &'a RepresentationRecord,
    /// Whether every member that the agreement names stands for it.
    counts: bool,
}

fn list(global: &Global) -> Result<Exit, CliError> {
    let seen = Seen::read(global)?;
    let accounts: Vec<Account<'_>> = seen
        .desired
        .members()
        .iter()
        .map(|(member, record)| {
            let dao: Option<&RepresentationRecord> = seen.desired.records().of(member.as_str());
            Account {
                member,
                role: record.role,
                msp: &record.msp,
                dao: dao.map(|record| Dao {
                    record,
                    counts: record.counts(),
                }),
            }
        })
        .collect();
    if global.output == Format::Json {
        output::json(&accounts)?;
        return Ok(Exit::Clean);
    }
    let rows = accounts.iter().map(|account| {
        let dao = account.dao.as_ref().map_or_else(
            || "-".into(),
            |dao| {
                let said = &dao.record.representation;
                let standing = format!("{} of {} stand for it", dao.record.vouched.len(), said.members.len());
                let counts = if dao.counts { "" } else { ", which does not count yet" };
                format!("{} v{}: {standing}{counts}", said.dao, said.version)
            },
        );
        vec![account.member.to_string(), account.role.to_string(), account.msp.to_string(), dao]
    });
    output::table(&["member", "role", "msp", "is a dao"], rows.collect());
    Ok(Exit::Clean)
}
