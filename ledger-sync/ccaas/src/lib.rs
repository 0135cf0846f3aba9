//! Chaincode as a service: an agreement's program as a process of its own, which Fabric's peers dial.
//!
//! [`Server`] serves `protos.Chaincode/Connect`. On each peer's stream it registers, and then runs many transactions at once, each on a
//! thread of a bounded pool, over a [`Stub`](chaincode::stub::Stub) whose calls go over the stream. It runs the same
//! [`chaincode::invoke`] as the embedded ledger and as a follower that executes history again. [`package()`] makes the package that
//! tells a peer where the server is.
//!
//! [`External`] is the other side of the same protocol: with it a ledger runs a chaincode that is served elsewhere.
//!
//! What a chaincode may not do here is answered with a clear error: private data, rich queries, initialisation, being called by another
//! chaincode.

mod answers;
mod calls;
mod error;
mod external;
mod limits;
mod package;
mod program;
mod server;
mod session;
mod stub;
mod transaction;

pub use error::{DialError, PackageError, ServeError};
pub use external::{Dial, DialTls, External};
pub use limits::{Limits, PeerLimits};
pub use package::{Connection, ConnectionTls, Package, package};
pub use program::Program;
pub use server::{Options, Server, Shutdown, Tls};
