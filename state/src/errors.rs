//! How errors are told.

use std::error::Error;

/// An error with its causes, on one line. What a cause says that the error before it ends with is not said twice: transports wrap errors in others
/// that say the same.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let why = cause.to_string();
        if !text.ends_with(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::chain;

    #[derive(Debug, Error)]
    #[error("the disk is full")]
    struct Full;

    #[derive(Debug, Error)]
    enum Failed {
        #[error("it can't be kept")]
        Keep(#[source] Full),
        #[error("writing: {0}")]
        Wrapped(#[source] Full),
    }

    #[test]
    fn each_cause_is_told_once() {
        assert_eq!(chain(&Full), "the disk is full");
        assert_eq!(chain(&Failed::Keep(Full)), "it can't be kept: the disk is full");
        assert_eq!(chain(&Failed::Wrapped(Full)), "writing: the disk is full");
    }
}
