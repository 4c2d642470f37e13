//! What containers may and do use: limits, requests and GPUs.
//!
//! Invariants: a request is written next to each limit, for Kubernetes would take the limit for it and Swarm reserves nothing; no request is
//! above its limit, which Kubernetes refuses. Amounts are never rounded down.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Holder;
use crate::migrate::leaf::{At, Leaf};
use crate::migrate::report::{Ledger, Outcome, Target};
use crate::migrate::stack::{DeviceRequest, ResourceAmount, Service};

/// Billionths of a processor in a thousandth, which is the finest that Kubernetes has.
const NANOS: u64 = 1_000_000;
/// The least memory that Swarm takes, in bytes.
const MEMORY_MIN: u64 = 4 << 20;
/// What is reserved where Swarm reserves nothing: thousandths of a processor.
const SMALL_CPU: u64 = 10;
/// What is reserved where Swarm reserves nothing: bytes.
const SMALL_MEMORY: u64 = 32 << 20;
/// What the plugin of NVIDIA calls its GPUs.
const GPU: &str = "nvidia.com/gpu";
/// The RuntimeClass that K3s makes where it finds NVIDIA's runtime.
const GPU_RUNTIME: &str = "nvidia";

/// What the pod of a service needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Needs {
    /// Of the container; `None`: nothing is limited or reserved.
    pub resources: Option<ResourceRequirements>,
    /// Of the pod.
    pub runtime_class: Option<String>,
}

/// What a container may and does use.
pub fn resources(service: &Service, holder: &Holder, ledger: &mut Ledger) -> Needs {
    let mut amounts = Amounts { holder, ledger, limits: BTreeMap::new(), requests: BTreeMap::new() };
    let resources = &service.resources;
    amounts.pair(&Processors, resources.cpu_limit, resources.cpu_reservation);
    amounts.pair(&Memory, resources.memory_limit, resources.memory_reservation);
    let gpus = amounts.generic(service).saturating_add(amounts.devices(&resources.devices));
    let mut needs = Needs::default();
    if gpus > 0 {
        amounts.limits.insert(GPU.to_owned(), Quantity(gpus.to_string()));
        needs.runtime_class = Some(GPU_RUNTIME.to_owned());
        let reason =
            "containers see a GPU only with NVIDIA's runtime; K3s has this class where the runtime is installed";
        amounts.ledger.added(holder.pod("runtimeClassName"), reason);
    }
    let (limits, requests) = (amounts.limits, amounts.requests);
    if !limits.is_empty() || !requests.is_empty() {
        needs.resources = Some(ResourceRequirements {
            limits: Some(limits).filter(|limits| !limits.is_empty()),
            requests: Some(requests).filter(|requests| !requests.is_empty()),
            claims: None,
        });
    }
    if let Some(pids) = resources.pids {
        match pids.value {
            ..=0 => ledger.agrees(pids.leaf, "there is no limit"),
            _ => ledger
                .dropped(pids.leaf, "a pod has no field for it; --kubelet-arg=pod-max-pids limits every pod of a node"),
        }
    }
    let swap = [resources.swap.map(|swap| swap.leaf), resources.swappiness.map(|swappiness| swappiness.leaf)];
    for leaf in swap.into_iter().flatten() {
        ledger.dropped(leaf, "a pod has no field for it; the kubelet decides on swap for a whole node");
    }
    needs
}

/// A kind of amount.
trait Kind {
    /// What Kubernetes calls it.
    const NAME: &'static str;
    /// Reserved where Swarm reserves nothing, in the unit of [`Kind::folded`].
    const SMALL: u64;
    /// In the unit that Kubernetes counts, rounded up, and what differs.
    fn folded(&self, amount: u64) -> (u64, &'static str);
    /// As people read it.
    fn shown_as(&self, amount: u64) -> Quantity;
}

/// From billionths to thousandths of a processor.
struct Processors;

impl Kind for Processors {
    const NAME: &'static str = "cpu";
    const SMALL: u64 = SMALL_CPU;

