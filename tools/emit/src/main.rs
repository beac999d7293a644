//! Writes the attention kernels as CUDA, Metal and WGSL source, on any machine:
//!
//! ```text
//! cargo run --manifest-path tools/emit/Cargo.toml -- FOLDER
//! ```
//!
//! One file each, `forward-64-plain-f32.cu` and so on, as CubeCL's compilers make them. A line each on
//! standard output: the name, the units of a cube, and bytes of shared memory. `.ci/cuda` compiles the
//! CUDA ones. (CubeCL's default for CUDA is its LLVM compiler, whose registers may differ.) The WGSL
//! ones are held to what browsers ask for, see `webgpu`.

mod webgpu;

use std::path::Path;
use std::sync::Arc;

use cubecl::ir::{
    DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties,
    MemoryDeviceProperties, MmaProperties, TargetProperties,
};
use cubecl::prelude::*;
use cubecl::{Compiler, CubeKernel, WgpuCompilationOptions};
use cubecl_cpp::shared::{CompilationOptions, CppCompiler};
use cubecl_cpp::target::{Cuda, Metal};
use cubecl_wgpu::WgslCompiler;
use device::{COLUMNS, Config, UNITS};

#[path = "../../../src/kernels/cube/device/mod.rs"]
mod device;

/// A kernel, given what it is told of its arguments before it runs: of tensors and scalars nothing.
macro_rules! kernel {
    ($module:ident :: $function:ident :: $kernel:ident, $($argument:expr),*) => {
        &|settings: KernelSettings| {
            let target = TargetProperties { mma: MmaProperties::default() };
            let (properties, target) = (Arc::new(properties()), Arc::new(target));
            device::$module::$function::$kernel::new(settings, properties, target, $($argument),*).define()
        }
    };
}

/// A tensor.
fn t() -> TensorCompilationArg {
    TensorCompilationArg {
        meta: TensorMetaCompilationArg { len: (), rank: () },
        buffer: BufferCompilationArg { inplace: None },
    }
}

/// A tensor that may be missing.
macro_rules! optional {
    ($there:expr) => {
        if $there {
            ComptimeOptionCompilationArg::Some(t())
        } else {
            ComptimeOptionCompilationArg::None
        }
    };
}

