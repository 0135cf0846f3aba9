//! What the member's Ansible says it is.

use std::collections::BTreeMap;
use std::time::Duration;

use providers::detached::{self, Run};

use crate::{Hindrance, Site};

/// The oldest that runs are made for.
const OLDEST: (u64, u64) = (2, 14);
const DEADLINE: Duration = Duration::from_secs(60);

/// Asks the program what it is, once. Too old a one can't be used.
pub(crate) async fn suits(site: &Site) -> Result<(), Hindrance> {
    site.version.get_or_try_init(|| ask(site)).await.map(drop)
}

async fn ask(site: &Site) -> Result<(u64, u64), Hindrance> {
    // Another Charter of this member's may ask, too.
    let folder = site.config.folder.join(format!("version.{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    // Nobody else's configuration counts.
    let config = folder.join("ansible.cfg");
    std::fs::write(&config, "")?;
    let (home, config) = (folder.display().to_string(), config.display().to_string());
    let environment: BTreeMap<String, String> = [("HOME", home.as_str()), ("LC_ALL", "C.UTF-8"), ("ANSIBLE_CONFIG", config.as_str())]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let ended = detached::run(&Run {
        program: &site.config.playbook,
        folder: &folder,
        notes: &folder,
        what: "ansible-playbook --version",
        arguments: &["--version"],
        environment: &environment,
        deadline: DEADLINE,
        log: None,
    })
    .await;
    let _ = std::fs::remove_dir_all(&folder);
    let ended = ended?;
    let said = String::from_utf8_lossy(&ended.output);
    match read(&said) {
        Some(version) if version >= OLDEST => Ok(version),
        Some((major, minor)) => Err(Hindrance::Old(format!("{major}.{minor}"))),
        None => Err(Hindrance::NoAnsible {
            program: site.config.playbook.clone(),
            said: said
                .lines()
                .next()
                .or(ended.complaints.lines().next())
                .unwrap_or_default()
                .chars()
                .take(200)
                .collect(),
        }),
    }
}

/// The version of `ansible-core`, from what `--version` says.
fn read(said: &str) -> Option<(u64, u64)> {
    let line = said.lines().find(|line| line.starts_with("ansible-playbook "))?;
    let version = line
        .rsplit(['[', ' '])
        .find(|part| part.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut numbers = version.trim_end_matches(']').split('.');
    let number = |text: Option<&str>| text?.parse().ok();
    Some((number(numbers.next())?, number(numbers.next())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(read("ansible-playbook [core 2.19.14]\n  config file = None"), Some((2, 19)));
        assert_eq!(read("warning\nansible-playbook [core 2.14.18rc1] "), Some((2, 14)));
        assert_eq!(read("ansible-playbook 2.9.27"), Some((2, 9)));
        assert_eq!(read("something else"), None);
    }
}
