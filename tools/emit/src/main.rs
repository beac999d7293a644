//! Writes the attention kernels as CUDA, Metal and WGSL source, on any machine:
//!
//! ```text
//! cargo run --manifest-path tools/emit/Cargo.toml -- FOLDER [PART OF A NAME]
//! ```
//!
//! One file each, `forward-64-plain-f32.cu` and so on, as CubeCL's compilers make them. A line each on
//! standard output: the name, the units of a cube, and bytes of shared memory. `.ci/cuda` compiles the
//! CUDA ones. (CubeCL's default for CUDA is its LLVM compiler, whose registers may differ.) The WGSL
//! ones are held to what browsers ask for, see `webgpu`.

mod webgpu;

use std::path::Path;
use std::sync::Arc;

use cubecl::ir::features::{Features, MmaConfig};
use cubecl::ir::{
    DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties,
    MemoryDeviceProperties, MmaProperties, TargetProperties,
};
use cubecl::prelude::*;
use cubecl::{Compiler, CubeKernel, WgpuCompilationOptions};
use cubecl_cpp::shared::{CompilationOptions, CppCompiler};
use cubecl_cpp::target::{Cuda, Metal};
use cubecl_wgpu::WgslCompiler;
use device::{COLUMNS, Config, OWN, UNITS, matrix};

// Some of it is for the launches.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/kernels/cube/device/mod.rs"]
mod device;

