//! What a member of an example needs beside its own machine, where its orders say so: a cluster, a host of virtual machines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kubernetes::KubernetesConfig;
use libvirt::LibvirtConfig;
use state::ids::{Channel, MemberId};
use state::resource::Resource;

use super::error::CliError;
use crate::config::Config;
use crate::document::Document;
use crate::network::Network;

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
    Ok(changed)
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
