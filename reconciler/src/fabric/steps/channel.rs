//! The block, the orderers, and the peers of a channel.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Standing, Step};
use crate::fabric::address::Address;
use crate::fabric::answers;
use crate::fabric::block::FirstBlock;
use crate::fabric::error::FabricError;
use crate::fabric::settings::OrdererAdmin;
use crate::fabric::site::{Site, file};
use crate::fabric::tools::Call;

/// The channel's first block is made, from the document.
pub(super) struct BlockMade;

#[async_trait]
impl Step for BlockMade {
    fn name(&self) -> String {
        "first block".into()
    }

    async fn look(&self, site: &Site) -> Result<Standing, FabricError> {
        at_hand(site).await
    }

    async fn act(&self, site: &Site) -> Result<(), FabricError> {
        // A block that was lost here, or that somebody else made, may be in use already; a second one with the same name would be
        // another channel, and a peer that joined it would end at the first block of the real one.
        for orderer in &site.settings.orderers {
            if orderer_has(site, orderer).await? {
                return fetch(site).await;
            }
        }
        let next = next_to(site);
        match served(site, &next).await? {
            Served::Block(_) => return take(site, &next).await,
            Served::Nobody => {}
            Served::Unknown(error) => return Err(error),
        }
        site.tools.run(&site.configtxgen(&next)).await?;
        keep(site, &next)
    }

    fn calls(&self, site: &Site) -> Result<Vec<Call>, FabricError> {
        Ok(vec![site.configtxgen(&site.block)])
    }
}

/// The channel's first block is here, and is what the document says.
pub(super) struct BlockAtHand;

#[async_trait]
impl Step for BlockAtHand {
    fn name(&self) -> String {
        "first block".into()
    }

    async fn look(&self, site: &Site) -> Result<Standing, FabricError> {
        at_hand(site).await
    }

    async fn act(&self, site: &Site) -> Result<(), FabricError> {
        fetch(site).await
    }

    fn calls(&self, site: &Site) -> Result<Vec<Call>, FabricError> {
        let fetching = fetch_calls(site, &site.block)?;
        Ok(fetching.into_iter().take(1).collect())
    }
}

/// Whether the block is here; one that is here has to be the right one, and the one that the orderers serve.
async fn at_hand(site: &Site) -> Result<Standing, FabricError> {
    if !site.block.exists() {
        return Ok(Standing::Open(format!("{} is not there", site.block.display())));
    }
    let block = check(site, &site.block).await?;
    // Orderers that can't be asked, or don't have it yet, hold up nothing here: they are asked again before any node joins.
    in_use(site).await?;
    Ok(Standing::Done(format!("{}, hash {}", site.block.display(), block.fingerprint())))
}

/// What the orderers serve as the channel's first block, beside the block at hand.
async fn in_use(site: &Site) -> Result<Served, FabricError> {
    let held = FirstBlock::read(&site.block, site.channel())?;
    let path = site.folder.join(".served.block");
    let served = served(site, &path).await;
    let _ = std::fs::remove_file(&path);
    match served? {
        Served::Block(block) if block.fingerprint() != held.fingerprint() => Err(FabricError::OtherBlock {
            channel: site.channel().clone(),
            served: block.fingerprint(),
            path: site.block.clone(),
            held: held.fingerprint(),
        }),
        served => Ok(served),
    }
}

/// What the orderers of the document have as the channel's first block.
enum Served {
    /// One of them serves this one, and it is in the file that was asked for.
    Block(FirstBlock),
    /// All of them answer, and none serves the channel.
    Nobody,
    /// None that answers serves it, and this is what another one said instead of an answer.
    Unknown(FabricError),
}

/// Asks the orderers one after the other, until one has the block.
async fn served(site: &Site, into: &Path) -> Result<Served, FabricError> {
    let mut tried = Vec::new();
    let mut last = None;
    for (call, node) in fetch_calls(site, into)?.iter().zip(site.document.orderer_nodes()) {
        match site.tools.run(call).await {
            Ok(_) => return FirstBlock::read(into, site.channel()).map(Served::Block),
            Err(error) if error.said().is_some_and(|said| said.contains("NOT_FOUND")) => {}
            // Without the tool, nothing at all is known of any of them.
            Err(error @ (FabricError::NoTool { .. } | FabricError::Start { .. })) => return Err(error),
            Err(error) => {
                tried.push(node.1.address.clone());
                last = Some(error);
            }
        }
    }
    Ok(match last {
        Some(error) => Served::Unknown(FabricError::Orderers {
            tried,
            last: Box::new(error),
        }),
        None => Served::Nobody,
    })
}

async fn check(site: &Site, path: &Path) -> Result<FirstBlock, FabricError> {
    let block = FirstBlock::read(path, site.channel())?;
    let expected = site.expected().await?;
    block.compare(&expected).map_err(|source| FabricError::Block {
        path: path.to_owned(),
        source,
    })?;
    Ok(block)
}

