//! The devices of this host on which workers can compute.

use std::path::Path;

use forebay_fabric::config::{AutoscalerConfig, DeviceKind, LauncherKind};

use crate::{
    act::{REMOTE_DEVICE, process::cpu_slots},
    decide::DeviceSlots,
};

/// The slots of the devices of one kind that a launcher has. All of them are free.
pub fn device_slots(
    config: &AutoscalerConfig,
    launcher: LauncherKind,
    kind: DeviceKind,
) -> DeviceSlots {
    let cpu = |slots| DeviceSlots::counted([("cpu".to_owned(), slots)]);
    match (launcher, kind) {
        (LauncherKind::Process | LauncherKind::Docker, DeviceKind::Cuda) => {
            let gpus = config.gpus.clone().unwrap_or_else(|| gpus(Path::new("/dev")));
            let named = gpus.into_iter().map(|n| (format!("cuda:{n}"), config.workers_per_gpu));
            DeviceSlots::counted(named)
        }
        // Such workers wait for an endpoint and take no device from those that compute. Their pool's size bounds them,
        // and the launcher's own limit, where it has one.
        (_, DeviceKind::Remote) => DeviceSlots::unlimited(REMOTE_DEVICE),
        (LauncherKind::Process, DeviceKind::Cpu) => cpu(cpu_slots(&config.process)),
        (LauncherKind::Docker, DeviceKind::Cpu) => cpu(config.docker.workers_max),
        (LauncherKind::Kubernetes | LauncherKind::None, DeviceKind::Cpu) => {
            DeviceSlots::unlimited("cpu")
        }
        (LauncherKind::Kubernetes | LauncherKind::None, DeviceKind::Cuda) => {
            DeviceSlots::unlimited("cuda:0")
        }
    }
}

/// The numbers of the GPUs that NVIDIA's driver shows in a folder of devices.
fn gpus(folder: &Path) -> Vec<u32> {
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let number = |file: std::fs::DirEntry| {
        file.file_name().to_str()?.strip_prefix("nvidia")?.parse::<u32>().ok()
    };
    let mut numbers: Vec<u32> = files.filter_map(Result::ok).filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_configured_gpu_has_workers_per_gpu_slots() {
        let config = AutoscalerConfig {
            gpus: Some(vec![0, 2]),
            workers_per_gpu: 2,
            ..AutoscalerConfig::default()
        };
        let mut slots = device_slots(&config, LauncherKind::Process, DeviceKind::Cuda);
        assert_eq!(slots.total(), 4);
        assert_eq!(slots.take(3), ["cuda:0", "cuda:2", "cuda:0"]);
    }

    #[test]
    fn a_cluster_finds_devices_by_itself() {
        let config = AutoscalerConfig::default();
        let mut slots = device_slots(&config, LauncherKind::Kubernetes, DeviceKind::Cuda);
        assert_eq!((slots.total(), slots.take(2)), (u32::MAX, vec!["cuda:0".to_owned(); 2]));
    }

    #[test]
    fn workers_of_an_endpoint_take_no_slot() {
        let config = AutoscalerConfig::default();
        let mut slots = device_slots(&config, LauncherKind::Process, DeviceKind::Remote);
        assert_eq!((slots.total(), slots.take(1)), (u32::MAX, vec!["remote".to_owned()]));
    }

    #[test]
    fn gpus_are_found_by_their_device_files() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nvidia1", "nvidia0", "nvidiactl", "nvidia-uvm", "null"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(gpus(folder.path()), [0, 1]);
        assert!(gpus(&folder.path().join("nowhere")).is_empty());
    }
}
