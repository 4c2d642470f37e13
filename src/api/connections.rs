//! The connections of a listener: their maximum, and which of them are closed for new ones.
//!
//! Invariants: a connection whose request is being answered is never closed; one that waits for its client is, when
//! another one needs its place. Among those, connections without any admitted request are closed first, and among
//! equals those of the address with the most, the longest waiting first: a peer that opens connections and sends
//! nothing takes places from itself, and not from others that share its address and have shown a token. If many are of
//! one kind, a few of another kind are spared.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// Maximum connections closed at a time: searching for them reads all.
const LOT: usize = 32;
/// A peer with fewer connections of a kind has few.
const MANY: usize = 8;

/// Nothing has been asked, or all that was asked is answered: it waits for its client.
const WAITING: u8 = 0;
/// A request has begun, and its body has not arrived.
const RECEIVING: u8 = 1;
/// A request is being answered.
const ANSWERING: u8 = 2;
/// It ends without another answer.
const GIVEN_UP: u8 = 3;

/// The connections of a listener.
pub(super) struct Connections {
    places: Arc<Semaphore>,
    most: usize,
    begun: Instant,
    held: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
}

/// A connection, as its own task and those that need its place see it.
pub(super) struct Connection {
    /// The other end's address.
    remote: IpAddr,
    /// The peer it counts towards.
    peer: IpAddr,
    phase: AtomicU8,
    /// Since when it is in its phase, in milliseconds from the listener's start.
    since: AtomicU64,
    begun: Instant,
    /// Bytes are arriving that will not be read.
    unread: AtomicBool,
    /// A request of it was let in.
    known: AtomicBool,
    task: OnceLock<AbortHandle>,
}

/// An open connection; its place is released when this is dropped.
pub(super) struct OpenConnection {
    connections: Arc<Connections>,
    number: u64,
    connection: Arc<Connection>,
    _place: OwnedSemaphorePermit,
}

impl Connections {
    /// * `most`: connections at once, at least 1.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(most)),
            most,
            begun: Instant::now(),
            held: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// A place for a connection from `peer`. If all are taken, others are closed, and if none can be, this waits.
    pub(super) async fn register(self: &Arc<Self>, peer: IpAddr) -> OpenConnection {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.make_room();
                Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        let connection = Arc::new(Connection {
            remote: peer,
            peer: peer_of(peer),
            phase: AtomicU8::new(WAITING),
            since: AtomicU64::new(self.begun.elapsed().as_millis() as u64),
            begun: self.begun,
            unread: AtomicBool::new(false),
            known: AtomicBool::new(false),
            task: OnceLock::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.held.lock().insert(number, Arc::clone(&connection));
        OpenConnection { connections: Arc::clone(self), number, connection, _place: place }
    }

    /// Whether more than half of the places are taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.places.available_permits() < self.most / 2
    }

    /// Gives up some connections that wait for their clients, strangers before others, and where there are none some whose requests
    /// have not arrived. A few alone are passed over as long as there are many of another kind: they may be clients that are about to ask.
    /// Returns how many; their places are free when their tasks have ended.
    pub(super) fn make_room(&self) -> usize {
        let held = self.held.lock();
        let kinds = [(WAITING, Some(false)), (WAITING, Some(true)), (RECEIVING, None)];
        for (least, (phase, known)) in [MANY, 1].into_iter().flat_map(|least| kinds.map(|kind| (least, kind))) {
            let fits = |held: &Connection| {
                held.phase.load(Ordering::Acquire) == phase && known.is_none_or(|known| held.is_known() == known)
            };
            let mut peers: HashMap<IpAddr, Vec<(u64, &Arc<Connection>)>> = HashMap::new();
            for connection in held.values().filter(|held| fits(held)) {
                let since = connection.since.load(Ordering::Relaxed);
                peers.entry(connection.peer).or_default().push((since, connection));
            }
            let Some(mut greedy) = peers.into_values().max_by_key(Vec::len).filter(|greedy| greedy.len() >= least)
            else {
                continue;
            };
            greedy.sort_by_key(|(since, _)| *since);
            // Not all at once: among them may be clients that are about to ask.
            let lot = LOT.min(greedy.len().div_ceil(8));
            let given_up = greedy.into_iter().filter(|(_, connection)| connection.give_up(phase)).take(lot).count();
            if given_up > 0 {
                return given_up;
            }
        }
        0
    }
}

/// The unit that counts as one peer: an IPv6 network usually belongs to one machine.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

impl OpenConnection {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.held.lock().remove(&self.number);
    }
}

