//! A caller's deadline, answered with the code that a peer gives.
//!
//! The transport ends a call at its deadline too, with the code of a call that its caller has cancelled. So this one comes first.

use std::future::Future;
use std::time::Duration;

use tonic::Status;
use tonic::metadata::MetadataMap;

/// How much earlier than the transport a call is ended.
const EARLIER: Duration = Duration::from_millis(5);
/// The most digits of a timeout.
const DIGITS: usize = 8;

/// Waits for an answer, not longer than the caller does.
pub(crate) async fn within<T>(
    metadata: &MetadataMap,
    expired: &'static str,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(timeout) = metadata.get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?)) else {
        return answer.await;
    };
    tokio::time::timeout(timeout.saturating_sub(EARLIER), answer)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(expired)))
}

/// Reads a timeout as gRPC writes it: up to eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 60 * 60)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("4S", Some(Duration::from_secs(4))),
            ("300m", Some(Duration::from_millis(300))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("123456789S", None),
            ("1é", None),
        ] {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_caller_hears_of_its_own_deadline() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "20m".parse().unwrap());
        let never = std::future::pending::<Result<(), Status>>();
        let ended = within(&metadata, "too late", never).await.unwrap_err();
        assert_eq!((ended.code(), ended.message()), (tonic::Code::DeadlineExceeded, "too late"));
        assert_eq!(within(&metadata, "too late", async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(within(&MetadataMap::new(), "", async { Ok(2) }).await.unwrap(), 2);
    }
}
