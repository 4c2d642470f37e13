//! Leases on the log: records that must be kept for followers (snapshots, copies of the log elsewhere), by name.
//!
//! Invariants: compaction keeps every record after the lowest position of all leases; one holder never moves the
//! position of another; a dropped lease holds nothing, unless it is permanent.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::compactor::CompactorBell;
use crate::base::Lsn;

/// The leases of a log.
#[derive(Clone, Default)]
pub(super) struct Leases(Arc<Mutex<LeaseTable>>);

#[derive(Default)]
struct LeaseTable {
    /// By number, since two holders may have the same name.
    leases: BTreeMap<u64, (String, Lsn)>,
    next: u64,
}

impl Leases {
    /// The holder of the lowest position, and that position: every later record stays. `None` without leases.
    pub(super) fn lowest(&self) -> Option<(String, Lsn)> {
        self.0.lock().leases.values().min_by_key(|(_, after)| *after).cloned()
    }

    pub(super) fn acquire(&self, name: &str, after: Lsn, bell: CompactorBell) -> Lease {
        let mut held = self.0.lock();
        let number = held.next;
        held.next += 1;
        held.leases.insert(number, (name.to_owned(), after));
        Lease { leases: self.clone(), number, bell, is_for_good: false }
    }
}

/// Keeps records in the log until it is dropped; see [`super::Library::lease`].
pub struct Lease {
    leases: Leases,
    number: u64,
    bell: CompactorBell,
    is_for_good: bool,
}

impl Lease {
    /// The same, but it stays until the log is closed: for a follower that continues after the next start, and whose
    /// task ends before the log does.
    #[must_use]
    pub fn for_good(mut self) -> Self {
        self.is_for_good = true;
        self
    }

    /// Keeps every record after `lsn` from now on, and lets go of those up to it.
    pub fn keep_after(&self, lsn: Lsn) {
        if let Some((_, after)) = self.leases.0.lock().leases.get_mut(&self.number) {
            *after = lsn;
        }
        self.bell.ring();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_for_good {
            return;
        }
        self.leases.0.lock().leases.remove(&self.number);
        self.bell.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_position_of_all_counts_and_a_dropped_lease_does_not() {
        let leases = Leases::default();
        let lowest = || leases.lowest().map(|(name, after)| format!("{name} {after}"));
        assert_eq!(lowest(), None);
        let one = leases.acquire("snapshots", Lsn::ZERO, CompactorBell::default());
        let other = leases.acquire("hub", Lsn(7), CompactorBell::default());
        assert_eq!(lowest().as_deref(), Some("snapshots 0"));
        one.keep_after(Lsn(40));
        assert_eq!(lowest().as_deref(), Some("hub 7"), "the other one's position is its own");
        drop(other);
        assert_eq!(lowest().as_deref(), Some("snapshots 40"));
        let again = leases.acquire("snapshots", Lsn(3), CompactorBell::default());
        assert_eq!(lowest().as_deref(), Some("snapshots 3"), "a second holder of the same name");
        drop((one, again));
        assert_eq!(lowest(), None);
        drop(leases.acquire("snapshots", Lsn(5), CompactorBell::default()).for_good());
        assert_eq!(lowest().as_deref(), Some("snapshots 5"));
    }
}