impl Connection {
    /// The other end's address.
    pub(super) fn remote(&self) -> IpAddr {
        self.remote
    }

    /// Registers the task to end when the connection is given up.
    pub(super) fn runs_in(&self, task: AbortHandle) {
        if self.phase.load(Ordering::Acquire) == GIVEN_UP {
            task.abort();
        }
        // Set once, right after the task was made.
        let _ = self.task.set(task);
    }

    /// A request has started. `false`: the connection was given up, and must not be answered.
    pub(super) fn start_receiving(&self) -> bool {
        self.transition(WAITING, RECEIVING)
    }

    /// The request was received completely, or is refused. `false`: the connection was given up.
    pub(super) fn start_answering(&self) -> bool {
        self.transition(RECEIVING, ANSWERING)
    }

    /// Everything that was asked is answered.
    pub(super) fn start_waiting(&self) {
        self.note_time();
        let _ = self.transition(RECEIVING, WAITING) || self.transition(ANSWERING, WAITING);
    }

    /// A request of it was let in.
    pub(super) fn is_let_in(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Marks that the client may still be sending data that will not be read.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// See [`leave_unread`](Self::leave_unread).
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    fn transition(&self, from: u8, to: u8) -> bool {
        self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn note_time(&self) {
        self.since.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Ends the connection unless its state has changed meanwhile.
    fn give_up(&self, phase: u8) -> bool {
        let given_up = self.transition(phase, GIVEN_UP);
        if given_up && let Some(task) = self.task.get() {
            task.abort();
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    async fn place(connections: &Arc<Connections>, peer: &str, at: u64) -> OpenConnection {
        let held = connections.register(address(peer)).await;
        held.connection.since.store(at, Ordering::Relaxed);
        held
    }

    fn is_given_up(held: &OpenConnection) -> bool {
        held.connection.phase.load(Ordering::Relaxed) == GIVEN_UP
    }

    #[tokio::test]
    async fn the_peer_that_has_most_makes_room_and_its_longest_waiting_first() {
        let connections = Connections::new(5);
        let quiet = place(&connections, "10.0.0.1", 1).await;
        let late = place(&connections, "10.0.0.2", 9).await;
        let early = place(&connections, "10.0.0.2", 3).await;
        let busy = place(&connections, "10.0.0.2", 2).await;
        assert!(busy.connection.start_receiving() && busy.connection.start_answering());
        assert_eq!(connections.make_room(), 1);
        assert!(is_given_up(&early) && ![&quiet, &late, &busy].into_iter().any(is_given_up));
        assert!(!early.connection.start_receiving(), "it answers nothing any more");
    }

    #[tokio::test]
    async fn what_is_being_answered_is_never_given_up_and_what_arrives_only_last() {
        let connections = Connections::new(2);
        let (answering, receiving) = (place(&connections, "::1", 1).await, place(&connections, "::1", 2).await);
        assert!(answering.connection.start_receiving() && answering.connection.start_answering());
        assert!(receiving.connection.start_receiving());
        assert_eq!(connections.make_room(), 1);
        assert!(is_given_up(&receiving) && !receiving.connection.start_answering());
        assert_eq!(connections.make_room(), 0);
        drop(receiving);
        answering.connection.start_waiting();
        assert_eq!(connections.make_room(), 1);
    }

    #[tokio::test]
    async fn who_was_let_in_stays_while_strangers_of_the_same_address_wait() {
        let connections = Connections::new(20);
        let owner = place(&connections, "10.0.0.1", 1).await;
        owner.connection.is_let_in();
        let mut flood = Vec::new();
        for at in 2..20 {
            flood.push(place(&connections, "10.0.0.1", at).await);
        }
        let stranger = place(&connections, "10.0.0.2", 1).await;
        while !flood.is_empty() {
            assert!(connections.make_room() > 0);
            flood.retain(|held| !is_given_up(held));
            assert!(!is_given_up(&owner));
        }
        drop(stranger);
        assert_eq!(connections.make_room(), 1, "he makes room when there is nobody else");
    }

    #[test]
    fn one_network_is_one_peer() {
        assert_eq!(peer_of(address("2001:db8:1:2::1")), peer_of(address("2001:db8:1:2:ffff::9")));
        assert_ne!(peer_of(address("2001:db8:1:2::1")), peer_of(address("2001:db8:1:3::1")));
        assert_eq!(peer_of(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }
}
