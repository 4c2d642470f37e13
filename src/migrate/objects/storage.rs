//! stub
use super::workload::WorkloadKind;
use super::*;
use k8s_openapi::api::core::v1::*;
pub struct PodStorage {
    pub volumes: Vec<Volume>,
    pub mounts: Vec<VolumeMount>,
    pub init_containers: Vec<Container>,
    pub claim_templates: Vec<PersistentVolumeClaim>,
    pub fs_group: Option<i64>,
    pub has_own_volume: bool,
    pub env: Vec<EnvVar>,
}
pub struct Stored {
    pub home: Home,
    pub object: KubeObject,
}
pub fn of_service(
    _s: &super::Service,
    _k: WorkloadKind,
    _c: &Context<'_>,
    _h: &Holder,
    _i: Option<&crate::migrate::images::ImageFacts>,
    _l: &mut Ledger,
) -> PodStorage {
    PodStorage {
        volumes: vec![],
        mounts: vec![],
        init_containers: vec![],
        claim_templates: vec![],
        fs_group: None,
        has_own_volume: false,
        env: vec![],
    }
}
pub fn needs_slots(_s: &super::Service, _t: &Stack) -> bool {
    false
}
pub fn shared(_c: &Context<'_>, _l: &mut Ledger) -> Vec<Stored> {
    Vec::new()
}
