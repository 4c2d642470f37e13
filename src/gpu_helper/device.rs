//! The adapter and its device: waits are always bounded, and failures are errors rather than panics.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use wgpu::{DeviceType, Features, SubmissionIndex};

use crate::protocol::{Adapter, AdapterKind};
use crate::unchecked;

/// Time limit of a submission. Drivers' watchdogs end theirs after seconds, and the CPU answers the waiting query long
/// before.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for a rasteriser, which is for tests: it shares the cores with everything else on the machine.
const PATIENCE_SOFTWARE: Duration = Duration::from_secs(300);

/// How long a wait spins before it sleeps. On an H200, waking up took 40 to 90 µs, and most searches of a million
/// vectors took less than this.
const AWAKE: Duration = Duration::from_millis(1);
/// Bytes of workgroup memory that `tiles.wgsl` uses.
const TILES_BYTES: u32 = 17_024;

/// Why the device failed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no Vulkan, or no usable adapter.
    #[error("{0}")]
    NoAdapter(String),
    /// The adapter refused to open its device.
    #[error("the device cannot be opened: {0}")]
    Open(String),
    /// The request does not fit into its memory.
    #[error("the device's memory is used up: {0}")]
    OutOfMemory(String),
    /// More rows than it supports.
    #[error("the device searches among {most} rows at most")]
    TooMany { most: u64 },
    /// It rejected a command.
    #[error("the device refused a command: {0}")]
    Refused(String),
    /// It was lost or reset.
    #[error("the device was lost: {0}")]
    Lost(String),
    /// It did not answer.
    #[error("the device did not finish within {} s", .0.as_secs())]
    Hangs(Duration),
}

/// A device with its queue.
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    lost: Arc<OnceLock<String>>,
    patience: Duration,
}

/// The adapters that Vulkan offers, best first.
pub fn adapters() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    adapters.sort_by_key(|adapter| kind(&adapter.get_info()) as u8);
    adapters
}

/// The description of an adapter.
pub fn describe(adapter: &wgpu::Adapter) -> Adapter {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    Adapter {
        kind: kind(&info),
        name: info.name,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        buffer_bytes_max: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        workgroup_bytes_max: limits.max_compute_workgroup_storage_size,
        has_f16: features.contains(Features::SHADER_F16),
        has_subgroups: features.contains(Features::SUBGROUP),
    }
}

fn kind(info: &wgpu::AdapterInfo) -> AdapterKind {
    match info.device_type {
        DeviceType::DiscreteGpu => AdapterKind::Discrete,
        DeviceType::VirtualGpu => AdapterKind::Virtual,
        DeviceType::IntegratedGpu => AdapterKind::Integrated,
        DeviceType::Other => AdapterKind::Other,
        DeviceType::Cpu => AdapterKind::Software,
    }
}

/// The features that shaders need to multiply matrices (see `tiles.wgsl`).
const TILES: Features = Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(Features::SHADER_F16).union(Features::SUBGROUP);

/// Whether shaders can multiply matrices of 16 x 16 halves and accumulate them as floats, with 32 invocations together.
fn has_tiles(adapter: &wgpu::Adapter) -> bool {
    let info = adapter.get_info();
    adapter.features().contains(TILES)
        && adapter.limits().max_compute_workgroup_storage_size >= TILES_BYTES
        && (info.subgroup_min_size, info.subgroup_max_size) == (32, 32)
        && adapter.cooperative_matrix_properties().iter().any(|shape| {
            (shape.m_size, shape.n_size, shape.k_size) == (16, 16, 16)
                && shape.ab_type == wgpu::CooperativeScalarType::F16
                && shape.cr_type == wgpu::CooperativeScalarType::F32
        })
}

impl Gpu {
    /// Opens an adapter with all of its limits.
    pub fn open(adapter: &wgpu::Adapter) -> Result<Self, DeviceError> {
        let mut wanted = Features::TIMESTAMP_QUERY;
        if has_tiles(adapter) {
            wanted |= TILES;
        }
        let features = adapter.features() & wanted;
        let limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: None,
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: unchecked::experiments(),
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| DeviceError::Open(error.to_string()))?;
        let lost = Arc::new(OnceLock::new());
        let told = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, message| drop(told.set(format!("{reason:?}: {message}"))));
        let told = Arc::clone(&lost);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| drop(told.set(error.to_string()))));
        let patience = match kind(&adapter.get_info()) {
            AdapterKind::Software => PATIENCE_SOFTWARE,
            AdapterKind::Discrete | AdapterKind::Virtual | AdapterKind::Integrated | AdapterKind::Other => PATIENCE,
        };
        Ok(Self { device, queue, limits, lost, patience })
    }

    /// Does `work`, and returns the device's error, if any.
    pub fn checked<T>(&self, work: impl FnOnce() -> T) -> Result<T, DeviceError> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let done = work();
        let refused = pollster::block_on(validation.pop());
        let broken = pollster::block_on(internal.pop());
        let memory = pollster::block_on(memory.pop());
        if let Some(error) = memory {
            return Err(DeviceError::OutOfMemory(error.to_string()));
        }
        if let Some(error) = refused.or(broken) {
            return Err(self.loss().unwrap_or_else(|| DeviceError::Refused(error.to_string())));
        }
        self.loss().map_or(Ok(done), Err)
    }

    /// Whether shaders can multiply matrices.
    pub fn has_tiles(&self) -> bool {
        self.device.features().contains(TILES)
    }

    /// Maximum bytes of a buffer and of one binding.
    pub fn binding_bytes_max(&self) -> u64 {
        self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size)
    }

    /// Waits until a submission is done: spins first, since waking up takes as long as many searches.
    pub fn wait(&self, submission: Option<SubmissionIndex>) -> Result<(), DeviceError> {
        let begun = Instant::now();
        while begun.elapsed() < AWAKE {
            if self.device.poll(wgpu::PollType::Poll).is_ok_and(|status| status.is_queue_empty()) {
                return self.loss().map_or(Ok(()), Err);
            }
        }
        let wait = wgpu::PollType::Wait { submission_index: submission, timeout: Some(self.patience) };
        match self.device.poll(wait) {
            Ok(_) => self.loss().map_or(Ok(()), Err),
            Err(wgpu::PollError::Timeout) => Err(self.loss().unwrap_or(DeviceError::Hangs(self.patience))),
            Err(error) => Err(DeviceError::Refused(error.to_string())),
        }
    }

    fn loss(&self) -> Option<DeviceError> {
        self.lost.get().cloned().map(DeviceError::Lost)
    }
}
