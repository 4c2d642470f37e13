//! Maintenance in idle times: linking passages into graphs, merging lexical segments, checkpoints, recall checks.
//!
//! One thread, asleep until the indexer signals. It never wakes on an idle node, and writes only to indexes that have
//! changed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::Notify;

use super::views::{Merging, Views};
use crate::store::CollectionId;
use crate::task::{self, Readiness};

/// Passages linked before checking for more urgent work.
const LINK_STEP: usize = 256;
/// How long nothing must be written before segments are merged and files are checkpointed.
const QUIET: Duration = Duration::from_secs(3);

#[derive(Default)]
struct State {
    rung: u64,
    settled: u64,
    stopping: bool,
}

/// Wakes the upkeep thread.
#[derive(Clone)]
pub(super) struct Bell(Arc<(Mutex<State>, Condvar)>);

/// Rows beyond the graph that each search of a collection may have to scan while it is added to: a tenth of what a search costs.
const TAIL_MAX: usize = 4_096;
/// How long a source waits at most for the graph of a collection that is searched, before it adds to what the graph is behind.
const LINKING_PATIENCE: Duration = Duration::from_secs(1);

impl Bell {
    /// Something was written.
    pub(super) fn ring(&self) {
        self.0.0.lock().rung += 1;
        self.0.1.notify_all();
    }
}

/// The thread and its bell.
pub(super) struct Upkeep {
    bell: Bell,
    /// Told of each step of linking.
    linked: Arc<Notify>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Upkeep {
    pub(super) fn start(
        views: Arc<RwLock<HashMap<CollectionId, Arc<Views>>>>,
        readiness: &Readiness,
    ) -> io::Result<Self> {
        let (bell, linked) = (Bell(Arc::default()), Arc::<Notify>::default());
        let thread = {
            let (bell, linked) = (bell.clone(), Arc::clone(&linked));
            task::spawn_vital("upkeep", readiness, move || {
                let _ended = StopOnDrop(&bell);
                run(&views, &bell, &linked);
            })?
        };
        Ok(Self { bell, linked, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Ends the thread at its next step.
    pub(super) fn stop(&self) {
        self.bell.0.0.lock().stopping = true;
        self.bell.0.1.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // A panic was logged when it happened.
            let _ = thread.join();
        }
    }

    /// Waits until the graph of a searched collection has nearly caught up, for at most a second: each search scans the
    /// rows that the graph has not reached, and adding is not slowed down by waiting for work that has to be done
    /// anyway.
    pub(super) async fn let_graph_follow(&self, views: &Views) {
        let patience = tokio::time::sleep(LINKING_PATIENCE);
        tokio::pin!(patience);
        loop {
            let linked = self.linked.notified();
            tokio::pin!(linked);
            linked.as_mut().enable();
            if !views.is_searched() || views.vectors.scanned_tail() <= TAIL_MAX {
                return;
            }
            tokio::select! {
                () = linked => {}
                () = &mut patience => return,
            }
        }
    }

    /// Signals when a graph is worth a check.
    pub(super) fn schedule(&self, views: &RwLock<HashMap<CollectionId, Arc<Views>>>) {
        if views.read().values().any(|view| view.vectors.is_recall_due()) {
            self.bell.ring();
        }
    }

    /// Waits until everything written so far is linked, merged and checkpointed.
    pub(super) fn wait_until_idle(&self) {
        let (state, changed) = &*self.bell.0;
        let mut state = state.lock();
        let target = state.rung;
        while state.settled < target && !state.stopping {
            changed.wait(&mut state);
        }
    }
}

/// Ensures that nothing waits for a thread that has ended for any reason.
struct StopOnDrop<'a>(&'a Bell);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.0.0.lock().stopping = true;
        self.0.0.1.notify_all();
    }
}

