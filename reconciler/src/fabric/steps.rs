//! The way from a channel document to a channel with a running chaincode, step by step.
//!
//! Every step looks first whether it is done, and is carried out only if it isn't: what was done before a failure is not done again.

mod chaincode;
mod channel;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use state::ids::{Channel, MemberId, MspId};

use self::chaincode::{Approved, Committed, Installed};
use self::channel::{BlockAtHand, BlockMade, OrdererJoined, PeerJoined};
use super::error::FabricError;
use super::site::{Site, UNKNOWN_PACKAGE};
use super::tools::Call;

/// The longest that a network is given to settle: to elect a leader, or to hear of an approval.
const SETTLING: Duration = Duration::from_secs(60);
/// How long to wait between two looks at a network that is settling.
const BETWEEN: Duration = Duration::from_millis(500);

/// How a step stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// There is nothing to do.
    Done(String),
    /// It can be carried out.
    Open(String),
    /// Others have to do something first.
    Waiting(String, Vec<Missing>),
}

/// One step.
#[async_trait]
trait Step: Send + Sync {
    /// What it is called.
    fn name(&self) -> String;
    /// Looks how it stands; changes nothing.
    async fn look(&self, site: &Site) -> Result<Standing, FabricError>;
    /// Carries it out.
    async fn act(&self, site: &Site) -> Result<(), FabricError>;
    /// Whether the steps after it can be carried out without it: one node of several.
    fn is_one_of_several(&self) -> bool {
        false
    }
    /// The commands that carry it out, for people.
    fn calls(&self, site: &Site) -> Result<Vec<Call>, FabricError>;
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It was done before.
    Already,
    /// It was done now.
    Done,
    /// Others have to do something first.
    Waiting,
    /// It failed; the steps after it were carried out.
    Failed,
}

/// One step that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// Its name.
    pub step: String,
    /// How it ended.
    pub ended: Ended,
    /// How it stands.
    pub detail: String,
}

/// A member whose word is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The member.
    pub member: MemberId,
    /// Its MSP id.
    pub msp: MspId,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The channel.
    pub channel: Channel,
    /// The hash of the first block's header; members compare it with each other.
    pub first_block: String,
    /// Every step.
    pub steps: Vec<StepReport>,
    /// The id of this organisation's chaincode package, once it is approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_id: Option<String>,
    /// Who has to approve before the chaincode can be committed; nobody when all is done.
    pub missing: Vec<Missing>,
}

/// What would be run, and the file that it would be made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rehearsal {
    /// The text of `configtx.yaml`.
    pub configtx: String,
    /// Each step's name with its commands, as one types them in a shell.
    pub commands: Vec<(String, Vec<String>)>,
}

/// Which of the two ways is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The channel's first block is made, and this organisation's orderers join.
    Create,
    /// The block is checked, this organisation's nodes join, and the chaincode is approved and committed.
    Join,
}

/// Says what would be run, and runs and writes nothing.
pub fn rehearse(site: &Site, way: Way) -> Result<Rehearsal, FabricError> {
    let mut steps = first_steps(site, way);
    if way == Way::Join {
        steps.extend(peer_steps(site)?);
        steps.extend(chaincode_steps(site, UNKNOWN_PACKAGE)?);
    }
    let mut commands = Vec::new();
    for step in steps {
        let calls = step.calls(site)?;
        commands.push((step.name(), calls.iter().map(Call::with_environment).collect()));
    }
    Ok(Rehearsal {
        configtx: site.configtx()?,
        commands,
    })
}

/// Makes the channel's first block from the members' public MSP folders, and has this organisation's orderer nodes join.
pub async fn create(site: &Site, tell: impl FnMut(&StepReport) + Send) -> Result<Outcome, FabricError> {
    site.prepare()?;
    let mut walk = Walk::new(site, tell);
    walk.take(&first_steps(site, Way::Create)).await?;
    walk.outcome(None)
}

/// Checks the channel's first block, has this organisation's nodes join, and approves and commits the chaincode.
pub async fn join(site: &Site, tell: impl FnMut(&StepReport) + Send) -> Result<Outcome, FabricError> {
    // What is missing here is said before anything is joined.
    site.package()?;
    site.prepare()?;
    let mut walk = Walk::new(site, tell);
    walk.take(&first_steps(site, Way::Join)).await?;
    walk.take(&peer_steps(site)?).await?;
    let package_id = site.package_id().await?;
    walk.take(&chaincode_steps(site, &package_id)?).await?;
    walk.outcome(Some(package_id))
}

