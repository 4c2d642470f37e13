//! The thread behind the queue: it opens the device, loads collections, decides which of them the GPU answers, and
//! answers.
//!
//! # Which collections
//! Collections with fewer than [`ROWS_MIN`] passages stay on the CPU. Others are loaded as halves, or as bytes if
//! halves do not fit, and stay on the CPU if those do not fit either: nothing is streamed through the device, since a
//! bus is no faster than the CPU's memory. Then, unless the settings require the GPU in any case, both search for eight
//! of the collection's own vectors. The GPU answers if a query in a batch of eight takes it less time than the CPU
//! takes for one, and a single query at most [`LATER_MAX`] more. A collection that has doubled is reviewed again.
//!
//! # Memory
//! A collection that does not fit is refused. When it is searched, it takes the memory of one that was not used since
//! [`Options::idle`](super::service::Options); this is retried until it succeeds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use half::f16;

use super::resident::{Resident, row_bytes};
use super::service::{
    DeviceResult, DeviceState, FILTER_BYTES_MAX, PATIENCE, PendingQuery, Queue, Seat, Shared, Use, Vectors,
};
use super::{Adapter, Answer, Failure, Format, Gpu, GpuError, QUERIES_MAX};

/// Smaller collections are scanned by the CPU within microseconds.
const ROWS_MIN: usize = 4_096;
/// How much longer than on the CPU a single query may take.
const LATER_MAX: Duration = Duration::from_millis(1);
/// Time limit of a batch; a device that exceeds it is given up.
const BATCH_PATIENCE: Duration = Duration::from_secs(2);
/// The same for the first of a kind, for which shaders are compiled.
const FIRST_PATIENCE: Duration = Duration::from_secs(30);
/// Delay before a failed device is retried: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// A device that worked for this long is retried after the shorter delay.
const HEALTHY: Duration = Duration::from_secs(60);
/// Queries come in quick succession when the next one follows a batch within this time.
const CLOSE: Duration = Duration::from_millis(1);
/// After this many batches a collection that waits for a review gets a step, even if queries wait.
const BATCHES_BETWEEN_REVIEWS: usize = 16;
/// Queries that may always share a batch.
const TOGETHER_MIN: usize = 8;
/// How long nothing waits while a collection is measured.
const MEASURING: Duration = Duration::from_secs(10);
/// Queries that both sides answer for comparison, and the number of results.
const COMPARED: usize = 8;
const COMPARED_LIMIT: usize = 50;
/// How long a device runs before it is measured.
const WAKING: Duration = Duration::from_millis(200);
/// How many more candidates bytes take than halves.
const BYTES_FACTOR: usize = 4;

/// A collection.
struct Member {
    seat: Arc<Seat>,
    vectors: Weak<dyn Vectors>,
    resident: Option<Resident>,
    format: Format,
    /// Rows at the last comparison, and its result.
    compared: Option<(usize, Comparison)>,
    /// When it was last used.
    used: Instant,
}

/// The cost of a query.
#[derive(Clone, Copy)]
struct Comparison {
    cpu: Duration,
    alone: Duration,
    of_eight: Duration,
}

impl Comparison {
    fn is_for_gpu(self) -> bool {
        self.of_eight < self.cpu && self.alone <= self.cpu + LATER_MAX
    }

    fn reason(self) -> String {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let (cpu, alone, of_eight) = (millis(self.cpu), millis(self.alone), millis(self.of_eight));
        format!(
            "a question takes the GPU {alone:.2} ms alone and {of_eight:.2} ms of eight together, the CPU {cpu:.2} ms"
        )
    }
}

struct Device {
    gpu: Gpu,
    since: Instant,
}

/// The last batch.
struct LastBatch {
    seat: u64,
    questions: usize,
    ended: Instant,
}