    fn folded(&self, amount: u64) -> (u64, &'static str) {
        let note = match amount {
            0 => "",
            1..NANOS => "Swarm refuses less than 0.001 processors, which is also the least of Kubernetes; rounded up",
            _ if !amount.is_multiple_of(NANOS) => "Kubernetes counts thousandths of a processor; rounded up",
            _ => "",
        };
        (amount.div_ceil(NANOS), note)
    }

    fn shown_as(&self, amount: u64) -> Quantity {
        Quantity(if amount.is_multiple_of(1000) { (amount / 1000).to_string() } else { format!("{amount}m") })
    }
}

/// Bytes.
struct Memory;

impl Kind for Memory {
    const NAME: &'static str = "memory";
    const SMALL: u64 = SMALL_MEMORY;

    fn folded(&self, amount: u64) -> (u64, &'static str) {
        let is_too_little = (1..MEMORY_MIN).contains(&amount);
        (amount, if is_too_little { "Swarm refuses less than 4 MiB" } else { "" })
    }

    fn shown_as(&self, amount: u64) -> Quantity {
        super::storage::quantity(amount)
    }
}

struct Amounts<'a> {
    holder: &'a Holder,
    ledger: &'a mut Ledger,
    limits: BTreeMap<String, Quantity>,
    requests: BTreeMap<String, Quantity>,
}

