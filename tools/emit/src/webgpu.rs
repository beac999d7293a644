//! What browsers ask of a shader: that it is valid, with every barrier in uniform control flow, and that
//! it keeps to the limits that WebGPU promises everywhere.

use naga::front::wgsl;
use naga::proc::Layouter;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module};

/// Storage buffers of a shader.
const BUFFERS: usize = 8;
/// Bytes of shared memory.
const SHARED: u32 = 16 << 10;
/// Units of a cube.
const UNITS: u32 = 256;

/// Panics where a shader is not valid, or needs too much of shared memory or units. Of buffers it says
/// how many are more than promised: adapters have more, and a launch asks for them.
pub fn check(name: &str, source: &str) {
    let module = wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(source)));
    let capabilities = if source.contains("enable f16") {
        Capabilities::SHADER_FLOAT16
    } else {
        Capabilities::empty()
    };
    Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(source)));
    let shared = shared(&module);
    assert!(shared <= SHARED, "{name}: {shared} bytes of shared memory");
    let [x, y, z] = module.entry_points[0].workgroup_size;
    assert!(x * y * z <= UNITS, "{name}: {x} x {y} x {z} units");
    let storage = |space| matches!(space, AddressSpace::Storage { .. });
    let buffers = module.global_variables.iter().filter(|(_, global)| storage(global.space));
    let buffers = buffers.count();
    if buffers > BUFFERS {
        eprintln!("{name}: {buffers} storage buffers, WebGPU promises {BUFFERS}");
    }
}

fn shared(module: &Module) -> u32 {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).expect("a validated module");
    let shared = |space| space == AddressSpace::WorkGroup;
    let globals = module.global_variables.iter().filter(|(_, global)| shared(global.space));
    globals.map(|(_, global)| layouter[global.ty].size).sum()
}
