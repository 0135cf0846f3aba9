//! The chaincode on a channel: installed on this organisation's peers, approved by it, and committed when enough have approved.

use async_trait::async_trait;

use super::{Missing, Standing, Step};
use crate::fabric::address::Address;
use crate::fabric::answers::{self, CommittedDefinitions, Readiness};
use crate::fabric::document::MemberSite;
use crate::fabric::error::FabricError;
use crate::fabric::site::Site;
use crate::fabric::tools::Call;

/// The package is on one of this organisation's peers.
pub(super) struct Installed {
    pub(super) peer: Address,
    pub(super) package_id: String,
}

#[async_trait]
impl Step for Installed {
    fn name(&self) -> String {
        format!("package on {}", self.peer)
    }

    async fn look(&self, site: &Site) -> Result<Standing, FabricError> {
        let call = site
            .peer(&["lifecycle", "chaincode", "queryinstalled"], &self.peer)?
            .option("-O", "json");
        let installed: answers::Installed = answers::json(&call, &site.tools.run(&call).await?)?;
        let found = installed
            .installed_chaincodes
            .iter()
            .any(|package| package.package_id == self.package_id);
        Ok(if found {
            Standing::Done(format!("{} is installed", short(&self.package_id)))
        } else {
            Standing::Open(format!("{} is not installed", short(&self.package_id)))
        })
    }

    async fn act(&self, site: &Site) -> Result<(), FabricError> {
        for call in self.calls(site)? {
            site.tools.run(&call).await?;
        }
        Ok(())
    }

    fn calls(&self, site: &Site) -> Result<Vec<Call>, FabricError> {
        let call = site.peer(&["lifecycle", "chaincode", "install"], &self.peer)?;
        Ok(vec![call.word(site.package()?)])
    }
}

/// This organisation has approved the definition, with its own package.
pub(super) struct Approved {
    pub(super) package_id: String,
}

#[async_trait]
impl Step for Approved {
    fn name(&self) -> String {
        "approval".into()
    }

    async fn look(&self, site: &Site) -> Result<Standing, FabricError> {
        // A definition that was followed by another one, or that the others made otherwise, can't be approved any more.
        committed(site).await?;
        let call = site
            .peer(&["lifecycle", "chaincode", "queryapproved"], &site.first_peer()?)?
            .option("-C", site.channel().as_str())
            .option("-n", ::chaincode::NAME)
            .option("--sequence", site.document.chaincode.sequence.to_string())
            .option("-O", "json");
        let said = match site.tools.run(&call).await {
            Ok(said) => said,
            Err(error)
                if error
                    .said()
                    .is_some_and(|said| said.contains("could not fetch approved chaincode definition")) =>
            {
                return Ok(Standing::Open("not approved".into()));
            }
            Err(error) => return Err(error),
        };
        let approved: answers::Approved = answers::json(&call, &said)?;
        let definition = &site.document.chaincode;
        Ok(if approved.version != definition.version {
            Standing::Open(format!("approved in version {}", approved.version))
        } else if approved.package_id() != Some(self.package_id.as_str()) {
            Standing::Open("approved with another package".into())
        } else {
            Standing::Done(format!(
                "version {}, sequence {}, with {}",
                definition.version,
                definition.sequence,
                short(&self.package_id)
            ))
        })
    }

    async fn act(&self, site: &Site) -> Result<(), FabricError> {
        site.ordered(&self.call(site)?).await
    }

    fn calls(&self, site: &Site) -> Result<Vec<Call>, FabricError> {
        let mut calls = vec![site.package_id_call()?];
        calls.extend(first_way(site, &self.call(site)?)?);
        Ok(calls)
    }
}

impl Approved {
    fn call(&self, site: &Site) -> Result<Call, FabricError> {
        let call = site.peer(&["lifecycle", "chaincode", "approveformyorg"], &site.first_peer()?)?;
        Ok(defined(site, call).option("--package-id", self.package_id.clone()))
    }
}

/// The definition is the channel's.
pub(super) struct Committed;

#[async_trait]
impl Step for Committed {
    fn name(&self) -> String {
        "chaincode".into()
    }

    async fn look(&self, site: &Site) -> Result<Standing, FabricError> {
        let definition = &site.document.chaincode;
        let stands = format!("version {}, sequence {}", definition.version, definition.sequence);
        if committed(site).await? {
            return Ok(Standing::Done(format!("{stands} is committed")));
        }
        let (approving, missing) = approvals(site).await?;
        let enough = site.document.enough();
        let names = |sites: &[&MemberSite]| sites.iter().map(|site| site.member.to_string()).collect::<Vec<_>>().join(", ");
        let have = format!(
            "{stands}: {} of {} members have approved, {enough} have to",
            approving.len(),
            site.document.members.len()
        );
        if approving.len() >= enough {
            return Ok(Standing::Open(have));
        }
        let waiting = missing.iter().map(|site| Missing {
            member: site.member.clone(),
            msp: site.msp_id.clone(),
        });
        Ok(Standing::Waiting(
            format!("{have}; still to approve: {}", names(&missing)),
            waiting.collect(),
        ))
    }

