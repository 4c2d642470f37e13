//! What containers may use: `deploy.resources`, `gpus`, and compose's older keys on the service.

use super::super::Value;
use super::super::leaf::{At, Item};
use super::super::stack::{DeviceRequest, GenericResource, ResourceAmount, Resources};
use super::Reader;

impl Reader<'_> {
    pub(super) fn resources(&mut self, service: &Item, deploy: Option<&Item>) -> Resources {
        let mut found = Resources::default();
        let resources = deploy.and_then(|deploy| deploy.get("resources")).filter(|item| self.is_map(item));
        let part =
            |reader: &mut Self, key: &str| resources.and_then(|item| item.get(key)).filter(|item| reader.is_map(item));
        if let Some(limits) = part(self, "limits") {
            found.cpu_limit = self.field(limits, "cpus", Self::processors);
            found.memory_limit = self.field(limits, "memory", Self::bytes);
            found.pids = self.field(limits, "pids", Self::number);
        }
        if let Some(reservations) = part(self, "reservations") {
            found.cpu_reservation = self.field(reservations, "cpus", Self::processors);
            found.memory_reservation = self.field(reservations, "memory", Self::bytes);
            for item in reservations.get("generic_resources").map(|item| self.list(item)).unwrap_or_default() {
                found.generic.extend(self.generic_resource(item));
            }
            if let Some(devices) = reservations.get("devices") {
                if self.is_compose() {
                    found.devices = self.list(devices).iter().filter_map(|item| self.device_request(item)).collect();
                } else {
                    let message = format!(
                        "{}: docker stack deploy refuses devices; a GPU is a generic resource there",
                        devices.path
                    );
                    self.mistake(devices, message);
                }
            }
        }
        if self.is_compose() {
            let cpus = self.field(service, "cpus", Self::processors);
            found.cpu_limit = self.same("cpus", cpus, "deploy.resources.limits.cpus", found.cpu_limit);
            let memory = self.field(service, "mem_limit", Self::bytes);
            found.memory_limit = self.same("mem_limit", memory, "deploy.resources.limits.memory", found.memory_limit);
            let reserved = self.field(service, "mem_reservation", Self::bytes);
            found.memory_reservation = self.same(
                "mem_reservation",
                reserved,
                "deploy.resources.reservations.memory",
                found.memory_reservation,
            );
            let pids = self.field(service, "pids_limit", Self::number);
            found.pids = self.same("pids_limit", pids, "deploy.resources.limits.pids", found.pids);
            found.swap = self.field(service, "memswap_limit", Self::signed_bytes);
            found.swappiness = self.field(service, "mem_swappiness", Self::signed_bytes);
            if let Some(gpus) = service.get("gpus") {
                self.gpus(gpus, &mut found.devices);
            }
        }
        found
    }

    fn generic_resource(&mut self, item: &Item) -> Option<GenericResource> {
        if !self.is_map(item) {
            return None;
        }
        let spec = item.get("discrete_resource_spec").filter(|spec| self.is_map(spec))?;
        let kind = self.field(spec, "kind", Self::text);
        let amount = self.field(spec, "value", Self::number);
        let (Some(kind), Some(amount)) = (kind, amount) else {
            self.mistake(spec, format!("{}: a generic resource needs 'kind' and 'value'", spec.path));
            return None;
        };
        Some(GenericResource { kind, amount: amount.map(ResourceAmount::Count) })
    }

    /// `all`, or a list of requests, each of which is for GPUs.
    fn gpus(&mut self, item: &Item, devices: &mut Vec<DeviceRequest>) {
        let gpu = |leaf| At::new("gpu".to_owned(), leaf);
        match item.scalar() {
            Some(At { value: Value::Text(text), leaf }) if text == "all" => {
                let count = Some(At::new(-1, leaf));
                devices.push(DeviceRequest { count, capabilities: vec![gpu(leaf)], ..DeviceRequest::default() });
            }
            Some(At { value: Value::Text(_), .. }) => self.wrong(item, "'all', or a list"),
            _ => {
                for item in self.list(item) {
                    let leaf = item.leaves().first().copied();
                    if let (Some(mut request), Some(leaf)) = (self.device_request(item), leaf) {
                        if !request.capabilities.iter().any(|capability| capability.value == "gpu") {
                            request.capabilities.push(gpu(leaf));
                        }
                        devices.push(request);
                    }
                }
            }
        }
    }

    fn device_request(&mut self, item: &Item) -> Option<DeviceRequest> {
        self.is_map(item).then(|| DeviceRequest {
            driver: self.field(item, "driver", Self::text),
            count: self.field(item, "count", |reader, item| match item.scalar() {
                Some(At { value: Value::Text(text), leaf }) if text.eq_ignore_ascii_case("all") => {
                    Some(At::new(-1, leaf))
                }
                _ => reader.number(item),
            }),
            ids: item.get("device_ids").map(|item| self.texts(item)).unwrap_or_default(),
            capabilities: item.get("capabilities").map(|item| self.texts(item)).unwrap_or_default(),
            options: item.get("options").map(|item| self.labels(item)).unwrap_or_default(),
        })
    }
}
