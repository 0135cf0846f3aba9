//! What the daemon tells by itself: a line on standard output for each change, until standard input ends.

#![allow(unsafe_code, reason = "the library's bindings have no events")]

use std::ffi::{c_char, c_int, c_void};
use std::io::{self, Read, Write};
use std::ptr;

use virt::connect::Connect;
use virt::event::{event_register_default_impl, event_run_default_impl};
use virt::sys;

type Domain = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type Device = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
type Network = unsafe extern "C" fn(sys::virConnectPtr, sys::virNetworkPtr, *mut c_void);
type Pool = unsafe extern "C" fn(sys::virConnectPtr, sys::virStoragePoolPtr, *mut c_void);

/// Tells of every change of domains, networks and pools. The text says why it ended.
///
/// # Errors
/// When the daemon can't be reached, or has gone.
pub fn run(uri: &str) -> Result<(), String> {
    virt::error::clear_error_callback();
    let failed = |error: virt::error::Error| format!("{uri}: {}", error.message());
    event_register_default_impl().map_err(failed)?;
    let connection = Connect::open(Some(uri)).map_err(failed)?;
    register(&connection).map_err(failed)?;
    // Who started this process may be killed: it goes with it.
    std::thread::spawn(|| {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    say();
    loop {
        event_run_default_impl().map_err(failed)?;
        if !connection.is_alive().unwrap_or(false) {
            return Err(format!("{uri}: the daemon has gone"));
        }
    }
}

fn register(connection: &Connect) -> Result<(), virt::error::Error> {
    let (raw, id) = (connection.as_ptr(), |id: u32| c_int::try_from(id).unwrap_or_default());
    // SAFETY: the library calls each function with the arguments that its event has, whatever type it is registered under: its
    // documentation has callers cast them. They read none of them, and outlive the connection.
    let registered = unsafe {
        let domain = std::mem::transmute::<*const (), Domain>(domain as *const ());
        let network = std::mem::transmute::<*const (), Network>(network as *const ());
        let pool = std::mem::transmute::<*const (), Pool>(pool as *const ());
        let device = std::mem::transmute::<Device, Domain>(device);
        let of_domains =
            |event, told| sys::virConnectDomainEventRegisterAny(raw, ptr::null_mut(), id(event), Some(told), ptr::null_mut(), None);
        [
            of_domains(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, domain),
            of_domains(sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device),
            of_domains(sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device),
            sys::virConnectNetworkEventRegisterAny(
                raw,
                ptr::null_mut(),
                id(sys::VIR_NETWORK_EVENT_ID_LIFECYCLE),
                Some(network),
                ptr::null_mut(),
                None,
            ),
            sys::virConnectStoragePoolEventRegisterAny(
                raw,
                ptr::null_mut(),
                id(sys::VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE),
                Some(pool),
                ptr::null_mut(),
                None,
            ),
        ]
    };
    match registered.contains(&-1) {
        true => Err(virt::error::Error::last_error()),
        false => Ok(()),
    }
}

extern "C" fn domain(_: sys::virConnectPtr, _: sys::virDomainPtr, _event: c_int, _detail: c_int, _: *mut c_void) -> c_int {
    say();
    0
}

extern "C" fn device(_: sys::virConnectPtr, _: sys::virDomainPtr, _alias: *const c_char, _: *mut c_void) {
    say();
}

extern "C" fn network(_: sys::virConnectPtr, _: sys::virNetworkPtr, _event: c_int, _detail: c_int, _: *mut c_void) {
    say();
}

extern "C" fn pool(_: sys::virConnectPtr, _: sys::virStoragePoolPtr, _event: c_int, _detail: c_int, _: *mut c_void) {
    say();
}

/// Says that something has changed. When nobody listens any more, there is nothing left to do.
fn say() {
    let mut out = io::stdout().lock();
    if out.write_all(b"changed\n").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