    async fn act(&self, site: &Site) -> Result<(), FabricError> {
        let (mut endorsing, _) = approvals(site).await?;
        // This organisation's peer first: it answers for sure.
        endorsing.sort_by_key(|other| other.msp_id != site.msp_id);
        let enough = site.document.enough();
        loop {
            let asked: Vec<&MemberSite> = endorsing.iter().take(enough).copied().collect();
            let error = match site.ordered(&commit_call(site, &asked)?).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // A peer that can't be reached is left out, as long as enough others have approved.
            let away = error.said().and_then(|said| {
                asked
                    .iter()
                    .position(|other| other.peers.iter().any(|peer| said.contains(&peer.to_string())))
            });
            match away {
                Some(index) if endorsing.len() > enough => drop(endorsing.remove(index)),
                _ => return Err(error),
            }
        }
    }

    fn calls(&self, site: &Site) -> Result<Vec<Call>, FabricError> {
        let members: Vec<&MemberSite> = site.document.members.iter().take(site.document.enough()).collect();
        first_way(site, &commit_call(site, &members)?)
    }
}

/// Whether the document's definition is the channel's. Another one than it can follow on is an error.
async fn committed(site: &Site) -> Result<bool, FabricError> {
    let call = site
        .peer(&["lifecycle", "chaincode", "querycommitted"], &site.first_peer()?)?
        .option("-C", site.channel().as_str())
        .option("-O", "json");
    let definitions: CommittedDefinitions = answers::json(&call, &site.tools.run(&call).await?)?;
    let wanted = &site.document.chaincode;
    let mut ours = definitions.chaincode_definitions.into_iter();
    let Some(present) = ours.find(|definition| definition.name == ::chaincode::NAME) else {
        return Ok(false);
    };
    if present.sequence == wanted.sequence && present.version == wanted.version {
        return Ok(true);
    }
    if present.sequence.checked_add(1) == Some(wanted.sequence) {
        return Ok(false);
    }
    Err(FabricError::Definition {
        name: ::chaincode::NAME,
        found: present.version.chars().take(80).collect(),
        sequence: present.sequence,
        wanted: wanted.version.clone(),
        wanted_sequence: wanted.sequence,
    })
}

/// Who has approved the document's definition, and who hasn't, in the document's order.
async fn approvals(site: &Site) -> Result<(Vec<&MemberSite>, Vec<&MemberSite>), FabricError> {
    let call = site.peer(&["lifecycle", "chaincode", "checkcommitreadiness"], &site.first_peer()?)?;
    let call = defined(site, call).option("-O", "json");
    let readiness: Readiness = answers::json(&call, &site.tools.run(&call).await?)?;
    let approved = |member: &&MemberSite| readiness.approvals.get(member.msp_id.as_str()) == Some(&true);
    Ok(site.document.members.iter().partition(approved))
}

fn commit_call(site: &Site, endorsing: &[&MemberSite]) -> Result<Call, FabricError> {
    let call = site.peer(&["lifecycle", "chaincode", "commit"], &site.first_peer()?)?;
    let mut call = defined(site, call);
    for member in endorsing {
        let peer = if member.msp_id == site.msp_id {
            Some(site.first_peer()?)
        } else {
            member.peers.first().cloned()
        };
        if let Some(peer) = peer {
            call = call
                .option("--peerAddresses", peer.to_string())
                .option("--tlsRootCertFiles", member.msp.tls_ca.clone());
        }
    }
    Ok(call)
}

/// The definition that every member approves.
fn defined(site: &Site, call: Call) -> Call {
    call.option("-C", site.channel().as_str())
        .option("-n", ::chaincode::NAME)
        .option("-v", site.document.chaincode.version.clone())
        .option("--sequence", site.document.chaincode.sequence.to_string())
}

/// A call through the first orderer, for people.
fn first_way(site: &Site, call: &Call) -> Result<Vec<Call>, FabricError> {
    let first = site.document.orderer_nodes().next();
    Ok(first.map(|(orderer, node)| site.through(call, orderer, node)).into_iter().collect())
}

/// A package id with the beginning of its digest.
fn short(package_id: &str) -> String {
    match package_id.split_once(':') {
        Some((label, digest)) => format!("{label}:{}", digest.get(..12).unwrap_or(digest)),
        None => package_id.to_owned(),
    }
}