/// The next action.
enum NextStep {
    Stop,
    Open,
    Answer(Vec<PendingQuery>),
    Review,
    OfferRoom,
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    device: Option<Device>,
    members: BTreeMap<u64, Member>,
    /// Members to review, each once.
    reviews: VecDeque<u64>,
    /// Batches since the last review.
    batches: usize,
    /// When refused members are considered again.
    room_at: Instant,
    last: Option<LastBatch>,
    /// When to open the device, and how long to wait after the next failure.
    open_at: Instant,
    back_off: Duration,
    /// There was a device before, so another one is searched for.
    was_open: bool,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            device: None,
            members: BTreeMap::new(),
            reviews: VecDeque::new(),
            batches: 0,
            room_at: Instant::now(),
            last: None,
            open_at: Instant::now(),
            back_off: BACK_OFF.0,
            was_open: false,
        }
    }

    /// Runs until it is told to stop, or there is no device.
    pub(super) fn run(mut self) {
        loop {
            match self.next() {
                NextStep::Stop => break,
                NextStep::Open => {
                    if !self.open() {
                        break;
                    }
                }
                NextStep::Answer(questions) => self.answer(questions),
                NextStep::Review => self.review_next(),
                NextStep::OfferRoom => self.offer_room(),
            }
        }
    }

    /// Schedules a review of a member, at most once.
    fn review_at(&mut self, id: u64) {
        if !self.reviews.contains(&id) {
            self.reviews.push_back(id);
        }
    }

    fn next(&mut self) -> NextStep {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        loop {
            for (seat, vectors) in std::mem::take(&mut queue.members) {
                self.reviews.push_back(seat.id());
                let member =
                    Member { seat, vectors, resident: None, format: Format::F16, compared: None, used: Instant::now() };
                self.members.insert(member.seat.id(), member);
            }
            std::mem::take(&mut queue.reviews).into_iter().for_each(|seat| self.review_at(seat));
            if queue.is_stopping {
                return NextStep::Stop;
            }
            if self.device.is_none() {
                shared.give_up(std::mem::take(&mut queue.questions).into(), "failed");
                if Instant::now() >= self.open_at {
                    return NextStep::Open;
                }
                shared.rung.wait_until(&mut queue, self.open_at);
                continue;
            }
            let is_refused = self.members.values().any(|member| member.seat.is_refused());
            let is_room_due = is_refused && Instant::now() >= self.room_at;
            let is_review_due = self.batches >= BATCHES_BETWEEN_REVIEWS && (is_room_due || !self.reviews.is_empty());
            if !queue.questions.is_empty() && !is_review_due {
                return NextStep::Answer(self.gather(&mut queue));
            }
            if is_room_due {
                return NextStep::OfferRoom;
            }
            if !self.reviews.is_empty() {
                return NextStep::Review;
            }
            if is_refused {
                shared.rung.wait_until(&mut queue, self.room_at);
            } else {
                shared.rung.wait(&mut queue);
            }
        }
    }

    /// The queries of a batch: those about the collection of the first; the queue is not empty.
    fn gather(&self, queue: &mut parking_lot::MutexGuard<'_, Queue>) -> Vec<PendingQuery> {
        let Some((seat, asked)) = queue.questions.front().map(|first| (first.seat.id(), first.asked)) else {
            return Vec::new();
        };
        if let Some(last) = &self.last
            && last.seat == seat
            && last.questions > 1
            && last.ended.elapsed() < CLOSE
        {
            // Under load, as many queries as were answered together may soon come again together.
            let due = asked + self.shared.options.batch_wait;
            while queue.questions.len() < last.questions.min(QUERIES_MAX) && !queue.is_stopping {
                if self.shared.rung.wait_until(queue, due).timed_out() {
                    break;
                }
            }
        }
        // At most as many as it can answer before any of them has waited in vain.
        let of_eight = self.members.get(&seat).and_then(|member| Some(member.compared?.1.of_eight));
        let most = of_eight.filter(|time| !time.is_zero()).map_or(QUERIES_MAX, |time| {
            let fits = (PATIENCE.as_nanos() / 2 / time.as_nanos()) as usize;
            fits.clamp(TOGETHER_MIN, QUERIES_MAX)
        });
        let (mut filters, mut filter_bytes) = (Vec::new(), 0);
        let mut together = Vec::new();
        let mut others = VecDeque::with_capacity(queue.questions.len());
        for question in queue.questions.drain(..) {
            let filter = question.allowed.as_ref().map(|allowed| Arc::as_ptr(allowed) as usize);
            let is_new = filter.is_some_and(|filter| !filters.contains(&filter));
            let more = question.allowed.as_ref().filter(|_| is_new).map_or(0, |allowed| allowed.bytes());
            let fits = question.seat.id() == seat && together.len() < most && filter_bytes + more <= FILTER_BYTES_MAX;
            if !fits {
                others.push_back(question);
                continue;
            }
            filter_bytes += more;
            filters.extend(filter.filter(|_| is_new));
            // The caller has stopped waiting.
            if !question.reply.is_closed() {
                together.push(question);
            }
        }
        queue.questions = others;
        together
    }

    fn answer(&mut self, mut questions: Vec<PendingQuery>) {
        let Some(first) = questions.first() else { return };
        let shared = Arc::clone(&self.shared);
        let id = first.seat.id();
        self.batches += 1;
        let (loaded, most) = (self.loaded_bytes(), shared.options.memory_bytes_max);
        let Some(device) = &mut self.device else { return shared.give_up(questions, "failed") };
        let Some(member) = self.members.get_mut(&id) else { return shared.give_up(questions, "changed") };
        let Some(vectors) = member.vectors.upgrade() else { return shared.give_up(questions, "changed") };
        let Some(resident) = &mut member.resident else { return shared.give_up(questions, "loading") };
        member.used = Instant::now();
        let snapshot = vectors.snapshot();
        drop(vectors);
        if resident.generation != snapshot.generation {
            member.seat.close("it was rewritten and is being loaded");
        }
        let has_room = most == 0 || loaded + resident.growth(&snapshot) <= most;
        let followed = if has_room { resident.follow(&mut device.gpu, &snapshot) } else { Ok(false) };
        match followed {
            Ok(true) => {}
            Ok(false) => {
                self.review_at(id);
                return shared.give_up(questions, "loading");
            }
            Err(error) => {
                shared.give_up(questions, "failed");
                return self.failed(id, &error);
            }
        }
        let generation = resident.generation;
        let foreign = |question: &mut PendingQuery| {
            question.allowed.as_ref().is_some_and(|allowed| allowed.generation() != generation)
        };
        let foreign: Vec<PendingQuery> = questions.extract_if(.., foreign).collect();
        shared.give_up(foreign, "changed");
        if questions.is_empty() {
            return;
        }
        let wanted = questions.iter().map(|question| question.wanted).max().unwrap_or_default();
        let queries: Vec<&[f16]> = questions.iter().map(|question| &*question.query).collect();
        let (filters, filter_of) = filters(&questions, resident.rows);
        let sent = Instant::now();
        let metrics = &shared.metrics;
        for question in &questions {
            metrics.queue_seconds.observe(sent.duration_since(question.asked).as_secs_f64());
        }
        metrics.batch_questions.observe(questions.len() as f64);
        let found = device.gpu.search(&resident.matrix, &queries, wanted as u32, (filters, filter_of), BATCH_PATIENCE);
        match found {
            Ok(answer) => {
                metrics.batch_seconds.observe(sent.elapsed().as_secs_f64());
                metrics.kernel_seconds.observe(answer.on_device.unwrap_or(answer.took).as_secs_f64());
                metrics.scanned_bytes.inc_by(resident.bytes() * u64::from(answer.passes));
                metrics.questions.inc_by(questions.len() as u64);
                let rows = resident.rows;
                let asked = questions.len();
                reply(questions, answer, generation, rows);
                self.last = Some(LastBatch { seat: id, questions: asked, ended: Instant::now() });
            }
            Err(error) => {
                shared.give_up(questions, "failed");
                self.failed(id, &error);
            }
        }
        self.shared.goes_on();
    }

    /// One step for the member that has waited longest.
    fn review_next(&mut self) {
        let Some(id) = self.reviews.pop_front() else { return };
        self.batches = 0;
        let Some(member) = self.members.get(&id) else { return };
        member.seat.take_refusal();
        let Some(vectors) = member.vectors.upgrade() else {
            self.unload(id);
            self.members.remove(&id);
            self.offer_room();
            return;
        };
        match self.step(id, &*vectors) {
            Ok(true) => {}
            // The others get a step first.
            Ok(false) => self.review_at(id),
            Err(error) => self.failed(id, &error),
        }
    }

    /// Loads a slice, or decides once all is loaded. Returns whether the member is done.
    fn step(&mut self, id: u64, vectors: &dyn Vectors) -> Result<bool, GpuError> {
        let snapshot = vectors.snapshot();
        let Some(member) = self.members.get_mut(&id) else { return Ok(true) };
        if snapshot.live < ROWS_MIN {
            member.seat.close(format!("it has fewer than {ROWS_MIN} passages, which the CPU scans in no time"));
            member.seat.review_at(snapshot.rows - snapshot.live + ROWS_MIN);
            if self.unload(id) {
                self.offer_room();
            }
            return Ok(true);
        }
        if member.resident.as_ref().is_some_and(|resident| resident.generation != snapshot.generation) {
            member.seat.close("it was rewritten and is being loaded");
            self.unload(id);
        }
        let Some(member) = self.members.get(&id) else { return Ok(true) };
        let loaded = self.loaded_bytes() - member.resident.as_ref().map_or(0, Resident::bytes);
        let needed = snapshot.rows as u64 * row_bytes(member.format, snapshot.dimensions);
        let most = self.shared.options.memory_bytes_max;
        // What is loaded may need more memory than its rows.
        let needed = needed.max(member.resident.as_ref().map_or(0, Resident::bytes));
        if most > 0 && loaded + needed > most {
            return Ok(self.make_room(id));
        }
        let (Some(device), Some(member)) = (&mut self.device, self.members.get_mut(&id)) else { return Ok(true) };
        let gpu = &mut device.gpu;
        let before = member.resident.as_ref().map_or(0, |resident| resident.rows);
        let is_whole = match &mut member.resident {
            Some(resident) => resident.proceed(gpu, &snapshot)?,
            None => {
                member.seat.close("it is being loaded");
                let resident = Resident::create(gpu, &snapshot, member.format)?;
                let is_whole = resident.rows >= snapshot.rows;
                member.resident = Some(resident);
                is_whole
            }
        };
        let Some(resident) = &mut member.resident else { return Ok(true) };
        let transferred = (resident.rows - before) * snapshot.dimensions * size_of::<f16>();
        self.shared.metrics.transferred_bytes.inc_by(transferred as u64);
        if !is_whole {
            self.tell_memory();
            return Ok(false);
        }
        resident.forget(gpu, &snapshot)?;
        let comparison = match member.compared {
            Some((rows, comparison)) if snapshot.rows < rows * 2 => comparison,
            _ => {
                // Nothing waits meanwhile: shaders may have to be compiled.
                self.shared.stall(MEASURING);
                let waiting = std::mem::take(&mut self.shared.queue.lock().questions);
                self.shared.give_up(waiting.into(), "busy");
                let comparison = compare(gpu, resident, vectors)?;
                self.shared.goes_on();
                member.compared = Some((snapshot.rows, comparison));
                comparison
            }
        };
        let format = resident.format;
        member.seat.review_at(member.compared.map_or(snapshot.rows, |(rows, _)| rows) * 2);
        let is_wanted = self.shared.options.how != Use::Auto;
        if is_wanted || comparison.is_for_gpu() {
            let factor = if format == Format::I8 { BYTES_FACTOR } else { 1 };
            let kind = if format == Format::I8 { " (as bytes: halves find no room)" } else { "" };
            member.seat.open(factor, format!("{}{kind}", comparison.reason()));
            self.tell_memory();
        } else {
            member.seat.close(comparison.reason());
            self.unload(id);
            self.offer_room();
        }
        Ok(true)
    }

    /// Handles a failure of the device for a member.
    fn failed(&mut self, id: u64, error: &GpuError) {
        match error {
            GpuError::Failed { failure: Failure::OutOfMemory, .. } => {
                // The device may have appended some of the rows, and it is unknown how many.
                self.unload(id);
                if !self.make_room(id) {
                    self.review_at(id);
                }
            }
            GpuError::Failed { failure: Failure::BadRequest, message } => {
                tracing::warn!(reason = message, "the GPU helper refuses a collection, which the CPU searches");
                if let Some(member) = self.members.get(&id) {
                    member.seat.close(format!("the helper refuses it: {message}"));
                }
                self.unload(id);
            }
            GpuError::Failed { .. } | GpuError::Start(_) | GpuError::Helper { .. } | GpuError::Memory(_) => {
                self.lose(error);
            }
        }
    }

    /// Takes the memory of an idle member, or retries with a smaller format; returns whether the member is done because
    /// nothing helps.
    fn make_room(&mut self, id: u64) -> bool {
        let idle_after = self.shared.options.idle;
        let is_idle = |member: &Member| member.resident.is_some() && member.used.elapsed() >= idle_after;
        let idle = self.members.iter().filter(|(other, member)| **other != id && is_idle(member));
        let idle = idle.min_by_key(|(_, member)| member.used).map(|(other, member)| (*other, Arc::clone(&member.seat)));
        if let Some((other, seat)) = idle {
            seat.refuse("its room was given to a collection that is searched more");
            self.unload(other);
            return false;
        }
        self.unload(id);
        let Some(member) = self.members.get_mut(&id) else { return true };
        if member.format == Format::F16 {
            member.format = Format::I8;
            member.compared = None;
            return false;
        }
        member.format = Format::F16;
        member.seat.refuse("it finds no room on the device; index.gpu_memory_bytes_max says how much may be taken");
        self.room_at = Instant::now() + idle_after;
        true
    }

    /// Schedules reviews of refused members that are searched.
    fn offer_room(&mut self) {
        self.room_at = Instant::now() + self.shared.options.idle;
        let is_wanted = |member: &Member| member.seat.is_refused() && self.shared.is_wanted(&member.seat);
        let wanted: Vec<u64> = self.members.iter().filter(|(_, member)| is_wanted(member)).map(|(id, _)| *id).collect();
        for id in wanted {
            if let Some(member) = self.members.get_mut(&id) {
                member.used = Instant::now();
            }
            self.review_at(id);
        }
    }

    /// Releases the memory of a member; returns whether it had some.
    fn unload(&mut self, id: u64) -> bool {
        let resident = self.members.get_mut(&id).and_then(|member| member.resident.take());
        let (Some(resident), Some(device)) = (resident, &mut self.device) else { return false };
        if let Err(error) = device.gpu.unload(resident.matrix) {
            self.lose(&error);
        }
        self.tell_memory();
        true
    }

    fn loaded_bytes(&self) -> u64 {
        self.members.values().filter_map(|member| member.resident.as_ref()).map(Resident::bytes).sum()
    }

    fn tell_memory(&self) {
        self.shared.metrics.memory_bytes.set(self.loaded_bytes().cast_signed());
    }

    /// Opens the device. `false` when there is none and none is expected.
    fn open(&mut self) -> bool {
        if self.shared.options.how == Use::Auto && !self.was_open && !has_device_files() {
            self.absent("this machine has no device files of a GPU (/dev/dri/renderD*, /dev/nvidia*)".to_owned());
            return false;
        }
        self.shared.metrics.starts.inc();
        let started = Gpu::start().inspect(|gpu| *self.shared.breaker.lock() = gpu.breaker().ok());
        if self.is_stopping() {
            return true;
        }
        let opened = started.and_then(|mut gpu| {
            let adapter = gpu.open(self.shared.options.how == Use::Software)?;
            Ok((gpu, adapter))
        });
        match opened {
            Ok((gpu, adapter)) => {
                tracing::info!(gpu = adapter.name, driver = adapter.driver, "the GPU is open");
                self.opened(gpu, adapter);
                true
            }
            Err(error) if self.is_hopeless(&error) => {
                self.absent(error.to_string());
                false
            }
            Err(error) => {
                self.lose(&error);
                true
            }
        }
    }

    /// On a machine without a GPU no further attempt is made, unless the settings require one or there was one: its
    /// driver may be being replaced.
    fn is_hopeless(&self, error: &GpuError) -> bool {
        let is_absent = matches!(error, GpuError::Start(_) | GpuError::Failed { failure: Failure::NoDevice, .. });
        is_absent && self.shared.options.how == Use::Auto && !self.was_open
    }

    /// There is no device, and no further attempt is made.
    fn absent(&self, reason: String) {
        tracing::info!(reason, "no GPU is used");
        *self.shared.state.lock() = DeviceState::Absent { reason };
    }

    fn opened(&mut self, gpu: Gpu, adapter: Adapter) {
        self.device = Some(Device { gpu, since: Instant::now() });
        self.was_open = true;
        self.shared.metrics.up.set(1);
        self.shared.goes_on();
        *self.shared.state.lock() = DeviceState::Ready { adapter };
        self.reviews = self.members.keys().copied().collect();
        // It may be another device or driver, and its shaders must be compiled before anything waits for them.
        self.members.values_mut().for_each(|member| member.compared = None);
    }

    fn is_stopping(&self) -> bool {
        self.shared.queue.lock().is_stopping
    }

    /// Gives up the device and everything on it.
    fn lose(&mut self, error: &GpuError) {
        if self.device.take().is_some_and(|device| device.since.elapsed() >= HEALTHY) {
            self.back_off = BACK_OFF.0;
        }
        if self.is_stopping() {
            // It was ended for that.
            return;
        }
        let again_in = self.back_off;
        self.open_at = Instant::now() + again_in;
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        let reason = crate::base::with_causes(error);
        tracing::warn!(reason, again_in_s = again_in.as_secs(), "the GPU failed; the CPU searches");
        for member in self.members.values_mut() {
            member.resident = None;
            member.seat.close(format!("the GPU failed: {reason}"));
        }
        self.shared.metrics.up.set(0);
        self.tell_memory();
        self.shared.goes_on();
        *self.shared.state.lock() = DeviceState::Failed { reason, again_in };
    }
}

