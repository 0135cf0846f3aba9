//! The members' Charters on a network: one configuration for each, as its engineer would write it.

use std::fmt::Write;

use super::Network;

impl Network<'_> {
    /// Writes the configuration of a member that follows these channels, so that the world's commands work for it.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn enrol(&self, member: &str, channels: &[&str]) {
        let organisation = self.organisation(member);
        let folder = self.world.member(member);
        std::fs::create_dir_all(folder.join("machine")).expect("the world's folder can be written");
        let channels: Vec<String> = channels.iter().map(|name| format!("{name:?}")).collect();
        let mut text = format!("member = {member:?}\n\n[ledger]\n");
        for (key, value) in [
            ("endpoint", format!("https://{}", organisation.address())),
            ("tls_ca", organisation.tls_ca().display().to_string()),
            ("msp_id", organisation.msp_id.clone()),
            ("msp", organisation.client().display().to_string()),
        ] {
            let _ = writeln!(text, "{key} = {value:?}");
        }
        let _ = write!(
            text,
            "channels = [{}]\n\n[service]\nlisten = \"127.0.0.1:0\"\ninterval_seconds = 5\n\n[machine]\nroot = \"machine\"\n\n\
             [machine.commands.smart-city]\nprogram = {:?}\nargs = [\"demo\"]\n",
            channels.join(", "),
            crate::world::binary().display().to_string(),
        );
        std::fs::write(self.world.config(member), text).expect("the world's folder can be written");
    }
}