/// A kernel, given what it is told of its arguments before it runs: of tensors and scalars nothing.
macro_rules! kernel {
    ($($path:ident)::+, $($argument:expr),*) => {
        &|settings: KernelSettings| {
            let target = TargetProperties { mma: MmaProperties::default() };
            let (properties, target) = (Arc::new(properties()), Arc::new(target));
            device::$($path)::+::new(settings, properties, target, $($argument),*).define()
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

/// Bytes of shared memory that NVIDIA's cards give a cube, and that browsers do.
const SHARED_OF_CARDS: usize = 48 << 10;
const PROMISED_BY_WEBGPU: usize = 16 << 10;

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = args.next().expect("usage: emit FOLDER [PART OF A NAME]");
    let wanted = args.next().unwrap_or_default();
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).expect("a folder to write to");
    for kind in [FloatKind::F32, FloatKind::F16, FloatKind::BF16] {
        let dtype = ElemType::Float(kind);
        let sizes = [("", SHARED_OF_CARDS), ("-small", PROMISED_BY_WEBGPU)];
        for (width, (size, shared)) in [64, 128].into_iter().flat_map(|w| sizes.map(|s| (w, s))) {
            for (options, everything) in [("plain", false), ("everything", true)] {
                // As src/kernels/cube/launch.rs has it, for long sequences.
                let chunks = width / COLUMNS;
                let cfg = |scores, sums| {
                    Config {
                        rows: 64,
                        column_quads: 1,
                        head_chunks: chunks,
                        value_chunks: chunks,
                        softcap: everything,
                        slopes: everything,
                        dropout: everything,
                    }
                    .fitted(usize::MAX, scores, sums, shared)
                };
                let [forward, query, key_value] =
                    [cfg(1, chunks), cfg(2, chunks), cfg(2, 2 * chunks)];
                let bias = Config { rows: 64, column_quads: 1, ..forward };
                let decode = Config { dropout: false, ..bias };
                let more = everything;
                type Kernel<'a> = (&'a str, usize, &'a dyn Fn(KernelSettings) -> KernelDefinition);
                #[rustfmt::skip]
                let kernels: [Kernel; 8] = [
                    ("forward", forward.units(), kernel!(forward::forward::Forward,
                        t(), t(), t(), t(), t(), t(), optional!(more), optional!(more), optional!(more),
                        (), (), (), (), (), (), forward, [dtype; 2])),
                    ("decode_parts", UNITS, kernel!(decode::decode_parts::DecodeParts,
                        t(), t(), t(), t(), t(), optional!(more), (), (), decode, [dtype; 2])),
                    ("decode_whole", UNITS, kernel!(decode::decode_whole::DecodeWhole,
                        t(), t(), t(), optional!(more), dtype)),
                    ("row_numbers", UNITS, kernel!(row_numbers::row_numbers::RowNumbers,
                        t(), t(), t(), t(), dtype)),
                    ("query_gradient", query.units(), kernel!(query_gradient::query_gradient::QueryGradient,
                        t(), t(), t(), t(), t(), t(), t(), optional!(more), optional!(more),
                        (), (), (), (), (), (), query, dtype)),
                    ("key_value_gradients", key_value.units(), kernel!(key_value_gradients::key_value_gradients::KeyValueGradients,
                        t(), t(), t(), t(), t(), t(), optional!(true), optional!(true), optional!(more), optional!(more),
                        (), (), (), (), (), (), key_value, dtype)),
                    ("bias_gradient", bias.units(), kernel!(bias_gradient::bias_gradient::BiasGradient,
                        t(), t(), t(), t(), t(), t(), t(), optional!(true), optional!(more),
                        (), (), (), (), (), (), bias, dtype)),
                    ("sinks_gradient", UNITS, kernel!(sinks_gradient::sinks_gradient::SinksGradient,
                        t(), t(), t(), (), dtype)),
                ];
                let single = cfg(2, chunks);
                // The two launches of an adapter with few bindings: no CUDA device, and not with bf16.
                #[rustfmt::skip]
                let split: [Kernel; 2] = [
                    ("key_gradient", single.units(), kernel!(key_value_gradients::key_value_gradients::KeyValueGradients,
                        t(), t(), t(), t(), t(), t(), optional!(true), optional!(false), optional!(more), optional!(more),
                        (), (), (), (), (), (), single, dtype)),
                    ("value_gradient", single.units(), kernel!(key_value_gradients::key_value_gradients::KeyValueGradients,
                        t(), t(), t(), t(), t(), t(), optional!(false), optional!(true), optional!(more), optional!(more),
                        (), (), (), (), (), (), single, dtype)),
                ];
                let name =
                    |name: &str| format!("{name}-{width}-{options}{size}-{}", dtype_name(kind));
                // By tensor cores; of gradients, for heads of 64.
                #[rustfmt::skip]
                let by_matrix: [Kernel; 3] = [
                    ("matrix_forward", matrix::UNITS, kernel!(matrix::forward::matrix_forward::MatrixForward,
                        t(), t(), t(), t(), t(), t(), optional!(more), optional!(more), optional!(more),
                        (), (), (), (), (), (), OWN, bias, dtype)),
                    ("matrix_query_gradient", matrix::UNITS, kernel!(matrix::query_gradient::matrix_query_gradient::MatrixQueryGradient,
                        t(), t(), t(), t(), t(), t(), t(), optional!(more), optional!(more),
                        (), (), (), (), (), (), OWN, bias, dtype)),
                    ("matrix_key_value_gradients", matrix::UNITS, kernel!(matrix::key_value_gradients::matrix_key_value_gradients::MatrixKeyValueGradients,
                        t(), t(), t(), t(), t(), t(), optional!(true), optional!(true), optional!(more), optional!(more),
                        (), (), (), (), (), (), OWN, bias, dtype)),
                ];
                if kind != FloatKind::F32 && shared == SHARED_OF_CARDS {
                    let tiles = [1, 2, 2];
                    for ((kernel, units, define), tiles) in by_matrix.into_iter().zip(tiles) {
                        if name(kernel).contains(&wanted) && matrix::bytes(chunks, tiles) <= shared
                        {
                            write_cuda(folder, &name(kernel), units, define);
                        }
                    }
                }
                let wanted = |(kernel, ..): &Kernel| name(kernel).contains(&wanted);
                for (kernel, units, define) in kernels.into_iter().filter(wanted) {
                    write_cpp(folder, &name(kernel), units, define);
                }
                // WGSL has no bf16.
                if kind != FloatKind::BF16 && shared == PROMISED_BY_WEBGPU {
                    for (kernel, units, define) in kernels.into_iter().chain(split).filter(wanted) {
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

fn write_cuda(
    folder: &Path,
    name: &str,
    units: usize,
    define: &dyn Fn(KernelSettings) -> KernelDefinition,
) {
    let options = CompilationOptions::default();
    let cuda = definition(units, define);
    let cuda = CppCompiler::<Cuda>::default().compile(cuda, &options).expect(name);
    std::fs::write(folder.join(format!("{name}.cu")), &cuda.source).expect(name);
    println!("{name} {units} {}", cuda.shared_memory_size);
}

fn write_cpp(
    folder: &Path,
    name: &str,
    units: usize,
    define: &dyn Fn(KernelSettings) -> KernelDefinition,
) {
    write_cuda(folder, name, units, define);
    let metal = definition(units, define);
    let options = CompilationOptions::default();
    let metal = CppCompiler::<Metal>::default().compile(metal, &options).expect(name);
    std::fs::write(folder.join(format!("{name}.metal")), &metal.source).expect(name);
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

/// Those of a GPU of NVIDIA's, as far as the kernels ask.
fn properties() -> DeviceProperties {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: SHARED_OF_CARDS,
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
    let mut features = Features::default();
    for kind in [FloatKind::F16, FloatKind::BF16] {
        let [a_type, cd_type] = [kind, FloatKind::F32].map(ElemType::Float);
        features.matmul.cmma.insert(MmaConfig {
            a_type,
            b_type: a_type,
            cd_type,
            m: 16,
            n: 16,
            k: 16,
        });
    }
    DeviceProperties::new(
        features,
        MemoryDeviceProperties::new(1 << 30, 256),
        hardware,
        cubecl::profile::TimingMethod::System,
        DeviceIdentity::default(),
    )
}
