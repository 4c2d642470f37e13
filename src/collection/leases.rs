//! Leases on the log: records that must be kept for followers (snapshots, copies of the log elsewhere), by name.
//!
//! Invariants: compaction keeps every record after the lowest position of all leases, also of one that was acquired
//! while it was at work; one holder never moves the position of another; a dropped lease holds nothing, unless it is
//! permanent. Leases that must hold from the start exist before the compactor does, and their holders take them over.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::compactor::CompactorBell;
use crate::base::Lsn;

/// The leases of a log.
#[derive(Clone, Default)]
pub(super) struct Leases(Arc<Shared>);

#[derive(Default)]
struct Shared {
    table: Mutex<LeaseTable>,
    /// Locked while segments are replaced, and while a lease is acquired.
    replacing: Mutex<()>,
}

#[derive(Default)]
struct LeaseTable {
    /// By number, since two holders may have the same name.
    leases: BTreeMap<u64, LeaseEntry>,
    next: u64,
}

struct LeaseEntry {
    name: String,
    after: Lsn,
    /// Whether it has had no holder so far.
    is_initial: bool,
}

impl LeaseTable {
    fn insert(&mut self, name: &str, after: Lsn, is_initial: bool) -> u64 {
        let number = self.next;
        self.next += 1;
        self.leases.insert(number, LeaseEntry { name: name.to_owned(), after, is_initial });
        number
    }
}

impl Leases {
    /// Leases without holders, as name and position. The first holder of such a name takes it over.
    pub(super) fn new(initial: &[(String, Lsn)]) -> Self {
        let leases = Self::default();
        {
            let mut table = leases.0.table.lock();
            for (name, after) in initial {
                table.insert(name, *after, true);
            }
        }
        leases
    }

    /// The holder of the lowest position, and that position: every later record stays. `None` without leases.
    pub(super) fn lowest(&self) -> Option<(String, Lsn)> {
        let table = self.0.table.lock();
        let lowest = table.leases.values().min_by_key(|lease| lease.after)?;
        Some((lowest.name.clone(), lowest.after))
    }

    /// Permission to drop records before `end`; `None` when a lease holds some of them. No lease is acquired until it is
    /// dropped.
    pub(super) fn permit_before(&self, end: Lsn) -> Option<MutexGuard<'_, ()>> {
        let permit = self.0.replacing.lock();
        let is_free = |(_, after): (String, Lsn)| end.0 <= after.0.saturating_add(1);
        self.lowest().is_none_or(is_free).then_some(permit)
    }

    pub(super) fn acquire(&self, name: &str, after: Lsn, bell: CompactorBell) -> Lease {
        let _none_is_dropped = self.0.replacing.lock();
        let mut table = self.0.table.lock();
        let initial = table.leases.iter_mut().find(|(_, lease)| lease.is_initial && lease.name == name);
        let number = match initial {
            Some((number, lease)) => {
                *lease = LeaseEntry { name: name.to_owned(), after, is_initial: false };
                *number
            }
            None => table.insert(name, after, false),
        };
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
        if let Some(lease) = self.leases.0.table.lock().leases.get_mut(&self.number) {
            lease.after = lsn;
        }
        self.bell.ring();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_for_good {
            return;
        }
        self.leases.0.table.lock().leases.remove(&self.number);
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

    #[test]
    fn a_lease_from_the_start_holds_until_its_holder_lets_go() {
        let leases = Leases::new(&[("snapshots".to_owned(), Lsn(3))]);
        let lowest = || leases.lowest().map(|(name, after)| format!("{name} {after}"));
        let other = leases.acquire("hub", Lsn(9), CompactorBell::default());
        assert_eq!(lowest().as_deref(), Some("snapshots 3"));
        let holder = leases.acquire("snapshots", Lsn(5), CompactorBell::default());
        assert_eq!(lowest().as_deref(), Some("snapshots 5"), "it was taken over");
        let second = leases.acquire("snapshots", Lsn(4), CompactorBell::default());
        assert_eq!(lowest().as_deref(), Some("snapshots 4"), "there is one to take over");
        drop((second, holder));
        assert_eq!(lowest().as_deref(), Some("hub 9"));
        drop(other);
    }

    #[test]
    fn what_a_lease_holds_is_not_permitted_to_be_dropped() {
        let leases = Leases::default();
        assert!(leases.permit_before(Lsn(100)).is_some());
        let lease = leases.acquire("hub", Lsn(7), CompactorBell::default());
        assert!(leases.permit_before(Lsn(8)).is_some(), "it holds the records after its position");
        assert!(leases.permit_before(Lsn(9)).is_none());
        lease.keep_after(Lsn(8));
        assert!(leases.permit_before(Lsn(9)).is_some());
    }
}
