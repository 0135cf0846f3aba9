//! Free ports that stay free: processes come back on the ones that they had.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first and the last port that are handed out: below those that Linux hands out itself, so that no outgoing connection takes
/// the port of a process that was killed and is to come back.
const RANGE: (u16, u16) = (21_000, 32_000);

/// A port that nobody listens on, and that this process hands out once.
///
/// # Panics
/// When there is none.
pub(super) fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = RANGE.1 - RANGE.0;
    // Test binaries that run side by side begin in different places.
    let start = u16::try_from(std::process::id() * 97 % u32::from(width)).expect("it is below the width of the range");
    for _ in 0..width {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed) % width) % width;
        let port = RANGE.0 + offset;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port between {} and {} is free", RANGE.0, RANGE.1);
}
