//! The parameters of a module, looked at without making them: a fresh module's cost memory only
//! once their values are asked for.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

/// A parameter that may not have a value yet.
pub struct Parameter {
    /// Its place in the module, without the names of enum variants.
    pub path: String,
    pub shape: Vec<usize>,
    pub device: Device,
}

/// All float parameters of `module`, in the order of its fields. Those of this crate have no others.
pub fn parameters(module: &impl Module) -> Vec<Parameter> {
    let mut collector = Collector { path: Vec::new(), found: Vec::new() };
    module.visit(&mut collector);
    collector.found
}

struct Collector {
    path: Vec<String>,
    found: Vec<Parameter>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if !container_type.starts_with("Enum:") {
            self.path.push(name.into());
        }
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        if !container_type.starts_with("Enum:") {
            self.path.pop();
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(Parameter {
            path: self.path.join("."),
            shape: param.lazy_shape().to_vec(),
            device: param.lazy_device(),
        });
    }
}
