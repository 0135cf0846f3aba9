//! X.509 membership, as Fabric's membership service providers (MSPs) define it, on P-256.
//!
//! A [`CertificateAuthority`] issues an organisation's identities, [`folder`] keeps them in Fabric's directory layout, a
//! [`Signer`] signs with one, and an [`MspSet`] tells who signed. Nothing here reads a clock: times are passed in.

pub mod allowed;
pub mod authority;
pub mod certificate;
pub mod channel;
mod error;
pub mod folder;
mod key;
pub mod organisation;
#[cfg(test)]
mod organisation_tests;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
pub mod policy;
pub mod private;
pub mod signature;
pub mod signer;
pub mod sshsig;

pub use authority::{CertificateAuthority, Enrolment, Issued, Role};
pub use certificate::{Certificate, key_id};
pub use error::MspError;
pub use organisation::{Identity, MspSet, Organisation};
pub use signature::{verify, verify_key};
pub use signer::{PemSigner, Signer};
