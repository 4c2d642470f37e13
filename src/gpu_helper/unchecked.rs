//! Shaders without the checks that wgpu writes into every access, loop and division. The only module of the helper with `unsafe`.
//!
//! With them each read is clamped to its buffer and each loop counts its rounds in two more registers, where nothing is done but to read
//! and to add up.

#![allow(unsafe_code)]

/// The module of a shader of this program.
///
/// What is passed has to stay within its buffers whatever they hold, to end each of its loops, and to divide by nothing that may be 0;
/// `kernels.rs` says for each access why it does.
pub fn module(device: &wgpu::Device, source: &str) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(source.into()) };
    // SAFETY: `kernels.rs` is the only caller; its shaders do what is said above.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

/// Leave to use what wgpu calls experimental: matrices of 16 × 16, by which `tiles.wgsl` scores.
pub fn experiments() -> wgpu::ExperimentalFeatures {
    // SAFETY: such features may do what they should not. This program is one of its own for that reason, and its answers are checked.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
