//! The allowed-signers file that plain git verifies a member's commits with, kept when the member's key changes.
//!
//! A key that signed once stays in it, with the moment after which it signs no more: commits from before that moment go on
//! being Good, later ones don't become so. Lines that are not the member's own are kept as they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

use crate::sshsig::{self, KEY_TYPE};
use crate::{Certificate, MspError};

const UNTIL: &str = "valid-before";

/// A key that signs, or signed, a member's commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedKey {
    /// The public point, uncompressed (65 bytes).
    pub public_key: Vec<u8>,
    /// The last moment at which it signs, Unix seconds; none: it signs now.
    pub until: Option<i64>,
}

/// Makes a certificate's key the one that signs for `principal`; its other keys end at `now` (Unix seconds), unless they have
/// ended before. The text is that of the file as it is, empty where there is none.
///
/// A principal with a character that would end the field, or act as a pattern, is refused.
pub fn renewed(text: &str, principal: &str, certificate: &Certificate, now: i64) -> Result<String, MspError> {
    let own = sshsig::allowed_signers_line(principal, certificate)?;
    let end = moment(now).ok_or_else(|| MspError::Issue {
        action: "end a key",
        reason: format!("{now} is no moment of a calendar"),
    })?;
    let mut lines = Vec::new();
    let mut there = false;
    for line in text.lines() {
        lines.push(match Entry::parse(line, principal) {
            None => line.to_owned(),
            Some(entry) if entry.public_key != certificate.public_key() => entry.line(entry.until.unwrap_or(&end)),
            // A key that is used again, as one from a backup may be.
            Some(_) if !there => {
                there = true;
                own.clone()
            }
            Some(_) => continue,
        });
    }
    if !there {
        lines.push(own);
    }
    Ok(lines.join("\n") + "\n")
}

/// Reads the keys of `principal`, in the file's order.
pub fn keys(text: &str, principal: &str) -> Vec<AllowedKey> {
    let own = |line| Entry::parse(line, principal);
    text.lines()
        .filter_map(own)
        .map(|entry| AllowedKey {
            // What can't be read ends a key at once.
            until: entry.until.map(|end| seconds(end).unwrap_or(i64::MIN)),
            public_key: entry.public_key,
        })
        .collect()
}

/// A line that is `principal`'s, with a key of the kind that members have.
struct Entry<'a> {
    principal: &'a str,
    options: &'a str,
    until: Option<&'a str>,
    blob: &'a str,
    public_key: Vec<u8>,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str, principal: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let found = fields.next().filter(|found| *found == principal)?;
        let (options, kind) = match fields.next()? {
            KEY_TYPE => ("", KEY_TYPE),
            options => (options, fields.next()?),
        };
        let blob = fields.next().filter(|_| kind == KEY_TYPE)?;
        let public_key = sshsig::blob_key(&STANDARD.decode(blob).ok()?)?.to_vec();
        let value = |option: &'a str| option.strip_prefix(UNTIL)?.strip_prefix("=\"")?.strip_suffix('"');
        Some(Self {
            principal: found,
            options,
            until: options.split(',').find_map(value),
            blob,
            public_key,
        })
    }

    /// The line with another end.
    fn line(&self, until: &str) -> String {
        let stays = |option: &&str| !option.is_empty() && !option.starts_with(UNTIL);
        let mut options: Vec<&str> = self.options.split(',').filter(stays).collect();
        let until = format!("{UNTIL}=\"{until}\"");
        options.push(&until);
        format!("{} {} {KEY_TYPE} {}", self.principal, options.join(","), self.blob)
    }
}

/// A moment as OpenSSH writes it in UTC: `YYYYMMDDHHMMSSZ`.
fn moment(seconds: i64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    (1970..=9999)
        .contains(&year)
        .then(|| format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second()))
}

