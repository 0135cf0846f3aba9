//! Changing a channel's configuration, as its administrators would: a newcomer is let in.

use std::path::Path;

use prost::Message;
use protos::common::{
    Block, ChannelHeader, ConfigEnvelope, ConfigGroup, ConfigPolicy, ConfigUpdateEnvelope, ConfigValue, Envelope, Header, HeaderType,
    Payload,
};

use super::Network;
use crate::wait::until;

/// What is to be changed: Fabric's `common.ConfigUpdate`.
#[derive(Clone, PartialEq, Message)]
struct ConfigUpdate {
    #[prost(string, tag = "1")]
    channel_id: String,
    #[prost(message, optional, tag = "2")]
    read_set: Option<ConfigGroup>,
    #[prost(message, optional, tag = "3")]
    write_set: Option<ConfigGroup>,
}

impl Network<'_> {
    /// Lets a member into a channel, with the definition that it has in another one, and has its peer join and approve the chaincode.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn admit(&self, channel: &str, newcomer: &str, known_from: &str) {
        let by = "city";
        let id = &self.organisation(newcomer).msp_id;
        let present = self.configuration(by, channel);
        let application = &present.groups["Application"];
        let organisation = self.configuration(by, known_from).groups["Application"].groups[id].clone();
        let read = stubs(application);
        let mut write = read.clone();
        write.version += 1;
        write.mod_policy.clone_from(&application.mod_policy);
        write.groups.insert(id.clone(), organisation);
        let in_root = |group: ConfigGroup| ConfigGroup {
            version: present.version,
            groups: [("Application".to_owned(), group)].into(),
            ..ConfigGroup::default()
        };
        let update = ConfigUpdate {
            channel_id: channel.to_owned(),
            read_set: Some(in_root(read)),
            write_set: Some(in_root(write)),
        };
        let file = self.folder().join(format!("{channel}-{newcomer}.tx"));
        std::fs::write(&file, envelope(channel, &update).encode_to_vec()).expect("the world's folder can be written");
        let file = file.display().to_string();
        let at = self.at_the_orderer();
        let mut words = vec!["channel", "update", "-c", channel, "-f", &file];
        words.extend(at.iter().map(String::as_str));
        self.peer(by, &words).exits(0);

        let block = self.folder().join(channel).join("genesis.block").display().to_string();
        self.peer(newcomer, &["channel", "join", "-b", &block]).exits(0);
        until(&format!("{newcomer}'s peer knows that it is a member of {channel}"), || {
            let approved = self.approve_chaincode(channel, newcomer);
            match approved.code {
                Some(0) => Ok(()),
                _ => Err(approved),
            }
        });
    }

    /// A channel's present configuration.
    fn configuration(&self, by: &str, channel: &str) -> ConfigGroup {
        let file = self.folder().join(format!("{channel}.config"));
        let path = file.display().to_string();
        let at = self.at_the_orderer();
        let mut words = vec!["channel", "fetch", "config", &path, "-c", channel];
        words.extend(at.iter().map(String::as_str));
        self.peer(by, &words).exits(0);
        read(&file).expect("the orderer answers with a configuration block")
    }
}

fn read(block: &Path) -> Option<ConfigGroup> {
    let block = Block::decode(std::fs::read(block).ok()?.as_slice()).ok()?;
    let envelope = Envelope::decode(block.data?.data.first()?.as_slice()).ok()?;
    let payload = Payload::decode(envelope.payload.as_slice()).ok()?;
    ConfigEnvelope::decode(payload.data.as_slice()).ok()?.config?.channel_group
}

/// A group with the versions of what is in it, and nothing else: «as it is».
fn stubs(group: &ConfigGroup) -> ConfigGroup {
    let groups = group.groups.iter().map(|(name, one)| {
        let stub = ConfigGroup {
            version: one.version,
            ..ConfigGroup::default()
        };
        (name.clone(), stub)
    });
    let values = group.values.iter().map(|(name, one)| {
        let stub = ConfigValue {
            version: one.version,
            ..ConfigValue::default()
        };
        (name.clone(), stub)
    });
    let policies = group.policies.iter().map(|(name, one)| {
        let stub = ConfigPolicy {
            version: one.version,
            ..ConfigPolicy::default()
        };
        (name.clone(), stub)
    });
    ConfigGroup {
        version: group.version,
        groups: groups.collect(),
        values: values.collect(),
        policies: policies.collect(),
        mod_policy: String::new(),
    }
}

/// The update as `peer channel update` takes it, and signs it.
fn envelope(channel: &str, update: &ConfigUpdate) -> Envelope {
    let header = ChannelHeader {
        r#type: HeaderType::ConfigUpdate as i32,
        channel_id: channel.to_owned(),
        ..ChannelHeader::default()
    };
    let data = ConfigUpdateEnvelope {
        config_update: update.encode_to_vec(),
        signatures: Vec::new(),
    };
    let payload = Payload {
        header: Some(Header {
            channel_header: header.encode_to_vec(),
            ..Header::default()
        }),
        data: data.encode_to_vec(),
    };
    Envelope {
        payload: payload.encode_to_vec(),
        signature: Vec::new(),
    }
}
