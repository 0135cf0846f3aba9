//! What the members of a consortium hand to each other, and what each of them writes for itself, before there is any channel.

use std::fmt::Write;
use std::path::Path;

use super::{Network, organisation};

impl Network<'_> {
    /// Writes a channel document for the members of one version of the example, as all of them have it, and returns its file. Words
    /// of it can be replaced, for one who has another.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn channel_document(&self, owner: &str, name: &str, members: &[&str], other: Option<(&str, &str)>) -> String {
        let agreement = crate::world::smart_city().join(format!("v{}/agreement.yaml", members.len() - 1));
        let mut text = format!(
            "apiVersion: charter/v1\nkind: Channel\nchannel: {name}\nagreement: {}\nmembers:\n",
            agreement.display()
        );
        for member in members {
            let one = self.organisation(member);
            let (msp, address) = (one.msp(), one.address());
            let _ = writeln!(text, "  {member}: {{ msp_dir: {}, peers: [\"{address}\"] }}", msp.display());
        }
        let crypto = self.crypto();
        let _ = write!(
            text,
            "orderers:\n  - msp: OrdererMSP\n    msp_dir: {}\n    nodes:\n      - {{ address: \"127.0.0.1:{}\", tls_cert: {} }}\nblocks: {{ \
             timeout_ms: 200 }}\nchaincode: {{ version: \"1.0\" }}\n",
            organisation::orderer_msp(&crypto).display(),
            self.orderer_ports.listen,
            organisation::orderer(&crypto).join("tls/server.crt").display(),
        );
        if let Some((from, to)) = other {
            assert!(text.contains(from), "no {from} in {text}");
            text = text.replace(from, to);
        }
        self.world.file(&format!("{owner}-{name}.yaml"), &text)
    }

    /// Packages the chaincode for a member, serves it, and writes the configuration of a member that makes and finds its channels by
    /// itself. The first member also administers the orderer.
    ///
    /// # Panics
    /// When it can't be written, or the chaincode's server doesn't start.
    #[track_caller]
    pub fn settle(&mut self, member: &str, administers: bool) {
        let (package, id) = self.package(member);
        self.packages.insert(member.to_owned(), id);
        self.start_chaincode(member);
        self.enrol(member, &[]);
        let path = self.world.config(member);
        let mut text = std::fs::read_to_string(&path).expect("it was just written");
        let _ = write!(
            text,
            "\n[fabric]\nbin = {:?}\nadmin_msp = {:?}\npackage = {package:?}\n",
            self.binaries.folder().display().to_string(),
            self.organisation(member).admin().display().to_string(),
        );
        if administers {
            let _ = write!(text, "orderers = [{{ admin = \"127.0.0.1:{}\" }}]", self.orderer_ports.admin);
        }
        std::fs::write(&path, text).expect("the member's folder can be written");
    }

    /// The folder below a member's in which `charter channel` keeps what belongs to a channel.
    pub fn channel_folder(&self, member: &str, channel: &str) -> std::path::PathBuf {
        let member: &Path = &self.world.member(member);
        member.join("fabric").join(channel)
    }
}