fn seconds(moment: &str) -> Option<i64> {
    let digits = moment.strip_suffix('Z').filter(|digits| digits.len() == 14)?;
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u8>().ok();
    let year = digits.get(..4)?.parse::<u16>().ok()?;
    let date = Date::from_calendar_date(i32::from(year), Month::try_from(number(4..6)?).ok()?, number(6..8)?).ok()?;
    let time = Time::from_hms(number(8..10)?, number(10..12)?, number(12..14)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CertificateAuthority, Enrolment, Role};

    const NOW: i64 = 1_780_000_000;

    fn certificate() -> Certificate {
        let ca = CertificateAuthority::create("City", "ca.city", NOW).unwrap();
        let charter = Enrolment::Member {
            name: "charter",
            role: Role::Client,
        };
        Certificate::from_pem(ca.enrol("City", &charter, NOW).unwrap().certificate_pem.as_bytes()).unwrap()
    }

    fn ends(text: &str, of: &[&Certificate]) -> Vec<Option<i64>> {
        let keys = keys(text, "city@CityMSP");
        assert_eq!(keys.len(), of.len(), "{text}");
        for (key, certificate) in keys.iter().zip(of) {
            assert_eq!(key.public_key, certificate.public_key());
        }
        keys.iter().map(|key| key.until).collect()
    }

    #[test]
    fn a_key_that_is_followed_by_another_ends_and_stays() {
        let (first, second, third) = (certificate(), certificate(), certificate());
        let renew = |text: &str, certificate, now| renewed(text, "city@CityMSP", certificate, now).unwrap();
        let one = renew("", &first, NOW);
        assert_eq!(ends(&one, &[&first]), [None]);
        assert_eq!(renew(&one, &first, NOW + 5), one);
        let two = renew(&one, &second, NOW + 10);
        assert_eq!(ends(&two, &[&first, &second]), [Some(NOW + 10), None]);
        assert!(two.contains("namespaces=\"git\",valid-before=\"20260528202650Z\""), "{two}");
        let three = renew(&two, &third, NOW + 20);
        assert_eq!(ends(&three, &[&first, &second, &third]), [Some(NOW + 10), Some(NOW + 20), None]);
        // The first comes back from a backup.
        let back = renew(&three, &first, NOW + 30);
        assert_eq!(ends(&back, &[&first, &second, &third]), [None, Some(NOW + 20), Some(NOW + 30)]);
    }

    #[test]
    fn what_others_wrote_stays() {
        let (own, other) = (certificate(), certificate());
        let others = format!(
            "# the auditor's\n\ntram@TramMSP {}\ncity@CityMSP ssh-ed25519 AAAA\ncity@CityMSP,x {}\n",
            sshsig::public_key_line(&other),
            sshsig::public_key_line(&other),
        );
        let text = renewed(&others, "city@CityMSP", &own, NOW).unwrap();
        assert!(text.starts_with(&others), "{text}");
        assert_eq!(ends(&text, &[&own]), [None]);
        // A line without options, with a comment, and with its own options.
        for line in [
            format!("city@CityMSP {} a comment\n", sshsig::public_key_line(&other)),
            format!("city@CityMSP valid-after=\"20200101Z\" {}\n", sshsig::public_key_line(&other)),
        ] {
            let text = renewed(&line, "city@CityMSP", &own, NOW).unwrap();
            assert_eq!(ends(&text, &[&other, &own]), [Some(NOW), None]);
            assert_eq!(text.contains("valid-after"), line.contains("valid-after"), "{text}");
        }
    }

    #[test]
    fn an_end_that_cannot_be_read_is_long_past() {
        let own = certificate();
        for end in ["", "soon", "20261301000000Z", "20260101"] {
            let text = format!("city@CityMSP valid-before=\"{end}\" {}", sshsig::public_key_line(&own));
            assert_eq!(keys(&text, "city@CityMSP")[0].until, Some(i64::MIN), "{end}");
        }
        for moment_ in [0, NOW, 253_402_300_799] {
            assert_eq!(seconds(&moment(moment_).unwrap()), Some(moment_));
        }
        assert!(moment(-1).is_none() && moment(i64::MAX).is_none());
        assert!(renewed("", "city@CityMSP", &own, -1).is_err());
    }
}
