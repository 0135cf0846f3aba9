//! What things are called outside: functions of where a resource was ordered first, and of nothing else.

use state::canonical::Digest;
use state::resource::Origin;

/// The name of a domain, network, pool or volume. A resource's name holds no dot, so that two names never meet.
pub(crate) fn external(origin: &Origin) -> String {
    format!("{}.{}", origin.channel, origin.resource)
}

fn digest(what: &str, origin: &Origin) -> Digest {
    Digest::of(format!("{what}\0{origin}").as_bytes())
}

/// The UUID of a domain, a network or a pool (RFC 9562, version 8).
pub(crate) fn uuid(kind: &str, origin: &Origin) -> String {
    let digest = digest(kind, origin);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// The address of an interface, of those that QEMU's virtual machines have.
pub(crate) fn mac(origin: &Origin, interface: usize) -> String {
    let digest = digest(&format!("mac {interface}"), origin);
    let [a, b, c, ..] = digest.as_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// The name of a network's bridge, as short as Linux wants it.
pub(crate) fn bridge(origin: &Origin) -> String {
    format!("ch{}", digest("bridge", origin).short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_functions_of_the_origin() {
        let origin: Origin = "smart-city-1/web".parse().unwrap();
        assert_eq!(external(&origin), "smart-city-1.web");
        assert_eq!(uuid("domain", &origin), uuid("domain", &origin));
        assert_ne!(uuid("domain", &origin), uuid("network", &origin));
        assert_eq!(uuid("domain", &origin).as_bytes()[14], b'8');
        assert_ne!(mac(&origin, 0), mac(&origin, 1));
        assert!(bridge(&origin).len() < 16);
    }
}