impl Amounts<'_> {
    fn target(&self, list: &str, name: &str) -> Target {
        self.holder.container(&format!("resources.{list}.{name}"))
    }

    fn gpu_target(&self) -> Target {
        self.holder.container(&format!("resources.limits[{GPU:?}]"))
    }

    /// A limit with its request.
    fn pair<K: Kind>(&mut self, kind: &K, limit: Option<At<u64>>, reservation: Option<At<u64>>) {
        // 0 sets no limit.
        let most = limit.filter(|limit| limit.value > 0).map(|limit| kind.folded(limit.value).0);
        if let Some(limit) = limit {
            let (amount, note) = kind.folded(limit.value);
            if amount == 0 {
                self.ledger.agrees(limit.leaf, "0 sets no limit");
            } else {
                self.mark(limit.leaf, note, self.target("limits", K::NAME));
                self.limits.insert(K::NAME.to_owned(), kind.shown_as(amount));
            }
        }
        match reservation {
            Some(reserved) => {
                let (amount, note) = kind.folded(reserved.value);
                if amount == 0 && most.is_none() {
                    self.ledger.agrees(reserved.leaf, "0 reserves nothing");
                    return;
                }
                let target = self.target("requests", K::NAME);
                self.mark(reserved.leaf, note, target.clone());
                let least = most.map_or(amount, |most| amount.min(most));
                if least < amount {
                    self.ledger.approximated(
                        reserved.leaf,
                        target,
                        "more than the limit, which Swarm takes and Kubernetes refuses; it is the limit",
                    );
                }
                self.requests.insert(K::NAME.to_owned(), kind.shown_as(least));
            }
            None => {
                let Some(most) = most else { return };
                self.requests.insert(K::NAME.to_owned(), kind.shown_as(most.min(K::SMALL)));
                self.ledger.added(
                    self.target("requests", K::NAME),
                    "Swarm reserves nothing where only a limit is written; Kubernetes would reserve the limit",
                );
            }
        }
    }

    fn mark(&mut self, leaf: Leaf, note: &str, target: Target) {
        let outcome = if note.is_empty() { Outcome::Converted } else { Outcome::Approximated };
        self.ledger.mark(leaf, outcome, note, Some(target));
    }

    /// GPUs among the generic resources, which are kinds that the operator of the swarm named.
    fn generic(&mut self, service: &Service) -> u64 {
        let target = self.gpu_target();
        let mut gpus = 0_u64;
        for resource in &service.resources.generic {
            let leaves = [resource.kind.leaf, resource.amount.leaf];
            let count = match &resource.amount.value {
                ResourceAmount::Count(count) => u64::try_from(*count).unwrap_or(0),
                ResourceAmount::Named(_) => 1,
            };
            let is_named = matches!(resource.amount.value, ResourceAmount::Named(_));
            if count == 0 {
                leaves.iter().for_each(|leaf| self.ledger.agrees(*leaf, "none is reserved"));
            } else if is_gpu(&resource.kind.value) {
                gpus = gpus.saturating_add(count);
                let reason = "the name is one of this swarm's; it is taken for GPUs of NVIDIA, of which Kubernetes gives \
                              each to one pod";
                self.ledger.approximated(resource.kind.leaf, target.clone(), reason);
                let reason = if is_named { "which GPU it is, Kubernetes chooses" } else { "" };
                let outcome = if is_named { Outcome::Approximated } else { Outcome::Converted };
                self.ledger.mark(resource.amount.leaf, outcome, reason, Some(target.clone()));
            } else {
                for leaf in leaves {
                    self.ledger.needs_input(
                        leaf,
                        "name what the nodes of the cluster call it: a device plugin has to offer it as an extended \
                         resource",
                    );
                }
            }
        }
        gpus
    }

    /// GPUs among the devices that Compose asks for.
    fn devices(&mut self, devices: &[DeviceRequest]) -> u64 {
        devices.iter().fold(0, |gpus: u64, request| gpus.saturating_add(self.device(request)))
    }

    fn device(&mut self, request: &DeviceRequest) -> u64 {
        let target = self.gpu_target();
        let class = self.holder.pod("runtimeClassName");
        for (_, option) in &request.options {
            self.ledger.dropped(option.leaf, "options are for Docker's driver; a device plugin has none");
        }
        let driver = request.driver.as_ref().map_or("", |driver| driver.value.as_str());
        let asks_gpu = request.capabilities.iter().any(|one| one.value == "gpu" || one.value == "nvidia");
        if !(driver == "nvidia" || driver.is_empty() && asks_gpu) {
            let all = request.driver.iter().chain(&request.ids).chain(&request.capabilities).map(|text| text.leaf);
            for leaf in all.chain(request.count.map(|count| count.leaf)) {
                self.ledger.needs_input(leaf, "name the extended resource that a device plugin offers for it");
            }
            return 0;
        }
        if let Some(driver) = &request.driver {
            self.ledger.converted(driver.leaf, class);
        }
        for capability in &request.capabilities {
            match capability.value.as_str() {
                "gpu" | "nvidia" => self.ledger.approximated(
                    capability.leaf,
                    target.clone(),
                    "Kubernetes gives a GPU to one pod, Docker to any number of containers",
                ),
                // NVIDIA's runtime gives these two where nothing else is asked for.
                "compute" | "utility" => self.ledger.agrees(capability.leaf, "NVIDIA's runtime gives it"),
                _ => self.ledger.needs_input(
                    capability.leaf,
                    "add it to the container's variable NVIDIA_DRIVER_CAPABILITIES, which NVIDIA's runtime reads",
                ),
            }
        }
        let all = "Docker gives all GPUs of the node, Kubernetes a number of them: 1 is written, set how many";
        match (request.count, &request.ids[..]) {
            (_, ids @ [_, ..]) => {
                for id in ids {
                    self.ledger.approximated(id.leaf, target.clone(), "which GPU it is, Kubernetes chooses");
                }
                if let Some(count) = request.count {
                    self.ledger.dropped(count.leaf, "the ids say which, and Docker refuses both");
                }
                ids.len() as u64
            }
            (Some(count), []) => match u64::try_from(count.value) {
                Ok(number @ 1..) => {
                    self.ledger.converted(count.leaf, target);
                    number
                }
                _ => {
                    self.ledger.mark(count.leaf, Outcome::NeedsInput, all, Some(target));
                    1
                }
            },
            (None, []) => {
                let leaves = request.capabilities.iter().chain(&request.driver).map(|text| text.leaf);
                for leaf in leaves.take(1) {
                    self.ledger.mark(leaf, Outcome::NeedsInput, all, Some(target.clone()));
                }
                1
            }
        }
    }
}

/// Whether a kind of generic resources is GPUs of NVIDIA's: `NVIDIA-GPU`, `gpu`. Swarm has no kinds of its own.
fn is_gpu(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    let is_other = ["amd", "rocm", "intel", "habana"].iter().any(|maker| kind.contains(maker));
    kind.contains("gpu") && !is_other
}

#[cfg(test)]
mod tests;
