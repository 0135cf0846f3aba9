//! The functions that only read: JSON answers for a client's evaluation.

use serde::Serialize;
use state::canonical;
use state::ids::{MemberId, ResourceName};
use state::records::{AnyRecord, Books, Record};

use crate::arguments::{self, MAX_ARGUMENT_BYTES, MAX_PAGE, Page, RecordPage};
use crate::error::Refused;
use crate::records::OrderedRecord;
use crate::snapshot::Snapshot;

/// The longest plain name, in bytes; the name's own rule is stricter.
const MAX_NAME_BYTES: usize = 256;

/// Answers the channel's agreement and who has accepted it.
pub(crate) fn agreement(snapshot: &mut Snapshot<'_>, rest: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    if !rest.is_empty() {
        return Err(Refused::Arguments {
            function: "agreement",
            expected: "no",
            found: rest.len(),
        });
    }
    let record = snapshot.standing()?.ok_or(Refused::NoAgreement)?;
    Ok(canonical::bytes(&record)?)
}

/// Answers how a member registered.
pub(crate) fn member(snapshot: &mut Snapshot<'_>, rest: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    let member: MemberId = arguments::name("member", arguments::one("member", rest, MAX_NAME_BYTES)?)?;
    let record = snapshot.member_record(&member)?.ok_or(Refused::NoMember(member))?;
    Ok(canonical::bytes(&record)?)
}

/// Answers a resource in force, or as it was when it was retired.
pub(crate) fn resource(snapshot: &mut Snapshot<'_>, rest: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    let name: ResourceName = arguments::name("resource", arguments::one("resource", rest, MAX_NAME_BYTES)?)?;
    if let Some(record) = snapshot.resource(&name)? {
        return Ok(canonical::bytes(record)?);
    }
    let record = snapshot.retired(&name)?.ok_or(Refused::NoResource(name))?;
    Ok(canonical::bytes(&record)?)
}

/// Answers one page of the resources in force, by name.
pub(crate) fn resources(snapshot: &mut Snapshot<'_>, rest: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    #[derive(Serialize)]
    struct Listed {
        resources: Vec<OrderedRecord>,
        /// The `after` of the next page; none on the last.
        next: Option<ResourceName>,
    }
    let page: Page = match arguments::optional("resources", rest, MAX_ARGUMENT_BYTES)? {
        Some(argument) => arguments::json("resources", argument)?,
        None => Page::default(),
    };
    if !(1..=MAX_PAGE).contains(&page.limit) {
        return Err(Refused::Page { found: page.limit });
    }
    let limit = page.limit as usize;
    let mut resources = snapshot.page(page.after.as_ref(), limit + 1)?;
    let more = resources.len() > limit;
    resources.truncate(limit);
    let next = resources.last().filter(|_| more).map(|record| record.resource.name.clone());
    Ok(canonical::bytes(&Listed { resources, next })?)
}

/// Answers one record of a kind.
pub(crate) fn record<T: Record>(snapshot: &mut Snapshot<'_>, function: &'static str, rest: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    let id = arguments::id(function, arguments::one(function, rest, MAX_NAME_BYTES)?)?;
    let record = snapshot.record(T::COLLECTION, id)?.ok_or_else(|| Refused::NoRecord {
        what: T::COLLECTION.key(),
        id: id.to_owned(),
    })?;
    Ok(canonical::bytes(&record)?)
}

/// Answers one page of the records of a kind, by name.
pub(crate) fn records<T: Record>(snapshot: &mut Snapshot<'_>, function: &'static str, rest: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    #[derive(Serialize)]
    struct Listed {
        records: Vec<AnyRecord>,
        /// The `after` of the next page; none on the last.
        next: Option<String>,
    }
    let page: RecordPage = match arguments::optional(function, rest, MAX_ARGUMENT_BYTES)? {
        Some(argument) => arguments::json(function, argument)?,
        None => RecordPage::default(),
    };
    if !(1..=MAX_PAGE).contains(&page.limit) {
        return Err(Refused::Page { found: page.limit });
    }
    if let Some(after) = &page.after {
        arguments::id(function, after.as_bytes())?;
    }
    let limit = page.limit as usize;
    let mut records = snapshot.records(T::COLLECTION, page.after.as_deref(), limit + 1)?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more).map(AnyRecord::id);
    Ok(canonical::bytes(&Listed { records, next })?)
}

/// Answers the head of a member's chain of reports, `null` before its first.
pub(crate) fn head(snapshot: &mut Snapshot<'_>, rest: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    let member: MemberId = arguments::name("head", arguments::one("head", rest, MAX_NAME_BYTES)?)?;
    if snapshot.member_record(&member)?.is_none() {
        return Err(Refused::NoMember(member));
    }
    Ok(canonical::bytes(&snapshot.report(&member)?)?)
}
