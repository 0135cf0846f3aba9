//! Reputation: what members say of each other, as an exact mean; what nobody has to believe anybody for; and what an agreement demands.
//!
//! Opinions are the market's ratings. Facts are counted from signed reports by whoever reads them, on channels that it follows itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use state::acts::ratings::RatingRecord;
use state::clauses::ReputationClause;
use state::ids::MemberId;
use state::records::Records;
use state::report::{Condition, Report, StepOutcome};
use state::reported::MemberReports;
use state::time::Timestamp;
use thiserror::Error;

/// A member's ratings: their mean is `stars / ratings`, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Score {
    /// How many ratings.
    pub ratings: u64,
    /// Their stars together.
    pub stars: u64,
    /// How many members gave them.
    pub raters: u64,
}

impl Score {
    /// The scores of everybody who was rated on a market.
    pub fn by_member(records: &Records) -> BTreeMap<MemberId, Self> {
        let mut all: BTreeMap<MemberId, (Self, BTreeSet<&MemberId>)> = BTreeMap::new();
        for record in records.all::<RatingRecord>() {
            let (score, raters) = all.entry(record.rating.member.clone()).or_default();
            score.ratings += 1;
            score.stars += u64::from(record.rating.stars);
            raters.insert(&record.rated.by);
            score.raters = raters.len() as u64;
        }
        all.into_iter().map(|(member, (score, _))| (member, score)).collect()
    }

    /// The mean in tenths of a star, rounded down; none without ratings.
    pub fn tenths(&self) -> Option<u64> {
        self.stars.saturating_mul(10).checked_div(self.ratings)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tenths() {
            Some(tenths) => f.pad(&format!("{}.{} ({}/{})", tenths / 10, tenths % 10, self.stars, self.ratings)),
            None => f.pad("none"),
        }
    }
}

/// What a member has done on a channel, as its signed reports show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Conduct {
    /// How many reports were counted.
    pub reports: u64,
    /// How often two reports were further apart than two heartbeats: at least one was missed.
    pub late: u64,
    /// The longest time between two reports, in seconds of ledger time.
    pub longest_gap: u64,
    /// The last report's ledger time.
    pub last: Option<Timestamp>,
    /// How often a resource of the member's was reported as drifted.
    pub drifted: u64,
    /// How often drift was brought back.
    pub healed: u64,
    /// How many of its resources are not as ordered now.
    pub pending: u64,
    /// For how many seconds it has been silent, when that is longer than two heartbeats.
    pub silent: u64,
    /// How often its part was closed because it was silent for too long.
    pub abandoned: u64,
    /// How often it gave something of its own to another member.
    pub given: u64,
    /// How often it took something over.
    pub taken: u64,
}

/// The seconds from one moment to another; none when that is not later. Ledger time is chosen by clients, and may go back.
fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.seconds().saturating_sub(from.seconds())).unwrap_or(0)
}

/// Whether somebody who has nothing to say has missed a heartbeat: one may be late by as much as it is long.
fn is_late(gap: u64, heartbeat_seconds: u32) -> bool {
    gap > 2 * u64::from(heartbeat_seconds)
}

impl Conduct {
    /// Takes in the next report, by its ledger time; the oldest comes first.
    pub fn take(&mut self, at: Timestamp, report: &Report, heartbeat_seconds: u32) {
        if let Some(last) = self.last {
            let gap = between(last, at);
            self.longest_gap = self.longest_gap.max(gap);
            self.late += u64::from(is_late(gap, heartbeat_seconds));
        }
        self.last = self.last.max(Some(at));
        self.reports += 1;
        let drifted = report
            .changes
            .values()
            .flatten()
            .filter(|status| status.condition == Condition::Drifted);
        self.drifted += drifted.count() as u64;
        let healed = report
            .steps
            .iter()
            .filter(|step| step.tx.is_none() && step.outcome == StepOutcome::Done);
        self.healed += healed.count() as u64;
    }

    /// Takes in how the member's resources stand now, and whether it has fallen silent.
    pub fn stand(&mut self, reports: &MemberReports, now: Timestamp, heartbeat_seconds: u32) {
        let silent = self.last.map_or(0, |last| between(last, now));
        self.silent = if is_late(silent, heartbeat_seconds) { silent } else { 0 };
        let settled = |condition| matches!(condition, Condition::InSync | Condition::Deleted | Condition::Retained);
        let pending = reports.statuses.values().filter(|status| !settled(status.condition));
        self.pending = pending.count() as u64;
    }

    /// What was done on several channels, taken together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.reports += other.reports;
        self.late += other.late;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
        self.last = self.last.max(other.last);
        self.drifted += other.drifted;
        self.healed += other.healed;
        self.pending += other.pending;
        self.silent = self.silent.max(other.silent);
        self.abandoned += other.abandoned;
        self.given += other.given;
        self.taken += other.taken;
        self
    }
}

/// A party doesn't have the reputation that the agreement demands.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Shortfall {
    /// Too few ratings.
    #[error("clauses.reputation.min_ratings: {member} has {found} ratings, {needed} are needed")]
    Ratings {
        /// Who.
        member: MemberId,
        /// How many it has.
        found: u64,
        /// How many are needed.
        needed: u32,
    },
    /// Too low a mean.
    #[error("clauses.reputation.min_tenths: the mean of {member} is {stars}/{ratings} stars, {}.{} are needed", .needed / 10, .needed % 10)]
    Mean {
        /// Who.
        member: MemberId,
        /// The stars together.
        stars: u64,
        /// How many ratings.
        ratings: u64,
        /// The tenths that are needed.
        needed: u32,
    },
}

/// Finds the other parties that don't have the reputation that an agreement demands. A member's own is for the others to judge.
pub fn shortfalls<'a>(
    clause: &ReputationClause,
    scores: &BTreeMap<MemberId, Score>,
    parties: impl IntoIterator<Item = &'a MemberId>,
    by: &MemberId,
) -> Vec<Shortfall> {
    let nothing = Score::default();
    let judge = |member: &MemberId| {
        let score = scores.get(member).unwrap_or(&nothing);
        if score.ratings < u64::from(clause.min_ratings) {
            return Some(Shortfall::Ratings {
                member: member.clone(),
                found: score.ratings,
                needed: clause.min_ratings,
            });
        }
        // Whole numbers on both sides: nothing is rounded.
        let short = score.stars.saturating_mul(10) < score.ratings.saturating_mul(u64::from(clause.min_tenths));
        short.then(|| Shortfall::Mean {
            member: member.clone(),
            stars: score.stars,
            ratings: score.ratings,
            needed: clause.min_tenths,
        })
    };
    parties.into_iter().filter(|member| *member != by).filter_map(judge).collect()
}
