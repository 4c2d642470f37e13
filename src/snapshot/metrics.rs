//! Metrics of snapshots.

use std::sync::atomic::Ordering;

use super::Snapshots;
use crate::telemetry::{Counter, EncodeLabelSet, Family, FloatGauge, Gauge, Registry};

/// Label of the metrics of work with snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WorkLabels {
    /// `create`, `verify` or `look`.
    pub work: &'static str,
}

/// The metrics of snapshots. Cloning gives another handle to the same counters.
#[derive(Clone)]
pub struct Metrics {
    /// Seconds since the newest existing snapshot; infinite when there is none.
    pub age: FloatGauge,
    /// Seconds since a snapshot was last proved; infinite when none was.
    pub verified_age: FloatGauge,
    /// 1 when the snapshot target contains what this node stored there; 0 when not, and before the first check.
    pub target_up: Gauge,
    /// 1 when the last attempted snapshot succeeded, and before the first attempt.
    pub succeeded: Gauge,
    /// Seconds since the target was checked; infinite before the first check.
    pub target_seen_age: FloatGauge,
    /// Snapshots of this node that are there.
    pub snapshots: Gauge,
    /// Snapshots of this node that should be there and are not.
    pub missing: Gauge,
    /// Failed snapshots, proofs and checks, by kind.
    pub failures: Family<WorkLabels, Counter>,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        Self {
            age: registry.float_gauge("snapshot_age_seconds", "Age of the newest snapshot"),
            verified_age: registry
                .float_gauge("snapshot_verified_age_seconds", "Time since a snapshot was last proved"),
            target_up: registry
                .gauge("snapshot_target_up", "1 while the place of the snapshots holds what this node put there"),
            succeeded: registry.gauge("snapshot_succeeded", "1 while the last snapshot that was tried was taken"),
            target_seen_age: registry
                .float_gauge("snapshot_target_seen_age_seconds", "Time since the place of the snapshots was looked at"),
            snapshots: registry.gauge("snapshots", "Snapshots of this node that are there"),
            missing: registry.gauge("snapshots_missing", "Snapshots of this node that should be there and are not"),
            failures: registry.register(
                "snapshot_failures",
                "Snapshots, proofs and looks that failed",
                Family::default(),
            ),
        }
    }

    /// Sets the results of the last check. It accesses no disk or network that may not answer.
    pub fn observe(&self, snapshots: &Snapshots) {
        let health = snapshots.health();
        let age = |seconds: Option<u64>| seconds.map_or(f64::INFINITY, |seconds| seconds as f64);
        self.age.set(age(health.age_seconds));
        self.verified_age.set(age(health.verified_age_seconds));
        self.target_seen_age.set(age(health.seen_seconds));
        self.target_up.set(i64::from(health.is_there));
        self.succeeded.set(i64::from(health.succeeded));
        self.snapshots.set(health.snapshots.unwrap_or_default() as i64);
        self.missing.set(health.missing as i64);
        for (work, count) in snapshots.failures() {
            self.failures.get_or_create(&WorkLabels { work }).inner().store(count, Ordering::Relaxed);
        }
    }
}
