//! The crate's own parity check, on every device.

use burn_decoder::attention::Kernel;
use burn_decoder::verify;

use crate::backends::is_cpu;

on_each_backend! {
    fn every_kernel_is_right(device: Device) {
        let found = verify(&device);
        println!("{found}");
        assert!(found.is_right(), "{found}");
        let has = |kernel| found.verified.iter().any(|verified| verified.kernel == kernel);
        assert!(has(Kernel::Reference) && has(Kernel::Backend));
        assert!(has(Kernel::Fused) || !is_cpu(&device));
        assert_eq!(found.adapter.is_some(), !is_cpu(&device));
    }
}