type Steps = Vec<Box<dyn Step>>;

fn first_steps(site: &Site, way: Way) -> Steps {
    let block: Box<dyn Step> = match way {
        Way::Create => Box::new(BlockMade),
        Way::Join => Box::new(BlockAtHand),
    };
    let orderers = site.settings.orderers.iter().cloned();
    let orderers = orderers.map(|orderer| Box::new(OrdererJoined { orderer }) as Box<dyn Step>);
    std::iter::once(block).chain(orderers).collect()
}

fn peer_steps(site: &Site) -> Result<Steps, FabricError> {
    let peers = site.peers()?.into_iter();
    Ok(peers.map(|peer| Box::new(PeerJoined { peer }) as Box<dyn Step>).collect())
}

fn chaincode_steps(site: &Site, package_id: &str) -> Result<Steps, FabricError> {
    let mut steps: Steps = Vec::new();
    for peer in site.peers()? {
        let package_id = package_id.to_owned();
        steps.push(Box::new(Installed { peer, package_id }));
    }
    let package_id = package_id.to_owned();
    steps.push(Box::new(Approved { package_id }));
    steps.push(Box::new(Committed));
    Ok(steps)
}

/// Steps on their way, one after the other.
struct Walk<'a, T> {
    site: &'a Site,
    tell: T,
    reports: Vec<StepReport>,
    missing: Vec<Missing>,
    failed: Option<FabricError>,
}

impl<'a, T: FnMut(&StepReport) + Send> Walk<'a, T> {
    fn new(site: &'a Site, tell: T) -> Self {
        Self {
            site,
            tell,
            reports: Vec::new(),
            missing: Vec::new(),
            failed: None,
        }
    }

    async fn take(&mut self, steps: &Steps) -> Result<(), FabricError> {
        for step in steps {
            let (ended, detail, missing) = match walk(step.as_ref(), self.site).await {
                Ok(walked) => walked,
                Err(error) if step.is_one_of_several() => {
                    let detail = error.to_string().lines().next().unwrap_or_default().to_owned();
                    self.failed.get_or_insert(error);
                    (Ended::Failed, detail, Vec::new())
                }
                Err(error) => return Err(error),
            };
            self.missing.extend(missing);
            let report = StepReport {
                step: step.name(),
                ended,
                detail,
            };
            (self.tell)(&report);
            self.reports.push(report);
        }
        Ok(())
    }

    fn outcome(self, package_id: Option<String>) -> Result<Outcome, FabricError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let block = super::block::FirstBlock::read(&self.site.block, self.site.channel())?;
        Ok(Outcome {
            channel: self.site.channel().clone(),
            first_block: block.fingerprint(),
            steps: self.reports,
            package_id,
            missing: self.missing,
        })
    }
}

/// Looks, carries out what is open, and looks again. A network that is settling is given its time.
async fn walk(step: &dyn Step, site: &Site) -> Result<(Ended, String, Vec<Missing>), FabricError> {
    let until = Instant::now() + SETTLING.min(site.tools.timeout());
    let mut carried_out = false;
    loop {
        match step.look(site).await? {
            Standing::Done(detail) if carried_out => return Ok((Ended::Done, detail, Vec::new())),
            Standing::Done(detail) => return Ok((Ended::Already, detail, Vec::new())),
            Standing::Waiting(detail, missing) => return Ok((Ended::Waiting, detail, missing)),
            Standing::Open(state) if carried_out && Instant::now() >= until => {
                return Err(FabricError::NotDone { step: step.name(), state });
            }
            Standing::Open(_) if carried_out => {}
            Standing::Open(_) => match step.act(site).await {
                Ok(()) => {
                    carried_out = true;
                    continue;
                }
                Err(error) if error.passing() && Instant::now() < until => {
                    tracing::debug!(step = step.name(), error = %error, "the network is settling; trying again");
                }
                // A tool may fail after its work, or because it was done meanwhile: by a tool that outlived the run before this one,
                // or by another member. What is so counts.
                Err(error) => match step.look(site).await {
                    Ok(Standing::Done(detail)) => {
                        tracing::warn!(step = step.name(), error = %error, "a tool failed, and what it was for is so");
                        return Ok((Ended::Done, detail, Vec::new()));
                    }
                    _ => return Err(error),
                },
            },
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

#[cfg(test)]
mod tests;
