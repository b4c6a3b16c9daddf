//! The places where workers of this host can compute, and which of them are free.

use std::{collections::BTreeMap, path::Path};

use forebay_fabric::config::{AutoscalerConfig, DeviceKind, LauncherKind};

use crate::act::process::cpu_slots;

/// How often each device can be given to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    places: BTreeMap<String, u32>,
}

impl Devices {
    /// The devices of one kind that a launcher has; `None` when it finds them by itself and there is no telling how
    /// many there are.
    pub fn of(config: &AutoscalerConfig, launcher: LauncherKind, kind: DeviceKind) -> Option<Self> {
        let places = match (launcher, kind) {
            (LauncherKind::Process | LauncherKind::Docker, DeviceKind::Cuda) => {
                let gpus = config.gpus.clone().unwrap_or_else(|| gpus(Path::new("/dev")));
                gpus.into_iter().map(|n| (format!("cuda:{n}"), config.workers_per_gpu)).collect()
            }
            (LauncherKind::Process, DeviceKind::Cpu) => one("cpu", cpu_slots(&config.process)),
            (LauncherKind::Docker, DeviceKind::Cpu) => one("cpu", config.docker.workers_max),
            (LauncherKind::Kubernetes | LauncherKind::None, _) => return None,
        };
        Some(Self { places })
    }

    /// How many workers find a place.
    pub fn places(&self) -> u32 {
        self.places.values().sum()
    }

    /// Free places for `count` more workers while these are taken: on the emptiest device first. Fewer when there are
    /// fewer.
    pub fn free(&self, taken: &[String], count: usize) -> Vec<String> {
        let mut used: BTreeMap<&str, u32> = BTreeMap::new();
        for device in taken {
            *used.entry(device).or_default() += 1;
        }
        let mut found = Vec::new();
        while found.len() < count {
            let free = self.places.iter().filter_map(|(device, places)| {
                let used = used.get(device.as_str()).copied().unwrap_or(0);
                (used < *places).then_some((used, device))
            });
            let Some((_, device)) = free.min() else { break };
            *used.entry(device).or_default() += 1;
            found.push(device.clone());
        }
        found
    }
}

fn one(device: &str, places: u32) -> BTreeMap<String, u32> {
    BTreeMap::from([(device.to_owned(), places)])
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

    fn taken(devices: &[&str]) -> Vec<String> {
        devices.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_workers_never_get_one_gpu_unless_told_to() {
        let mut config = AutoscalerConfig { gpus: Some(vec![0, 2]), ..AutoscalerConfig::default() };
        let of = |config: &AutoscalerConfig| {
            Devices::of(config, LauncherKind::Process, DeviceKind::Cuda).unwrap()
        };
        assert_eq!(of(&config).free(&[], 5), ["cuda:0", "cuda:2"]);
        assert_eq!(of(&config).free(&taken(&["cuda:0"]), 5), ["cuda:2"]);
        assert!(of(&config).free(&taken(&["cuda:0", "cuda:2"]), 5).is_empty());
        config.workers_per_gpu = 2;
        assert_eq!(of(&config).free(&taken(&["cuda:0"]), 2), ["cuda:2", "cuda:0"]);
        assert_eq!(of(&config).places(), 4);
    }

    #[test]
    fn a_gpu_that_is_no_longer_ours_does_not_make_room_elsewhere() {
        let config = AutoscalerConfig { gpus: Some(vec![1]), ..AutoscalerConfig::default() };
        let devices = Devices::of(&config, LauncherKind::Process, DeviceKind::Cuda).unwrap();
        assert_eq!(devices.free(&taken(&["cuda:0"]), 1), ["cuda:1"]);
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
