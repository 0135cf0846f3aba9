//! `offers`: what members offer on a market, found and shown from a member's store, and said by its provider.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use policies::reputation::{Conduct, Score};
use serde::Serialize;
use state::acts::offers::{Offer, OfferKind, OfferRecord};
use state::agreement::Beta;
use state::ids::{MemberId, OfferId, Region};

use super::error::{CliError, Exit};
use super::market::{Seen, close, conduct, floor, in_words, together};
use super::{Format, Global, output};
use crate::document::Document;
use crate::submission::Present;

/// The offers of a page whose size nobody named.
const PAGE: u32 = 50;

/// What to do with offers.
#[derive(Debug, Subcommand)]
pub(crate) enum OffersCommand {
    /// Lists what is offered, page by page.
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        page: Page,
    },
    /// Shows one offer whole, with what is known of its provider.
    Show {
        /// The offer.
        offer: OfferId,
    },
    /// Publishes a new offer.
    Publish(File),
    /// Changes an offer of one's own; the document is the offer as it is from now on.
    Amend(File),
    /// Offers something no more. It stays on the record, and its name is not free again.
    Withdraw {
        /// The offer.
        offer: OfferId,
    },
}

/// Where an offer is written.
#[derive(Debug, Args)]
pub(crate) struct File {
    /// The document of kind Offer, YAML or JSON.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

/// Which offers to list.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only data sets, or only value services.
    #[arg(long, value_parser = kind, value_name = "data-set|value-service")]
    kind: Option<OfferKind>,
    /// Only of this member.
    #[arg(long, value_name = "NAME")]
    provider: Option<MemberId>,
    /// Only with this keyword; several: with all of them.
    #[arg(long = "keyword", value_name = "WORD")]
    keywords: Vec<Region>,
    /// Only what may be in this region: it names the region, or none at all.
    #[arg(long, value_name = "REGION")]
    region: Option<Region>,
    /// Only with at least this β.
    #[arg(long, value_name = "BETA")]
    min_beta: Option<Beta>,
    /// Only with at most this β.
    #[arg(long, value_name = "BETA")]
    max_beta: Option<Beta>,
    /// Withdrawn ones too.
    #[arg(long)]
    all: bool,
}

/// Which part of a list to show.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// How many at most.
    #[arg(long, default_value_t = PAGE, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    limit: u32,
    /// The last offer of the page before.
    #[arg(long, value_name = "OFFER")]
    after: Option<OfferId>,
}

fn kind(word: &str) -> Result<OfferKind, String> {
    let all = [OfferKind::DataSet, OfferKind::ValueService];
    let found = all.into_iter().find(|kind| kind.word() == word);
    found.ok_or_else(|| all.map(OfferKind::word).join(" or "))
}

impl Filter {
    fn fits(&self, record: &OfferRecord) -> bool {
        let offer = &record.offer;
        let beta = offer.terms.beta;
        (self.all || record.withdrawn.is_none())
            && self.kind.is_none_or(|kind| kind == offer.kind)
            && self.provider.as_ref().is_none_or(|provider| *provider == record.provider)
            && self.keywords.iter().all(|word| offer.keywords.contains(word))
            && self
                .region
                .as_ref()
                .is_none_or(|region| offer.terms.regions.is_empty() || offer.terms.regions.contains(region))
            && self.min_beta.is_none_or(|least| beta.is_some_and(|beta| beta >= least))
            && self.max_beta.is_none_or(|most| beta.is_some_and(|beta| beta <= most))
    }
}

/// Runs a command of offers.
pub(crate) async fn run(global: &Global, command: OffersCommand) -> Result<Exit, CliError> {
    match command {
        OffersCommand::List { filter, page } => list(global, &filter, &page),
        OffersCommand::Show { offer } => show(global, &offer),
        OffersCommand::Publish(File { file }) => {
            let offer = read(&file)?;
            let floor = floor(global).await?;
            let said = floor.voice().offer(&offer, Present::Refuse).await;
            close(floor, said, &file.display().to_string()).await
        }
        OffersCommand::Amend(File { file }) => {
            let offer = read(&file)?;
            let floor = floor(global).await?;
            let said = floor.voice().republish(&offer).await;
            close(floor, said.map(|one| vec![one]), &file.display().to_string()).await
        }
        OffersCommand::Withdraw { offer } => {
            let floor = floor(global).await?;
            let said = floor.voice().withdraw(&offer).await;
            close(floor, said.map(|one| vec![one]), &format!("the end of {offer}")).await
        }
    }
}

