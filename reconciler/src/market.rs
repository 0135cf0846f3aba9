//! What a member says on a market: that it takes part, what it offers, what it knows of agreements.

use chaincode::records::MemberRecord;
use state::acts::accounts::{Representation, RepresentationRecord, Vouching};
use state::acts::agreed::{Agreed, AgreedRecord, AgreementNamed};
use state::acts::offers::{Offer, OfferNamed, OfferRecord};
use state::acts::ratings::{MAX_STARS, Rating, RatingRecord};
use state::agreement::{Agreement, Role};
use state::canonical::{CanonicalError, Digest};
use state::ids::{MemberId, OfferId};

use crate::submission::{Present, Said, SubmissionError, Voice};

/// The name of the channel that is taken for the market when none is named.
pub const MARKET: &str = "market";

/// An agreement as its parties name it on a market.
pub fn agreed(agreement: &Agreement) -> Result<Agreed, CanonicalError> {
    Ok(Agreed {
        dao: agreement.dao.clone(),
        version: agreement.version,
        agreement: agreement.digest()?,
        parties: agreement.parties.iter().map(|party| party.member.clone()).collect(),
    })
}

/// The DAO that an agreement made, as a member says to be it.
pub fn representation(agreement: &Agreement) -> Result<Representation, CanonicalError> {
    let agreed = agreed(agreement)?;
    Ok(Representation {
        dao: agreed.dao,
        version: agreed.version,
        agreement: agreed.agreement,
        members: agreed.parties,
    })
}

impl Voice<'_> {
    /// Binds the member's name to its MSP on the market, unless it is bound already.
    pub async fn enter(&self, role: Role) -> Result<Said, SubmissionError> {
        if self.find::<MemberRecord>("member", self.member.as_str()).await?.is_some() {
            return Ok(Said::Already {
                what: format!("{} is registered", self.member),
            });
        }
        let argument = serde_json::json!({ "member": self.member, "role": role });
        self.act("register", &argument, format!("registered as {role}")).await
    }

    /// Publishes an offer, after registering as somebody who offers such a thing.
    pub async fn offer(&self, offer: &Offer, present: Present) -> Result<Vec<Said>, SubmissionError> {
        let mut all = vec![self.enter(offer.kind.role()).await?];
        all.retain(|said| matches!(said, Said::Committed { .. }));
        let standing = match present {
            Present::Refuse => None,
            Present::Amend => self.find::<OfferRecord>("offer", offer.id.as_str()).await?,
        };
        all.push(match standing {
            None => self.act("publish", offer, format!("published offer {}", offer.id)).await?,
            Some(record) if record.withdrawn.is_some() => Said::Already {
                what: format!("offer {} was withdrawn", offer.id),
            },
            Some(record) if record.offer == *offer => Said::Already {
                what: format!("offer {} is published", offer.id),
            },
            Some(_) => self.republish(offer).await?,
        });
        Ok(all)
    }

    /// Changes an offer.
    pub async fn republish(&self, offer: &Offer) -> Result<Said, SubmissionError> {
        self.act("republish", offer, format!("amended offer {}", offer.id)).await
    }

    /// Withdraws an offer.
    pub async fn withdraw(&self, id: &OfferId) -> Result<Said, SubmissionError> {
        self.act("withdraw", &OfferNamed { id: id.clone() }, format!("withdrew offer {id}"))
            .await
    }

    /// Says which DAO the member is.
    pub async fn represent(&self, representation: &Representation) -> Result<Said, SubmissionError> {
        let title = format!("{} v{}", representation.dao, representation.version);
        let standing = self.find::<RepresentationRecord>("representation", self.member.as_str()).await?;
        if standing.is_some_and(|record| record.representation == *representation) {
            return Ok(Said::Already {
                what: format!("{} says that it is {title}", self.member),
            });
        }
        self.act("represent", representation, format!("said to be {title}")).await
    }

    /// Stands for a member that says to be a DAO of this member's.
    pub async fn vouch(&self, member: &MemberId, representation: Representation) -> Result<Said, SubmissionError> {
        let title = format!("{} v{}", representation.dao, representation.version);
        let vouching = Vouching {
            member: member.clone(),
            representation,
        };
        self.act("vouch", &vouching, format!("stood for {member}: it is {title}")).await
    }

    /// Says that an agreement of this member's is in force.
    pub async fn confirm(&self, agreed: &Agreed) -> Result<Said, SubmissionError> {
        let title = format!("{} v{}", agreed.dao, agreed.version);
        let standing = self.find::<AgreedRecord>("agreed", &AgreedRecord::name(agreed.agreement)).await?;
        if standing.is_some_and(|record| record.agreed == *agreed && record.confirmed.contains_key(self.member)) {
            return Ok(Said::Already {
                what: format!("{} has confirmed {title}", self.member),
            });
        }
        self.act("confirm", agreed, format!("confirmed {title}")).await
    }

    /// Says that an agreement of this member's is finished.
    pub async fn conclude(&self, agreement: Digest) -> Result<Said, SubmissionError> {
        let standing = self.find::<AgreedRecord>("agreed", &AgreedRecord::name(agreement)).await?;
        let title = standing.as_ref().map_or_else(
            || format!("agreement {}", agreement.short()),
            |record| format!("{} v{}", record.agreed.dao, record.agreed.version),
        );
        if standing.is_some_and(|record| record.concluded.contains_key(self.member)) {
            return Ok(Said::Already {
                what: format!("{} has concluded {title}", self.member),
            });
        }
        self.act("conclude", &AgreementNamed { agreement }, format!("concluded {title}"))
            .await
    }

    /// Rates another party of a finished agreement.
    pub async fn rate(&self, rating: &Rating) -> Result<Said, SubmissionError> {
        let name = RatingRecord::name(rating.agreement, self.member, &rating.member);
        let standing = self.find::<RatingRecord>("rating", &name).await?;
        if standing.is_some_and(|record| record.rating == *rating) {
            return Ok(Said::Already {
                what: format!("{} has rated {} so", self.member, rating.member),
            });
        }
        let what = format!("rated {}: {} of {MAX_STARS} stars", rating.member, rating.stars);
        self.act("rate", rating, what).await
    }
}
