//! Which blocks a seek request asks for, as a peer reads it.

use protos::common::Status as BlockStatus;
use protos::orderer::seek_info::{SeekBehavior, SeekContentType};
use protos::orderer::{SeekInfo, seek_position};

/// The blocks that a seek asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The first block.
    pub(crate) first: u64,
    /// The stream ends after this block. One before the first never comes, and the stream follows the channel for ever.
    pub(crate) last: u64,
    /// What happens at the channel's end.
    pub(crate) behavior: SeekBehavior,
    /// What of each block is sent.
    pub(crate) content: SeekContentType,
}

/// Reads a seek request of a channel that has `height` blocks; the error is the status that refuses it.
pub(crate) fn wanted(info: &SeekInfo, height: u64) -> Result<Wanted, BlockStatus> {
    use seek_position::Type;
    let (Some(start), Some(stop)) = (&info.start, &info.stop) else {
        return Err(BlockStatus::BadRequest);
    };
    let newest = height.saturating_sub(1);
    let first = match &start.r#type {
        Some(Type::Oldest(_)) => 0,
        Some(Type::Newest(_)) => newest,
        Some(Type::NextCommit(_)) => height,
        Some(Type::Specified(specified)) if specified.number <= height => specified.number,
        Some(Type::Specified(_)) | None => return Err(BlockStatus::NotFound),
    };
    let last = match &stop.r#type {
        // «Oldest» ends a stream at its own first block.
        Some(Type::Oldest(_)) => first,
        Some(Type::Newest(_)) => newest,
        Some(Type::Specified(specified)) if specified.number < first => return Err(BlockStatus::BadRequest),
        Some(Type::Specified(specified)) => specified.number,
        // Neither says where to stop; a peer takes it for block 0.
        Some(Type::NextCommit(_)) | None => 0,
    };
    Ok(Wanted {
        first,
        last,
        behavior: info.behavior(),
        content: info.content_type(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protos::orderer::{SeekNewest, SeekNextCommit, SeekOldest, SeekPosition, SeekSpecified};
    use seek_position::Type;

    const OLDEST: Option<Type> = Some(Type::Oldest(SeekOldest {}));
    const NEWEST: Option<Type> = Some(Type::Newest(SeekNewest {}));
    const NEXT: Option<Type> = Some(Type::NextCommit(SeekNextCommit {}));

    fn at(number: u64) -> Option<Type> {
        Some(Type::Specified(SeekSpecified { number }))
    }

    /// What is asked of a channel of five blocks.
    fn check(start: Option<Type>, stop: Option<Type>, expected: Result<(u64, u64), BlockStatus>) {
        let info = SeekInfo {
            start: Some(SeekPosition { r#type: start }),
            stop: Some(SeekPosition { r#type: stop }),
            ..SeekInfo::default()
        };
        assert_eq!(
            wanted(&info, 5).map(|wanted| (wanted.first, wanted.last)),
            expected,
            "{start:?} to {stop:?}"
        );
    }

    #[test]
    fn every_form_of_a_seek_is_read_as_a_peer_reads_it() {
        check(OLDEST, at(u64::MAX), Ok((0, u64::MAX)));
        check(OLDEST, NEWEST, Ok((0, 4)));
        check(OLDEST, OLDEST, Ok((0, 0)));
        check(NEWEST, NEWEST, Ok((4, 4)));
        check(NEWEST, OLDEST, Ok((4, 4)));
        check(NEWEST, at(3), Err(BlockStatus::BadRequest));
        check(NEXT, at(u64::MAX), Ok((5, u64::MAX)));
        check(NEXT, at(4), Err(BlockStatus::BadRequest));
        check(NEXT, NEWEST, Ok((5, 4)));
        check(at(2), at(2), Ok((2, 2)));
        check(at(2), at(1), Err(BlockStatus::BadRequest));
        check(at(5), at(u64::MAX), Ok((5, u64::MAX)));
        check(at(6), at(u64::MAX), Err(BlockStatus::NotFound));
        check(at(6), at(1), Err(BlockStatus::NotFound));
        check(at(3), NEXT, Ok((3, 0)));
        check(None, at(3), Err(BlockStatus::NotFound));
        check(at(3), None, Ok((3, 0)));
        let nothing = SeekInfo::default();
        assert_eq!(wanted(&nothing, 5), Err(BlockStatus::BadRequest));
    }
}
