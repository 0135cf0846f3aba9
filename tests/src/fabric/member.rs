//! The members' Charters on a network: one configuration for each, as its engineer would write it.

use std::fmt::Write;
use std::path::Path;

use super::{Clients, Network};

/// Who calls, and which peer.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The member that the Charter runs for.
    pub member: &'a str,
    /// The folder with its certificate and key; the member's own client where there is none.
    pub msp: Option<&'a Path>,
    /// The member whose peer it calls.
    pub peer_of: &'a str,
    /// The members whose peers it calls when that one doesn't answer.
    pub further: &'a [&'a str],
}

impl<'a> Caller<'a> {
    /// A member that calls its own peer as itself.
    pub fn own(member: &'a str) -> Self {
        Self {
            member,
            msp: None,
            peer_of: member,
            further: &[],
        }
    }
}

impl Network<'_> {
    /// Writes the configuration of a member that follows these channels, so that the world's commands work for it.
    pub fn enrol(&self, member: &str, channels: &[&str]) {
        let folder = self.world.member(member);
        self.configure_member(&folder, Caller::own(member), channels);
    }

    /// Writes a configuration into a folder of its own, and returns the file.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn configure_member(&self, folder: &Path, caller: Caller<'_>, channels: &[&str]) -> String {
        let (own, peer) = (self.organisation(caller.member), self.organisation(caller.peer_of));
        std::fs::create_dir_all(folder).expect("the world's folder can be written");
        let channels: Vec<String> = channels.iter().map(|name| format!("{name:?}")).collect();
        let mut text = format!("member = {:?}\nstore = \"store.git\"\n\n[ledger]\n", caller.member);
        for (key, value) in [
            ("endpoint", format!("https://{}", peer.address())),
            ("tls_ca", peer.tls_ca().display().to_string()),
            ("msp_id", own.msp_id.clone()),
            ("msp", caller.msp.map_or_else(|| own.client(), Path::to_owned).display().to_string()),
        ] {
            let _ = writeln!(text, "{key} = {value:?}");
        }
        if self.clients == Clients::Certified {
            let tls = own.client_tls();
            for (key, file) in [("client_certificate", "client.crt"), ("client_key", "client.key")] {
                let _ = writeln!(text, "{key} = {:?}", tls.join(file).display().to_string());
            }
        }
        let _ = writeln!(text, "channels = [{}]", channels.join(", "));
        for member in caller.further {
            let peer = self.organisation(member);
            let (endpoint, ca) = (format!("https://{}", peer.address()), peer.tls_ca().display().to_string());
            let _ = write!(text, "\n[[ledger.peers]]\nendpoint = {endpoint:?}\ntls_ca = {ca:?}\n");
        }
        let _ = write!(
            text,
            "\n[service]\nlisten = \"127.0.0.1:0\"\ninterval_seconds = 5\n\n[machine]\nroot = \"machine\"\n\n\
             [machine.commands.smart-city]\nprogram = {:?}\nargs = [\"demo\"]\n",
            crate::world::binary().display().to_string(),
        );
        let path = folder.join("charter.toml");
        std::fs::write(&path, text).expect("the world's folder can be written");
        path.display().to_string()
    }
}