impl Drop for Worker {
    /// Also when the thread panics: nothing must wait for answers that never come.
    fn drop(&mut self) {
        let reason = self.shared.why_over();
        *self.shared.breaker.lock() = None;
        let mut queue = self.shared.queue.lock();
        queue.is_over = true;
        queue.questions.clear();
        for (seat, _) in queue.members.drain(..) {
            seat.close(reason.clone());
        }
        for member in self.members.values() {
            member.seat.close(reason.clone());
        }
    }
}

/// Whether any file exists by which a driver reaches a GPU: checking is free, starting the helper takes a quarter of a
/// second.
fn has_device_files() -> bool {
    let has = |directory: &str, is_gpu: fn(&str) -> bool| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| is_gpu(&entry.file_name().to_string_lossy()))
    };
    // WSL's is /dev/dxg.
    has("/dev/dri", |name| name.starts_with("renderD"))
        || has("/dev", |name| name.starts_with("nvidia") || name == "dxg")
}

/// The filters of a batch, and the filter of each query: 1 is the first, 0 none.
fn filters(questions: &[PendingQuery], rows: usize) -> (Vec<Vec<u32>>, Vec<u32>) {
    let mut known: Vec<*const super::super::vector::RowSet> = Vec::new();
    let mut filters = Vec::new();
    let mut filter_of = Vec::with_capacity(questions.len());
    for question in questions {
        let Some(allowed) = &question.allowed else {
            filter_of.push(0);
            continue;
        };
        let place = known.iter().position(|known| *known == Arc::as_ptr(allowed)).unwrap_or_else(|| {
            let words = (0..rows.div_ceil(64)).map(|index| allowed.word(index));
            filters.push(words.flat_map(|word| [word as u32, (word >> 32) as u32]).collect());
            known.push(Arc::as_ptr(allowed));
            known.len() - 1
        });
        filter_of.push(place as u32 + 1);
    }
    (filters, filter_of)
}