fn read(file: &Path) -> Result<Offer, CliError> {
    match Document::read(file).map_err(|error| CliError::new("nothing was submitted").because(error))? {
        Document::Offer(offer) => Ok(*offer),
        _ => Err(CliError::new(format!("{} is no offer: nothing was submitted", file.display())).next("charter submit FILE")),
    }
}

/// An offer, and what is known of its provider.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    record: &'a OfferRecord,
    score: Score,
    conduct: Conduct,
}

#[derive(Serialize)]
struct List<'a> {
    offers: Vec<Listed<'a>>,
    /// The `--after` of the next page; none on the last.
    next: Option<&'a OfferId>,
}

/// One page of the offers that fit, by name.
fn list(global: &Global, filter: &Filter, page: &Page) -> Result<Exit, CliError> {
    let seen = Seen::read(global)?;
    let fits = |record: &&OfferRecord| page.after.as_ref().is_none_or(|after| record.offer.id > *after) && filter.fits(record);
    let limit = page.limit as usize;
    // One more than is shown tells whether there are more.
    let mut found: Vec<&OfferRecord> = seen.desired.records().all().filter(fits).take(limit + 1).collect();
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|record| &record.offer.id);
    let (scores, conduct) = (seen.scores(), conduct(global)?);
    let offers = found.into_iter().map(|record| Listed {
        record,
        score: scores.get(&record.provider).cloned().unwrap_or_default(),
        conduct: together(conduct.get(&record.provider)),
    });
    let list = List {
        offers: offers.collect(),
        next,
    };
    if global.output == Format::Json {
        output::json(&list)?;
        return Ok(Exit::Clean);
    }
    let rows = list.offers.iter().map(|listed| {
        let (record, offer) = (listed.record, &listed.record.offer);
        let title = match record.withdrawn {
            Some(_) => format!("{} (withdrawn)", offer.title),
            None => offer.title.clone(),
        };
        vec![
            offer.id.to_string(),
            offer.kind.word().to_owned(),
            record.provider.to_string(),
            offer.terms.beta.map_or_else(|| "-".into(), |beta| beta.to_string()),
            listed.score.to_string(),
            in_words(&listed.conduct),
            title,
        ]
    });
    output::table(
        &["offer", "kind", "provider", "beta", "stars", "reports seen here", "title"],
        rows.collect(),
    );
    if let Some(next) = list.next {
        output::note(&format!("there are more: --after {next}"));
    }
    Ok(Exit::Clean)
}

fn show(global: &Global, id: &OfferId) -> Result<Exit, CliError> {
    let seen = Seen::read(global)?;
    let record: &OfferRecord = seen.desired.records().of(id.as_str()).ok_or_else(|| {
        CliError::new(format!("{} has no offer {id} on {}", seen.config.member, seen.channel)).next("charter offers list --all")
    })?;
    let listed = Listed {
        record,
        score: seen.scores().remove(&record.provider).unwrap_or_default(),
        conduct: together(conduct(global)?.get(&record.provider)),
    };
    if global.output == Format::Json {
        output::json(&listed)?;
        return Ok(Exit::Clean);
    }
    for (name, text) in lines(&listed) {
        output::line(&format!("{name:<12}{}", output::plain(&text)));
    }
    if !record.offer.description.is_empty() {
        output::line("");
        for line in record.offer.description.lines() {
            output::line(&output::plain(line));
        }
    }
    Ok(Exit::Clean)
}

