//! The small surface of a Fabric chaincode stub that the program is written against.
//!
//! The embedded ledger, a chaincode server and a follower that re-executes history each implement [`Stub`] over their own
//! view of the state. Nothing here does I/O, reads a clock or draws randomness.

use thiserror::Error;

/// Who signed the transaction's proposal, as the ledger authenticated it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creator {
    /// The membership service provider's id, for example `CityMSP`.
    pub msp_id: String,
    /// The creator's X.509 certificate, PEM.
    pub certificate: Vec<u8>,
}

/// One transaction proposal, without the state it runs on.
#[derive(Clone, Debug)]
pub struct Invocation<'a> {
    /// The channel that the transaction is for.
    pub channel: &'a str,
    /// Fabric's transaction id, lower-case hexadecimal.
    pub tx_id: &'a str,
    /// The channel header's timestamp, whole seconds since the Unix epoch (chosen by the client).
    pub seconds: i64,
    /// Who signed the proposal.
    pub creator: &'a Creator,
    /// The arguments; the first is the function's name.
    pub args: &'a [Vec<u8>],
}

/// What the program answers. Fabric's convention: 200 is success, 400 and above a refusal that writes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200, 400 (a bad request), 403 (not allowed), 404 (not there), 409 (conflicts with the state) or 500.
    pub status: i32,
    /// Empty on success, otherwise one sentence for the user.
    pub message: String,
    /// The answer's bytes, JSON.
    pub payload: Vec<u8>,
}

/// The state could not be read. The transaction is given up; nothing is written.
#[derive(Debug, Error)]
#[error("cannot read the ledger's state: {0}")]
pub struct StubError(pub String);

/// The state as one transaction sees it. Reads never see the transaction's own writes, as in Fabric.
pub trait Stub {
    /// Reads one key.
    fn get_state(&mut self, key: &str) -> Result<Option<Vec<u8>>, StubError>;
    /// Reads `start <= key < end` in key order.
    fn get_state_by_range(&mut self, start: &str, end: &str) -> Result<Vec<(String, Vec<u8>)>, StubError>;
    /// Reads the first `limit` entries of a range. A stub that can stop early should.
    fn get_state_page(&mut self, start: &str, end: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        let mut found = self.get_state_by_range(start, end)?;
        found.truncate(limit);
        Ok(found)
    }
    /// Writes one key when the transaction commits.
    fn put_state(&mut self, key: &str, value: Vec<u8>);
    /// Deletes one key when the transaction commits.
    fn del_state(&mut self, key: &str);
    /// Sets the transaction's one event.
    fn set_event(&mut self, name: &str, payload: Vec<u8>);
}