fn reply(questions: Vec<PendingQuery>, answer: Answer, generation: u64, rows: usize) {
    for (question, mut scored) in questions.into_iter().zip(answer.results) {
        scored.truncate(question.wanted);
        // The caller has stopped waiting.
        let _ = question.reply.send(DeviceResult { generation, rows, wanted: question.wanted, scored });
    }
}

/// Searches for a few of the collection's vectors on both sides. The first batches of each size compile the shaders.
fn compare(gpu: &mut Gpu, resident: &Resident, vectors: &dyn Vectors) -> Result<Comparison, GpuError> {
    let samples = vectors.samples(COMPARED);
    let Some(first) = samples.first() else {
        return Ok(Comparison { cpu: Duration::ZERO, alone: Duration::ZERO, of_eight: Duration::ZERO });
    };
    let mut search = |queries: &[&[f16]], patience| {
        let start = Instant::now();
        let none = (Vec::new(), vec![0; queries.len()]);
        gpu.search(&resident.matrix, queries, COMPARED_LIMIT as u32, none, patience).map(|_| start.elapsed())
    };
    for size in [1, 2, 4, 8, 16, 32] {
        search(&vec![&**first; size], FIRST_PATIENCE)?;
    }
    let all: Vec<&[f16]> = samples.iter().map(Vec::as_slice).collect();
    // During compilation the device is idle, and its clock drops.
    let awake = Instant::now() + WAKING;
    while Instant::now() < awake {
        search(&all, BATCH_PATIENCE)?;
    }
    let (mut cpu, mut alone, mut of_eight) = (Vec::new(), Vec::new(), Vec::new());
    for sample in &all {
        let start = Instant::now();
        vectors.search_by_cpu(sample, COMPARED_LIMIT);
        cpu.push(start.elapsed());
        alone.push(search(&[sample], BATCH_PATIENCE)?);
        of_eight.push(search(&all, BATCH_PATIENCE)? / all.len() as u32);
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    Ok(Comparison { cpu: median(cpu), alone: median(alone), of_eight: median(of_eight) })
}