fn run(views: &RwLock<HashMap<CollectionId, Arc<Views>>>, bell: &Bell, linked: &Notify) {
    let (state, changed) = &*bell.0;
    loop {
        let seen = {
            let mut state = state.lock();
            while state.rung == state.settled && !state.stopping {
                changed.wait(&mut state);
            }
            if state.stopping {
                return;
            }
            state.rung
        };
        if link(views, bell, linked) {
            continue;
        }
        {
            let mut state = state.lock();
            let quiet = |state: &State| state.rung == seen && !state.stopping;
            let deadline = changed.wait_while_for(&mut state, |state| quiet(state), QUIET);
            if state.stopping {
                return;
            }
            if !deadline.timed_out() {
                continue;
            }
        }
        let all: Vec<Arc<Views>> = views.read().values().cloned().collect();
        for view in all {
            view.check_recall();
            view.checkpoint(Merging::All);
        }
        let mut state = state.lock();
        state.settled = seen;
        changed.notify_all();
    }
}

/// One step of linking in some collection. True when there was something to do.
fn link(views: &RwLock<HashMap<CollectionId, Arc<Views>>>, bell: &Bell, linked: &Notify) -> bool {
    let all: Vec<Arc<Views>> = views.read().values().cloned().collect();
    for view in all {
        while view.vectors.pending_graph() > 0 {
            match view.vectors.build_step(LINK_STEP) {
                Ok(0) => break,
                Ok(_) => linked.notify_waiters(),
                Err(error) => {
                    tracing::warn!(%error, "passages stay out of the vector graph and are scanned instead");
                    break;
                }
            }
            if bell.0.0.lock().stopping {
                return true;
            }
        }
        // Occasionally nothing points to a passage that was linked; it is linked again.
        loop {
            match view.vectors.verify_graph(LINK_STEP) {
                Ok(verified) if verified.checked > 0 => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "the vector graph could not be verified");
                    break;
                }
            }
            let state = bell.0.0.lock();
            if state.stopping || view.vectors.pending_graph() > 0 {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::{Config, DEFAULT_MODEL};
    use super::*;
    use crate::base::{Clock as _, Lsn, SystemClock};
    use crate::index::vector::Trust;
    use crate::store::{CollectionInfo, NewCollection};

    #[tokio::test]
    async fn sources_of_a_collection_that_is_searched_wait_for_its_graph() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config::for_test(directory.path());
        config.vectors.flat_max = 100;
        let new = NewCollection {
            name: "notes".to_owned(),
            description: String::new(),
            model: DEFAULT_MODEL.to_owned(),
            dimensions: 256,
        };
        let info = CollectionInfo::new(Lsn(1), SystemClock.now(), new);
        let view = Views::open(&config, &info, Trust::Verify).expect("opened");
        let rows = TAIL_MAX + 200;
        let vectors: Vec<Vec<f16>> = (0..rows)
            .map(|row| {
                let angle = row as f32 / rows as f32;
                let mut vector = vec![f16::ZERO; 256];
                (vector[row % 200], vector[255]) = (f16::from_f32(angle.cos()), f16::from_f32(angle.sin()));
                vector
            })
            .collect();
        let added: Vec<(u64, &[f16])> = (1..).zip(vectors.iter().map(Vec::as_slice)).collect();
        view.vectors.apply(Lsn(1), &[], &added).expect("applied");
        view.vectors.publish();
        let all = Arc::new(RwLock::new(HashMap::from([(info.id, Arc::new(view))])));
        let view = all.read().values().next().cloned().expect("just made");
        // The bell is not rung, so nothing is linked yet.
        let upkeep = Upkeep::start(Arc::clone(&all), &Readiness::default()).expect("a thread");
        upkeep.let_graph_follow(&view).await;
        assert!(view.vectors.scanned_tail() > TAIL_MAX, "nobody searches, so nobody waits");
        view.note_search();
        let waiting = upkeep.let_graph_follow(&view);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            () = &mut waiting => panic!("searches would have to scan {} rows", view.vectors.scanned_tail()),
            () = std::future::ready(()) => {}
        }
        upkeep.bell().ring();
        waiting.await;
        assert!(view.vectors.scanned_tail() <= TAIL_MAX, "{}", view.vectors.scanned_tail());
        upkeep.stop();
    }
}
