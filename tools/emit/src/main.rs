//! Writes the attention kernels as CUDA and Metal source, on any machine:
//!
//! ```text
//! cargo run --manifest-path tools/emit/Cargo.toml -- FOLDER
//! ```
//!
//! One file each, `forward-64-plain-f32.cu` and so on, as CubeCL's C++ compiler makes them. A line each on
//! standard output: the name, the units of a cube, and bytes of shared memory. `.ci/cuda` compiles the
//! CUDA ones. (CubeCL's default for CUDA is its LLVM compiler, whose registers may differ.)

use std::path::Path;
use std::sync::Arc;

use cubecl::ir::{
    ContiguousElements, DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties,
    MatrixLayout, MemoryDeviceProperties, MmaProperties, TargetProperties,
};
use cubecl::prelude::*;
use cubecl::{Compiler, CubeKernel};
use cubecl_cpp::shared::{CompilationOptions, CppCompiler};
use cubecl_cpp::target::{Cuda, Metal};
use device::{COLUMNS, Config, UNITS};

#[path = "../../../src/kernels/cube/device/mod.rs"]
mod device;

/// A kernel that reads `tensors` tensors and as many numbers as the `()` say.
macro_rules! kernel {
    ($module:ident :: $function:ident :: $kernel:ident, [$($tensor:ident),*], [$($scalar:expr),*], $($comptime:expr),*) => {
        &|settings: KernelSettings| {
            let properties = Arc::new(properties());
            let kernel = device::$module::$function::$kernel::new(
                settings,
                properties,
                Arc::new(target()),
                $($tensor(),)*
                $($scalar,)*
                $($comptime),*
            );
            kernel.define()
        }
    };
}

/// What a kernel is told of a tensor before it runs: nothing.
fn tensor() -> TensorCompilationArg {
    TensorCompilationArg {
        meta: TensorMetaCompilationArg { len: (), rank: () },
        buffer: BufferCompilationArg { inplace: None },
    }
}

fn main() {
    let folder = std::env::args().nth(1).expect("usage: emit FOLDER");
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).expect("a folder to write to");
    for kind in [FloatKind::F32, FloatKind::F16, FloatKind::BF16] {
        let dtype = ElemType::Float(kind);
        for width in [64, 128] {
            for (options, everything) in [("plain", false), ("everything", true)] {
                // As src/kernels/cube/launch.rs has it: fewer rows where the sums would not fit.
                let config = |sums: usize| Config {
                    rows: if sums > 192 { 32 } else { 64 },
                    head_chunks: width / COLUMNS,
                    value_chunks: width / COLUMNS,
                    softcap: everything,
                    bias: everything,
                    sinks: false,
                    slopes: everything,
                    dropout: everything,
                };
                let forward = Config { sinks: everything, ..config(width) };
                let decode = Config { rows: device::decode::ROWS, dropout: false, ..config(width) };
                let whole = Config {
                    head_chunks: 0,
                    value_chunks: 0,
                    softcap: false,
                    bias: false,
                    slopes: false,
                    sinks: everything,
                    ..decode
                };
                let kernels: [(&str, &dyn Fn(KernelSettings) -> KernelDefinition); 8] = [
                    ("forward", kernel!(forward::forward::Forward, [tensor, tensor, tensor, tensor, tensor, tensor, tensor, tensor], [(), (), (), (), (), ()], forward, dtype)),
                    ("decode_parts", kernel!(decode::decode_parts::DecodeParts, [tensor, tensor, tensor, tensor, tensor, tensor], [(), ()], decode, dtype)),
                    ("decode_whole", kernel!(decode::decode_whole::DecodeWhole, [tensor, tensor, tensor, tensor], [], whole, dtype)),
                    ("row_numbers", kernel!(row_numbers::row_numbers::RowNumbers, [tensor, tensor, tensor, tensor], [], dtype)),
                    ("query_gradient", kernel!(query_gradient::query_gradient::QueryGradient, [tensor, tensor, tensor, tensor, tensor, tensor, tensor, tensor], [(), (), (), (), (), ()], config(width), dtype)),
                    ("key_value_gradients", kernel!(key_value_gradients::key_value_gradients::KeyValueGradients, [tensor, tensor, tensor, tensor, tensor, tensor, tensor, tensor, tensor], [(), (), (), (), (), ()], config(2 * width), dtype)),
                    ("bias_gradient", kernel!(bias_gradient::bias_gradient::BiasGradient, [tensor, tensor, tensor, tensor, tensor, tensor, tensor, tensor], [(), (), (), (), (), ()], config(0), dtype)),
                    ("sinks_gradient", kernel!(sinks_gradient::sinks_gradient::SinksGradient, [tensor, tensor, tensor], [()], dtype)),
                ];
                for (name, define) in kernels {
                    let name = format!("{name}-{width}-{options}-{}", dtype_name(kind));
                    write(folder, &name, define);
                }
            }
        }
    }
}

fn dtype_name(kind: FloatKind) -> String {
    format!("{kind:?}").to_lowercase()
}

fn write(folder: &Path, name: &str, define: &dyn Fn(KernelSettings) -> KernelDefinition) {
    let definition = || {
        let dim = CubeDim::new_1d(UNITS as u32);
        define(KernelSettings::new(dim.into(), ExecutionMode::Unchecked, AddressType::U32))
    };
    let options = CompilationOptions::default();
    let cuda = CppCompiler::<Cuda>::default().compile(definition(), &options).expect(name);
    std::fs::write(folder.join(format!("{name}.cu")), &cuda.source).expect(name);
    let metal = CppCompiler::<Metal>::default().compile(definition(), &options).expect(name);
    std::fs::write(folder.join(format!("{name}.metal")), &metal.source).expect(name);
    println!("{name} {UNITS} {}", cuda.shared_memory_size);
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

fn target() -> TargetProperties {
    TargetProperties {
        mma: MmaProperties {
            register_size_bits: 32,
            const_plane_size: 32,
            register_layout_a: MatrixLayout::RowMajor,
            register_layout_b: MatrixLayout::ColMajor,
            register_layout_acc: MatrixLayout::RowMajor,
            register_duplication_a: 1,
            register_duplication_b: 1,
            register_duplication_acc: 1,
            contiguous_elements: ContiguousElements::new(|_, _| 1),
        },
    }
}
