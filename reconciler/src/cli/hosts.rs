//! What a member of an example needs beside its own machine, where its orders say so: a cluster, a host of virtual machines.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ansible::AnsibleConfig;
use kubernetes::KubernetesConfig;
use libvirt::LibvirtConfig;
use state::ids::{Channel, Kind, MemberId, SecretName};
use state::resource::Resource;
use terraform::{CloudConfig, TerraformConfig};

use super::error::{CliError, Doing};
use crate::config::Config;
use crate::document::Document;
use crate::network::Network;

/// The engines that are looked for, and the folder of the token, beside a member's charter.toml.
const ENGINES: [&str; 2] = ["tofu", "terraform"];
const SECRETS: &str = "terraform-secrets";

/// Adds to a configuration what the member's orders need and it doesn't have yet; whether it is another one now. What the member's
/// engineer has written stays.
pub(crate) fn complete(config: &mut Config, network: &Network, member: &MemberId) -> Result<bool, CliError> {
    let ordered = ordered(network, member);
    let of = |provider: &str| -> Vec<(&Channel, &Resource)> {
        let all = ordered.iter().filter(|(_, resource)| resource.kind.provider() == provider);
        all.copied().collect()
    };
    let mut changed = false;
    let (on_cluster, virtual_ones) = (of("kubernetes"), of("libvirt"));
    if let Some((_, first)) = on_cluster.first().filter(|_| config.kubernetes.is_none()) {
        let kubeconfig = kubeconfig().ok_or_else(|| {
            CliError::new(format!("{member} orders {}, and there is no cluster for it", first.kind))
                .next("name a kubeconfig file in KUBECONFIG, or leave that order out of network.yaml")
        })?;
        let namespaces = on_cluster
            .iter()
            .flat_map(|(channel, resource)| kubernetes::namespaces(resource, channel));
        config.kubernetes = Some(KubernetesConfig::new(kubeconfig, namespaces.collect()));
        changed = true;
    }
    if !virtual_ones.is_empty() && config.libvirt.is_none() {
        let mut libvirt = LibvirtConfig::new(uri(), BTreeSet::new());
        for (_, resource) in &virtual_ones {
            libvirt.give(resource);
        }
        libvirt.images = network.folder.as_ref().map(|folder| folder.join("images"));
        config.libvirt = Some(libvirt);
        changed = true;
    }
    let configured = of("terraform");
    if let Some((_, first)) = configured.first().filter(|_| config.terraform.is_none()) {
        let mut terraform = terraform_for(config.folder(), member, &first.kind)?;
        for (_, resource) in &configured {
            terraform.give(resource);
        }
        config.terraform = Some(terraform);
        changed = true;
    }
    let played = of("ansible");
    if let Some((_, first)) = played.first().filter(|_| config.ansible.is_none()) {
        let program = on_path(&["ansible-playbook"]).ok_or_else(|| {
            CliError::new(format!("{member} orders {}, and there is no Ansible for it", first.kind))
                .next("install Ansible (ansible-core 2.14 or newer), or leave that order out of network.yaml")
        })?;
        let mut ansible = AnsibleConfig::new(program);
        for (_, resource) in &played {
            ansible.give(resource);
        }
        config.ansible = Some(ansible);
        changed = true;
    }
    Ok(changed)
}

/// The first of these programs that is on PATH.
fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &&str| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    };
    names.iter().find_map(found)
}

/// The organization that Terraform's own tools would use, or the engine that is on PATH.
fn terraform_for(folder: &Path, member: &MemberId, kind: &Kind) -> Result<TerraformConfig, CliError> {
    let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    if let (Some(token), Some(organization)) = (given("TFE_TOKEN"), given("TF_CLOUD_ORGANIZATION")) {
        let address = given("TFE_ADDRESS").unwrap_or_else(|| "https://app.terraform.io".to_owned());
        let name = SecretName::new("tfe-token").doing("the token has no name")?;
        let mut terraform = TerraformConfig::hosted(CloudConfig::new(address, organization, name.clone()));
        terraform.secrets = Some(SECRETS.into());
        let secrets = folder.join(SECRETS);
        let kept = fs::DirBuilder::new().recursive(true).mode(0o700).create(&secrets).and_then(|()| {
            let mut file = providers::records::private(&secrets.join(name.as_str()))?;
            file.write_all(token.as_bytes())
        });
        kept.doing(format!("{member}'s token can't be kept in {}", secrets.display()))?;
        return Ok(terraform);
    }
    on_path(&ENGINES).map(TerraformConfig::new).ok_or_else(|| {
        CliError::new(format!("{member} orders {kind}, and there is no engine for it")).next(
            "install tofu or terraform, name a server by TFE_ADDRESS, TFE_TOKEN and TF_CLOUD_ORGANIZATION, or leave that order out of network.yaml",
        )
    })
}

/// What a member orders in an example.
fn ordered<'a>(network: &'a Network, member: &MemberId) -> Vec<(&'a Channel, &'a Resource)> {
    let mut all = Vec::new();
    for channel in &network.channels {
        for transaction in channel.transactions.iter().filter(|transaction| transaction.by == *member) {
            if let Document::Order(resources) = &transaction.document {
                all.extend(resources.iter().map(|resource| (&channel.name, resource)));
            }
        }
    }
    all
}

/// The hypervisor that virsh would use.
fn uri() -> String {
    let named = std::env::var("LIBVIRT_DEFAULT_URI").ok().filter(|text| !text.is_empty());
    named.unwrap_or_else(|| "qemu:///system".to_owned())
}

/// The kubeconfig file that kubectl would use.
fn kubeconfig() -> Option<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").filter(|text| !text.is_empty());
    let candidates: Vec<PathBuf> = match named {
        Some(named) => std::env::split_paths(&named).collect(),
        None => std::env::var_os("HOME")
            .map(|home| Path::new(&home).join(".kube/config"))
            .into_iter()
            .collect(),
    };
    let found = candidates.into_iter().find(|path| path.is_file())?;
    std::path::absolute(found).ok()
}