fn main() {
    let folder = std::env::args().nth(1).expect("usage: emit FOLDER");
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).expect("a folder to write to");
    for kind in [FloatKind::F32, FloatKind::F16, FloatKind::BF16] {
        let dtype = ElemType::Float(kind);
        for width in [64, 128] {
            for (options, everything) in [("plain", false), ("everything", true)] {
                // As src/kernels/cube/launch.rs has it.
                let cfg = Config {
                    rows: 64,
                    head_chunks: width / COLUMNS,
                    value_chunks: width / COLUMNS,
                    softcap: everything,
                    slopes: everything,
                    dropout: everything,
                };
                let decode = Config { dropout: false, ..cfg };
                let more = everything;
                type Kernel<'a> = (&'a str, usize, &'a dyn Fn(KernelSettings) -> KernelDefinition);
                #[rustfmt::skip]
                let kernels: [Kernel; 8] = [
                    ("forward", cfg.units(), kernel!(forward::forward::Forward,
                        t(), t(), t(), t(), t(), t(), optional!(more), optional!(more), optional!(more),
                        (), (), (), (), (), (), cfg, [dtype; 2])),
                    ("decode_parts", UNITS, kernel!(decode::decode_parts::DecodeParts,
                        t(), t(), t(), t(), t(), optional!(more), (), (), decode, [dtype; 2])),
                    ("decode_whole", UNITS, kernel!(decode::decode_whole::DecodeWhole,
                        t(), t(), t(), optional!(more), dtype)),
                    ("row_numbers", UNITS, kernel!(row_numbers::row_numbers::RowNumbers,
                        t(), t(), t(), t(), dtype)),
                    ("query_gradient", cfg.units(), kernel!(query_gradient::query_gradient::QueryGradient,
                        t(), t(), t(), t(), t(), t(), t(), optional!(more), optional!(more),
                        (), (), (), (), (), (), cfg, dtype)),
                    ("key_value_gradients", cfg.units(), kernel!(key_value_gradients::key_value_gradients::KeyValueGradients,
                        t(), t(), t(), t(), t(), t(), optional!(true), optional!(true), optional!(more), optional!(more),
                        (), (), (), (), (), (), cfg, dtype)),
                    ("bias_gradient", cfg.units(), kernel!(bias_gradient::bias_gradient::BiasGradient,
                        t(), t(), t(), t(), t(), t(), t(), optional!(true), optional!(more),
                        (), (), (), (), (), (), cfg, dtype)),
                    ("sinks_gradient", UNITS, kernel!(sinks_gradient::sinks_gradient::SinksGradient,
                        t(), t(), t(), (), dtype)),
                ];
                // The two launches of an adapter with few bindings: no CUDA device, and not with bf16.
                #[rustfmt::skip]
                let split: [Kernel; 2] = [
                    ("key_gradient", cfg.units(), kernel!(key_value_gradients::key_value_gradients::KeyValueGradients,
                        t(), t(), t(), t(), t(), t(), optional!(true), optional!(false), optional!(more), optional!(more),
                        (), (), (), (), (), (), cfg, dtype)),
                    ("value_gradient", cfg.units(), kernel!(key_value_gradients::key_value_gradients::KeyValueGradients,
                        t(), t(), t(), t(), t(), t(), optional!(false), optional!(true), optional!(more), optional!(more),
                        (), (), (), (), (), (), cfg, dtype)),
                ];
                let name = |name: &str| format!("{name}-{width}-{options}-{}", dtype_name(kind));
                for (kernel, units, define) in kernels {
                    write_cpp(folder, &name(kernel), units, define);
                }
                // WGSL has no bf16.
                if kind != FloatKind::BF16 {
                    for (kernel, units, define) in kernels.into_iter().chain(split) {
                        write_wgsl(folder, &name(kernel), units, define);
                    }
                }
            }
        }
    }
}

fn dtype_name(kind: FloatKind) -> String {
    format!("{kind:?}").to_lowercase()
}

/// A kernel, to be compiled once: a compiler uses it up.
fn definition(
    units: usize,
    define: &dyn Fn(KernelSettings) -> KernelDefinition,
) -> KernelDefinition {
    let dim = CubeDim::new_1d(units as u32);
    define(KernelSettings::new(dim.into(), ExecutionMode::Unchecked, AddressType::U32))
}

fn write_cpp(
    folder: &Path,
    name: &str,
    units: usize,
    define: &dyn Fn(KernelSettings) -> KernelDefinition,
) {
    let options = CompilationOptions::default();
    let cuda = definition(units, define);
    let cuda = CppCompiler::<Cuda>::default().compile(cuda, &options).expect(name);
    std::fs::write(folder.join(format!("{name}.cu")), &cuda.source).expect(name);
    let metal = definition(units, define);
    let metal = CppCompiler::<Metal>::default().compile(metal, &options).expect(name);
    std::fs::write(folder.join(format!("{name}.metal")), &metal.source).expect(name);
    println!("{name} {units} {}", cuda.shared_memory_size);
}

fn write_wgsl(
    folder: &Path,
    name: &str,
    units: usize,
    define: &dyn Fn(KernelSettings) -> KernelDefinition,
) {
    let options = WgpuCompilationOptions::default();
    let wgsl = WgslCompiler.compile(definition(units, define), &options).expect(name).to_string();
    std::fs::write(folder.join(format!("{name}.wgsl")), &wgsl).expect(name);
    webgpu::check(name, &wgsl);
}

/// Those of a GPU of NVIDIA's, as far as the kernels ask: nothing of them does.
fn properties() -> DeviceProperties {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: 48 << 10,
        max_cube_count: (u32::MAX, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        max_vector_size: 16,
        cube_mma_reserved_shared_memory: 0,
    };
    DeviceProperties::new(
        Default::default(),
        MemoryDeviceProperties::new(1 << 30, 256),
        hardware,
        cubecl::profile::TimingMethod::System,
        DeviceIdentity::default(),
    )
}
