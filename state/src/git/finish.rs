use super::lock::StoreLock;
use super::pack::Body;
use super::{Batch, GitError, packs, refs};

/// Writes batches of one store: their objects in one pack, then their references in the given order.
///
/// On return everything is on the disk: pack, index, their directory, and every reference with its own
/// directory, flushed in that order. Killed at any line, it leaves each reference at its old or its new
/// commit, both complete.
///
/// # Errors
/// [`GitError::Moved`] if somebody else moved a reference since its batch was started. That is checked
/// for all before anything is written; only a git program that honours no lock of Charter's can still move
/// one after that, and then the references before it have moved and those after it have not.
pub fn finish(batches: Vec<Batch>) -> Result<(), GitError> {
    let Some(first) = batches.first() else {
        return Ok(());
    };
    let root = first.root.clone();
    for (at, batch) in batches.iter().enumerate() {
        if batch.root != root {
            return Err(GitError::Batches {
                why: "they are of different stores",
            });
        }
        if batches[..at].iter().any(|other| other.reference == batch.reference) {
            return Err(GitError::Batches {
                why: "two of them move the same reference",
            });
        }
    }
    let mut moved = Vec::with_capacity(batches.len());
    for batch in &batches {
        if let Some(head) = batch.head.filter(|_| batch.head != batch.start) {
            moved.push((batch, head));
        }
    }
    if moved.is_empty() {
        return Ok(());
    }
    let lock = StoreLock::take(&root)?;
    for (batch, _) in &moved {
        refs::expect(&root, &batch.reference, batch.start)?;
    }
    let bodies: Vec<&Body> = moved.iter().map(|(batch, _)| &batch.body).collect();
    packs::write(&lock, &root, &bodies)?;
    for (batch, head) in &moved {
        refs::swap(&lock, &root, &batch.reference, batch.start, *head)?;
    }
    refs::settle_head(&lock, &root, &moved[0].0.reference)?;
    // What was asked for is done and durable: merging is only upkeep, and tried again the next time.
    if let Err(error) = packs::consolidate(&lock, &root) {
        tracing::warn!(store = %root.display(), %error, "packs could not be merged");
    }
    Ok(())
}
