//! The addresses that a guest's own agent tells, where nobody else knows any.

#![allow(unsafe_code, reason = "the library's bindings can't limit how long an agent is waited for")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use virt::domain::Domain;
use virt::sys;

/// How long one agent may take, in seconds.
const SECONDS: i32 = 2;
/// How long all of them may take in one look.
const ALL: Duration = Duration::from_secs(3);
/// How long one that didn't answer is left alone, at first and at most.
const PAUSE: Duration = Duration::from_secs(4);
const LONGEST_PAUSE: Duration = Duration::from_secs(240);

/// Guests whose agents did not answer: a guest can't keep others from being looked at.
#[derive(Default)]
pub(crate) struct Agents {
    silent: BTreeMap<String, Silence>,
    spent: Duration,
}

struct Silence {
    since: Instant,
    pause: Duration,
}

impl Agents {
    /// Begins another look.
    pub(crate) fn begin(&mut self) {
        self.spent = Duration::ZERO;
        // Who has been silent for long, and was not asked for a while, is no guest any more.
        self.silent.retain(|_, silence| silence.since.elapsed() < LONGEST_PAUSE * 2);
    }

    /// The addresses of a running guest by which others can reach it, as its agent tells them.
    pub(crate) fn addresses(&mut self, name: &str, domain: &Domain, active: &str) -> Vec<String> {
        let connected = active.contains("name='org.qemu.guest_agent.0' state='connected'");
        let silence = self.silent.get(name);
        if !connected || self.spent > ALL || silence.is_some_and(|silence| silence.since.elapsed() < silence.pause) {
            return Vec::new();
        }
        let pause = silence.map_or(PAUSE, |silence| (silence.pause * 2).min(LONGEST_PAUSE));
        let since = Instant::now();
        // SAFETY: the pointer is that of a domain that lives until after the call, which keeps nothing of it.
        let limited = unsafe { sys::virDomainAgentSetResponseTimeout(domain.as_ptr(), SECONDS, 0) } == 0;
        let answer = match limited {
            true => domain.interface_addresses(sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, 0),
            false => Err(virt::error::Error::last_error()),
        };
        self.spent += since.elapsed();
        let Ok(interfaces) = answer else {
            let since = Instant::now();
            self.silent.insert(name.to_owned(), Silence { since, pause });
            return Vec::new();
        };
        self.silent.remove(name);
        interfaces
            .into_iter()
            .flat_map(|interface| interface.addrs)
            .map(|address| address.addr)
            .filter(|address| is_reachable(address))
            .collect()
    }
}

/// Whether others can reach an address: it is no guest's name for itself.
fn is_reachable(address: &str) -> bool {
    match address.parse() {
        Ok(std::net::IpAddr::V4(address)) => !address.is_loopback() && !address.is_link_local() && !address.is_unspecified(),
        Ok(std::net::IpAddr::V6(address)) => !address.is_loopback() && !address.is_unicast_link_local() && !address.is_unspecified(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_reachable;

    #[test]
    fn a_guests_own_names_for_itself_are_no_addresses() {
        for (address, reachable) in [
            ("10.77.1.5", true),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("fd00::5", true),
            ("::1", false),
            ("fe80::1", false),
            ("", false),
            ("a; rm", false),
        ] {
            assert_eq!(is_reachable(address), reachable, "{address}");
        }
    }
}
