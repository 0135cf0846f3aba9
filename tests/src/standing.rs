//! What `charter status -o json` says, as questions.

use serde_json::Value;

/// How every member sees its channels.
#[derive(Clone, Debug)]
pub struct Members(Vec<Value>);

/// How one resource stands, as a member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The owner.
    pub owner: String,
    /// The resource.
    pub resource: String,
    /// What the owner has reported.
    pub condition: Option<String>,
    /// Whether what was reported is of the present order.
    pub current: bool,
    /// Whether it is still ordered.
    pub ordered: bool,
    /// Where it answers.
    pub address: Option<String>,
}

impl Standing {
    /// Whether it is as it was ordered, or gone or kept as it was agreed.
    pub fn is_settled(&self) -> bool {
        match self.condition.as_deref() {
            Some("in-sync") => self.current && self.ordered,
            Some("deleted" | "retained") => !self.ordered,
            _ => false,
        }
    }
}

impl Members {
    /// Reads what the command said.
    ///
    /// # Panics
    /// When it is no list.
    pub fn new(value: Value) -> Self {
        match value {
            Value::Array(all) => Self(all),
            other => panic!("the status is no list: {other}"),
        }
    }

    /// What one member says of one channel.
    ///
    /// # Panics
    /// When it says nothing of it.
    #[track_caller]
    pub fn of(&self, member: &str, channel: &str) -> &Value {
        let found = self.0.iter().find(|one| one["member"] == member && one["channel"] == channel);
        found.expect("every member tells of its channels")
    }

    /// The channels that a member follows.
    pub fn channels(&self, member: &str) -> Vec<String> {
        let of_member = self.0.iter().filter(|one| one["member"] == member);
        of_member.filter_map(|one| one["channel"].as_str().map(str::to_owned)).collect()
    }

    /// The members that follow a channel.
    pub fn followers(&self, channel: &str) -> Vec<String> {
        let of_channel = self.0.iter().filter(|one| one["channel"] == channel);
        of_channel.filter_map(|one| one["member"].as_str().map(str::to_owned)).collect()
    }

    /// Every resource of a channel, as one member sees it.
    #[track_caller]
    pub fn resources(&self, member: &str, channel: &str) -> Vec<Standing> {
        let all = self.of(member, channel)["resources"].as_array().cloned().unwrap_or_default();
        all.iter()
            .map(|one| {
                let text = |field: &str| one[field].as_str().map(str::to_owned);
                Standing {
                    owner: text("owner").unwrap_or_default(),
                    resource: text("resource").unwrap_or_default(),
                    condition: text("condition"),
                    current: one["current"] == true,
                    ordered: one["ordered"] == true,
                    address: text("address"),
                }
            })
            .collect()
    }

    /// One resource of a channel, as one member sees it.
    #[track_caller]
    pub fn resource(&self, member: &str, channel: &str, name: &str) -> Option<Standing> {
        self.resources(member, channel).into_iter().find(|one| one.resource == name)
    }

    /// The address where a resource answers.
    ///
    /// # Panics
    /// When none is reported.
    #[track_caller]
    pub fn address(&self, member: &str, channel: &str, name: &str) -> String {
        let address = self.resource(member, channel, name).and_then(|one| one.address);
        address.expect("the service has reported its address")
    }

    /// Itself, if every member has taken in the block and sees everything of the channel settled.
    ///
    /// # Errors
    /// What is missing.
    pub fn converged_at(self, channel: &str, block: u64) -> Result<Self, String> {
        for member in self.followers(channel) {
            let one = self.of(&member, channel);
            if one["block"].as_u64().is_none_or(|taken| taken < block) {
                return Err(format!("{member} stands at block {}", one["block"]));
            }
            let left: Vec<String> = self
                .resources(&member, channel)
                .into_iter()
                .filter(|one| !one.is_settled())
                .map(|one| format!("{} {}", one.resource, one.condition.unwrap_or_else(|| "unreported".into())))
                .collect();
            if !left.is_empty() {
                return Err(format!("{member} on {channel}: {}", left.join(", ")));
            }
        }
        Ok(self)
    }

    /// Itself, if every member sees everything settled.
    ///
    /// # Errors
    /// What is missing.
    pub fn converged(self) -> Result<Self, String> {
        let mut channels: Vec<String> = self.0.iter().filter_map(|one| one["channel"].as_str().map(str::to_owned)).collect();
        channels.sort();
        channels.dedup();
        channels.iter().try_fold(self, |all, channel| all.converged_at(channel, 0))
    }
}
