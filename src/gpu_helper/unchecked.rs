//! Shaders without the checks that wgpu adds to every access, loop and division. The only module of the helper with
//! `unsafe`.
//!
//! With the checks, each read is clamped to its buffer and each loop counts its rounds in two more registers, although
//! the shaders only read and add up.

#![allow(unsafe_code)]

/// The module of a shader of this program.
///
/// The shader must stay within its buffers whatever they contain, end each of its loops, and never divide by something
/// that may be 0; `kernels.rs` justifies this for each access.
pub fn module(device: &wgpu::Device, source: &str) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(source.into()) };
    // SAFETY: `kernels.rs` is the only caller; its shaders fulfil the conditions above.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

/// Permission to use features that wgpu calls experimental: matrices of 16 × 16, which `tiles.wgsl` uses for scoring.
pub fn experiments() -> wgpu::ExperimentalFeatures {
    // SAFETY: such features may be faulty. This program is separate for that reason, and its results are checked.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