/// What there is to say of one offer, but for its description.
fn lines(listed: &Listed<'_>) -> Vec<(&'static str, String)> {
    let (record, offer) = (listed.record, &listed.record.offer);
    let said = |submitted: &state::records::Submitted| format!("{} in tx {}", submitted.at, submitted.tx_id);
    let words = |words: &std::collections::BTreeSet<Region>| words.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        ("offer", format!("{}, revision {}", offer.id, record.revision)),
        ("title", offer.title.clone()),
        ("kind", offer.kind.word().to_owned()),
        ("provider", record.provider.to_string()),
        ("stars", listed.score.to_string()),
        ("seen here", in_words(&listed.conduct)),
    ];
    if !offer.keywords.is_empty() {
        lines.push(("keywords", words(&offer.keywords)));
    }
    if let Some(beta) = offer.terms.beta {
        lines.push(("beta", beta.to_string()));
    }
    if let Some(days) = offer.terms.days {
        lines.push(("days", days.to_string()));
    }
    if !offer.terms.regions.is_empty() {
        lines.push(("regions", words(&offer.terms.regions)));
    }
    lines.extend(offer.terms.conditions.iter().map(|condition| ("condition", condition.clone())));
    lines.push(("published", said(&record.published)));
    lines.extend(record.amended.iter().map(|submitted| ("amended", said(submitted))));
    lines.extend(record.withdrawn.iter().map(|submitted| ("withdrawn", said(submitted))));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use state::records::Collection;

    use super::*;

    fn record(beta: Option<&str>, regions: &[&str], withdrawn: bool) -> OfferRecord {
        let submitted = json!({ "tx_id": "0".repeat(64), "at": "2026-01-01T00:00:00Z", "by": "city" });
        let mut record = json!({
            "offer": { "id": "air", "kind": "data-set", "title": "Air", "keywords": ["air", "city"], "terms": { "regions": regions } },
            "provider": "city", "revision": 1, "published": submitted,
        });
        if let Some(beta) = beta {
            record["offer"]["terms"]["beta"] = json!(beta);
        }
        if withdrawn {
            record["withdrawn"] = submitted;
        }
        let read = Collection::Offer.parse(record.to_string().as_bytes()).unwrap();
        <OfferRecord as state::records::Record>::of(&read).unwrap().clone()
    }

    #[test]
    fn filters_take_what_fits_all_of_them() {
        let filter = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter
        };
        let plain = record(Some("0.7"), &["eu"], false);
        let fits = [
            filter(|_| {}),
            filter(|filter| filter.kind = Some(OfferKind::DataSet)),
            filter(|filter| filter.provider = Some("city".parse().unwrap())),
            filter(|filter| filter.keywords = vec!["air".parse().unwrap(), "city".parse().unwrap()]),
            filter(|filter| filter.region = Some("eu".parse().unwrap())),
            filter(|filter| filter.min_beta = Some("0.7".parse().unwrap())),
            filter(|filter| filter.max_beta = Some("0.7".parse().unwrap())),
        ];
        for one in &fits {
            assert!(one.fits(&plain), "{one:?}");
        }
        let misses = [
            filter(|filter| filter.kind = Some(OfferKind::ValueService)),
            filter(|filter| filter.provider = Some("tram".parse().unwrap())),
            filter(|filter| filter.keywords = vec!["air".parse().unwrap(), "noise".parse().unwrap()]),
            filter(|filter| filter.region = Some("us".parse().unwrap())),
            filter(|filter| filter.min_beta = Some("0.71".parse().unwrap())),
            filter(|filter| filter.max_beta = Some("0.69".parse().unwrap())),
        ];
        for one in &misses {
            assert!(!one.fits(&plain), "{one:?}");
        }
        // What names no region may be anywhere; what names no β is within no bound; what is withdrawn has to be asked for.
        assert!(filter(|filter| filter.region = Some("us".parse().unwrap())).fits(&record(None, &[], false)));
        assert!(!filter(|filter| filter.min_beta = Some("0.1".parse().unwrap())).fits(&record(None, &[], false)));
        assert!(!Filter::default().fits(&record(None, &[], true)));
        assert!(filter(|filter| filter.all = true).fits(&record(None, &[], true)));
    }
}