fn next_to(site: &Site) -> PathBuf {
    let mut name = std::ffi::OsString::from(".next-");
    name.push(site.block.file_name().unwrap_or_default());
    site.block.with_file_name(name)
}

/// Checks a new block and gives it its name, once it is on disk.
fn keep(site: &Site, next: &Path) -> Result<(), FabricError> {
    FirstBlock::read(next, site.channel())?;
    std::fs::File::open(next)
        .and_then(|block| block.sync_all())
        .map_err(file("flush", next))?;
    std::fs::rename(next, &site.block).map_err(file("write", &site.block))
}

fn fetch_calls(site: &Site, into: &Path) -> Result<Vec<Call>, FabricError> {
    let call = site.peer(&["channel", "fetch", "0"], &site.first_peer()?)?;
    // An orderer that waits for others to join has the block already, and gives it only this way.
    let call = call.word(into).option("-c", site.channel().as_str()).word("--bestEffort");
    let nodes = site.document.orderer_nodes();
    Ok(nodes.map(|(orderer, node)| site.through(&call, orderer, node)).collect())
}

/// Gets the block from an orderer that has it.
async fn fetch(site: &Site) -> Result<(), FabricError> {
    let next = next_to(site);
    match served(site, &next).await? {
        Served::Block(_) => take(site, &next).await,
        Served::Nobody => Err(not_served(site)),
        Served::Unknown(error) => Err(error),
    }
}

/// Takes a block that an orderer serves, if it is what the document says.
async fn take(site: &Site, next: &Path) -> Result<(), FabricError> {
    check(site, next).await?;
    keep(site, next)
}

fn not_served(site: &Site) -> FabricError {
    FabricError::NotServed {
        channel: site.channel().clone(),
        document: site.document.path.clone(),
    }
}

/// One of this organisation's orderer nodes serves the channel.
pub(super) struct OrdererJoined {
    pub(super) orderer: OrdererAdmin,
}

async fn orderer_has(site: &Site, orderer: &OrdererAdmin) -> Result<bool, FabricError> {
    let call = site.osnadmin(&["channel", "list"], orderer);
    let answer = answers::http(&call, &site.tools.run(&call).await?)?;
    match answer.status {
        200 => Ok(true),
        404 => Ok(false),
        _ => Err(refused(&call, &answer)),
    }
}

fn refused(call: &Call, answer: &answers::Http) -> FabricError {
    FabricError::Tool {
        tool: call.tool,
        call: call.to_string(),
        status: format!("HTTP status {}", answer.status),
        said: answer.error.clone().unwrap_or_else(|| "nothing".into()),
    }
}

#[async_trait]
impl Step for OrdererJoined {
    fn name(&self) -> String {
        format!("orderer {}", self.orderer.admin)
    }

    fn is_one_of_several(&self) -> bool {
        true
    }

    async fn look(&self, site: &Site) -> Result<Standing, FabricError> {
        Ok(if orderer_has(site, &self.orderer).await? {
            Standing::Done("serves the channel".into())
        } else {
            Standing::Open("doesn't serve the channel".into())
        })
    }

    async fn act(&self, site: &Site) -> Result<(), FabricError> {
        // A second first block would split the orderers.
        if let Served::Unknown(error) = in_use(site).await? {
            return Err(error);
        }
        for call in self.calls(site)? {
            let answer = answers::http(&call, &site.tools.run(&call).await?)?;
            // 405: it was joined by somebody else since the look.
            if !(200..300).contains(&answer.status) && answer.status != 405 {
                return Err(refused(&call, &answer));
            }
        }
        Ok(())
    }

    fn calls(&self, site: &Site) -> Result<Vec<Call>, FabricError> {
        let call = site.osnadmin(&["channel", "join"], &self.orderer);
        Ok(vec![call.option("--config-block", site.block.clone())])
    }
}

/// One of this organisation's peers has joined.
pub(super) struct PeerJoined {
    pub(super) peer: Address,
}

#[async_trait]
impl Step for PeerJoined {
    fn name(&self) -> String {
        format!("peer {}", self.peer)
    }

    async fn look(&self, site: &Site) -> Result<Standing, FabricError> {
        let call = site.peer(&["channel", "list"], &self.peer)?;
        let joined = answers::joined(&call, &site.tools.run(&call).await?)?;
        Ok(if joined.iter().any(|name| name == site.channel().as_str()) {
            Standing::Done("has joined".into())
        } else {
            Standing::Open("has not joined".into())
        })
    }

    async fn act(&self, site: &Site) -> Result<(), FabricError> {
        // A peer that has joined a block that isn't the orderers' ends at the next one, in all its channels.
        match in_use(site).await? {
            Served::Block(_) => {}
            Served::Nobody => return Err(not_served(site)),
            Served::Unknown(error) => return Err(error),
        }
        for call in self.calls(site)? {
            site.tools.run(&call).await?;
        }
        Ok(())
    }

    fn calls(&self, site: &Site) -> Result<Vec<Call>, FabricError> {
        let call = site.peer(&["channel", "join"], &self.peer)?;
        Ok(vec![call.option("-b", site.block.clone())])
    }
}
