//! Imports: what a later version of a DAO needs of an earlier one, as the signed word of a member that takes part in both.
//!
//! Nothing is ever read across channels. A member passes on the outputs of an exported resource; they are a node of this channel's graph,
//! which others refer to by its name as they do to a resource's. The names of imports are theirs alone.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{ActRefusal, Fault, Source, Taken, life};
use crate::agreement::Agreement;
use crate::ids::{MemberId, OutputName, ResourceName};
use crate::records::{self, Books, Submitted};
use crate::resource::{Origin, Outputs};
use crate::rules::{CheckError, Refusal};

/// What the name of every import begins with, and of no resource: nothing that is ordered can take an import's place.
pub const PREFIX: &str = "import-";
/// The most outputs of one import.
pub const MAX_OUTPUTS: usize = 32;
/// The longest text of an output, in bytes.
pub const MAX_TEXT: usize = 4_096;
/// The largest whole number of an output: 2^53 − 1.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// What a member passes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Its name in this channel.
    pub name: ResourceName,
    /// Where it is from.
    pub from: Origin,
    /// The exported outputs, as their owner reports them there.
    pub outputs: Outputs,
}

/// Names an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportNamed {
    /// Its name.
    pub name: ResourceName,
}

/// An import, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRecord {
    /// What is passed on.
    pub import: Import,
    /// The transaction that brought it first.
    pub imported: Submitted,
    /// The transaction that brought its present outputs, if that is another one; its member vouches for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<Submitted>,
    /// The transaction that took it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Submitted>,
}

impl ImportRecord {
    /// Who vouches for it: whoever brought its present outputs.
    pub fn voucher(&self) -> &MemberId {
        &self.renewed.as_ref().unwrap_or(&self.imported).by
    }
}

/// Why an import is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImportRefusal {
    /// There is none.
    #[error("nothing is imported as {0} on this channel")]
    Missing(ResourceName),
    /// Another member vouches for it.
    #[error("{name} was imported by {by}: only {by} renews or drops it")]
    NotYours {
        /// The import.
        name: ResourceName,
        /// Who vouches for it.
        by: MemberId,
    },
    /// It is of this very channel.
    #[error("{0} is of this channel: refer to it directly")]
    Here(ResourceName),
    /// A name that a resource could have.
    #[error("{0} can't be an import's name: it has to begin with {PREFIX}")]
    Name(ResourceName),
    /// Nothing in it, or too much.
    #[error("an import has 1 to {MAX_OUTPUTS} outputs, this one {0}")]
    Outputs(usize),
    /// A value that is none of an output.
    #[error("output {0}: a text of up to {MAX_TEXT} bytes, a whole number of up to 2^53 - 1, true or false")]
    Value(OutputName),
}

impl ImportRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            ImportRefusal::Missing(_) => Fault::Missing,
            ImportRefusal::NotYours { .. } => Fault::Forbidden,
            ImportRefusal::Here(_) | ImportRefusal::Name(_) | ImportRefusal::Outputs(_) | ImportRefusal::Value(_) => Fault::Bad,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            ImportRefusal::Missing(_) => "the import does not exist",
            ImportRefusal::NotYours { .. } => "the import is another member's",
            ImportRefusal::Here(_) => "the import is of its own channel",
            ImportRefusal::Name(_) => "the import's name could be a resource's",
            ImportRefusal::Outputs(_) => "the import has no outputs, or too many",
            ImportRefusal::Value(_) => "an output of the import has no valid value",
        }
    }
}

fn refused<E>(refusal: ImportRefusal) -> CheckError<E> {
    CheckError::Refused(ActRefusal::from(refusal).into())
}

/// Reads an import that was not dropped.
pub(crate) fn present<B: Books + ?Sized>(books: &mut B, name: &ResourceName) -> Result<Option<ImportRecord>, B::Error> {
    let record: Option<ImportRecord> = records::get(books, name.as_str())?;
    Ok(record.filter(|record| record.dropped.is_none()))
}

/// Brings an import, or renews one's own.
pub(super) fn import<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, import: &Import) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let agreement = life::acting(books, by)?;
    check(source, import).map_err(refused)?;
    let Some(before) = present(books, &import.name).map_err(CheckError::View)? else {
        return Ok(Taken::record(ImportRecord {
            import: import.clone(),
            imported: source.submitted.clone(),
            renewed: None,
            dropped: None,
        }));
    };
    own(books, &agreement, source, &before)?;
    // What others refer to has to stay.
    for dependent in books.dependents(&import.name).map_err(CheckError::View)? {
        let resource = books.ordered(&dependent).map_err(CheckError::View)?.map(|present| present.resource);
        let references = resource.map(|resource| resource.spec.references()).unwrap_or_default();
        let lost = references
            .into_iter()
            .find(|r| r.resource == import.name && !import.outputs.contains_key(r.output.as_str()));
        if let Some(lost) = lost {
            return Err(Refusal::NotExported {
                resource: dependent,
                on: import.name.clone(),
                output: lost.output,
            }
            .into());
        }
    }
    Ok(Taken::record(ImportRecord {
        import: import.clone(),
        renewed: Some(source.submitted.clone()),
        ..before
    }))
}

/// Takes out an import that nobody needs any more.
pub(super) fn drop<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, named: &ImportNamed) -> Result<Taken, CheckError<B::Error>> {
    let agreement = life::acting(books, source.by())?;
    let name = &named.name;
    let mut record = present(books, name)
        .map_err(CheckError::View)?
        .ok_or_else(|| refused(ImportRefusal::Missing(name.clone())))?;
    own(books, &agreement, source, &record)?;
    let by = books.dependents(name).map_err(CheckError::View)?;
    if !by.is_empty() {
        return Err(Refusal::Needed {
            resource: name.clone(),
            by,
        }
        .into());
    }
    record.dropped = Some(source.submitted.clone());
    Ok(Taken::record(record))
}

/// An import is its member's who vouches for it; of one who has no rights any more, it is everybody's.
fn own<B: Books + ?Sized>(
    books: &mut B,
    agreement: &Agreement,
    source: &Source<'_>,
    record: &ImportRecord,
) -> Result<(), CheckError<B::Error>> {
    let voucher = record.voucher();
    if voucher == source.by() || agreement.party(voucher).is_none() {
        return Ok(());
    }
    if !life::standing(books, agreement).map_err(CheckError::View)?.contains(voucher) {
        return Ok(());
    }
    Err(refused(ImportRefusal::NotYours {
        name: record.import.name.clone(),
        by: voucher.clone(),
    }))
}

fn check(source: &Source<'_>, import: &Import) -> Result<(), ImportRefusal> {
    if import.from.channel == *source.channel {
        return Err(ImportRefusal::Here(import.from.resource.clone()));
    }
    if !import.name.as_str().starts_with(PREFIX) {
        return Err(ImportRefusal::Name(import.name.clone()));
    }
    if !(1..=MAX_OUTPUTS).contains(&import.outputs.len()) {
        return Err(ImportRefusal::Outputs(import.outputs.len()));
    }
    for (name, value) in import.outputs.iter() {
        let fits = match value {
            Value::String(text) => text.len() <= MAX_TEXT,
            Value::Bool(_) => true,
            Value::Number(number) => {
                number.as_u64().is_some_and(|n| n <= MAX_INTEGER) || number.as_i64().is_some_and(|n| n.unsigned_abs() <= MAX_INTEGER)
            }
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        if !fits {
            return Err(ImportRefusal::Value(name.clone()));
        }
    }
    Ok(())
}
