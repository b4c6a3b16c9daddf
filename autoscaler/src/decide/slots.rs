//! Device slots: how many workers each device of a launcher takes, and which device a new worker gets.

use std::collections::BTreeMap;

/// The slots of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Device {
    slots: u32,
    used: u32,
}

/// The device slots of one launcher and kind of device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSlots {
    /// The devices by name; `None` where the launcher finds devices by itself and their number is unknown.
    devices: Option<BTreeMap<String, Device>>,
    /// The device of every worker where their number is unknown.
    default: String,
}

impl DeviceSlots {
    /// Slots without a limit, for a launcher that finds devices by itself: every worker gets `device`.
    pub fn unlimited(device: &str) -> Self {
        Self { devices: None, default: device.to_owned() }
    }

    /// Devices by name, each with the number of workers that it takes. All slots are free.
    pub fn counted(devices: impl IntoIterator<Item = (String, u32)>) -> Self {
        let device = |(name, slots)| (name, Device { slots, used: 0 });
        Self { devices: Some(devices.into_iter().map(device).collect()), default: String::new() }
    }

    /// Marks a slot of this device as used. A device that is not among these makes no difference.
    pub fn occupy(&mut self, device: &str) {
        if let Some(device) = self.devices.as_mut().and_then(|devices| devices.get_mut(device)) {
            device.used += 1;
        }
    }

    /// All slots, free and used.
    pub fn total(&self) -> u32 {
        match &self.devices {
            Some(devices) => devices.values().map(|device| device.slots).sum(),
            None => u32::MAX,
        }
    }

    /// Takes `count` free slots, on the emptiest device first; fewer when there are fewer. Returns their devices.
    pub fn take(&mut self, count: usize) -> Vec<String> {
        let Some(devices) = &mut self.devices else { return vec![self.default.clone(); count] };
        let mut taken = Vec::new();
        while taken.len() < count {
            let free = devices.iter_mut().filter(|(_, device)| device.used < device.slots);
            let Some((name, device)) = free.min_by_key(|(name, device)| (device.used, *name))
            else {
                break;
            };
            device.used += 1;
            taken.push(name.clone());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(workers_per_gpu: u32, used: &[&str]) -> DeviceSlots {
        let gpus = ["cuda:0", "cuda:2"].map(|gpu| (gpu.to_owned(), workers_per_gpu));
        let mut slots = DeviceSlots::counted(gpus);
        for device in used {
            slots.occupy(device);
        }
        slots
    }

    #[test]
    fn two_workers_never_get_one_gpu_unless_it_has_two_slots() {
        assert_eq!(slots(1, &[]).take(5), ["cuda:0", "cuda:2"]);
        assert_eq!(slots(1, &["cuda:0"]).take(5), ["cuda:2"]);
        assert!(slots(1, &["cuda:0", "cuda:2"]).take(5).is_empty());
        assert_eq!(slots(2, &["cuda:0"]).take(2), ["cuda:2", "cuda:0"]);
        assert_eq!(slots(2, &[]).total(), 4);
    }

    #[test]
    fn a_slot_is_taken_once() {
        let mut slots = slots(1, &[]);
        assert_eq!(slots.take(1), ["cuda:0"]);
        assert_eq!(slots.take(2), ["cuda:2"]);
    }

    #[test]
    fn a_worker_on_a_gpu_that_is_no_longer_ours_takes_no_slot() {
        assert_eq!(slots(1, &["cuda:1"]).take(5).len(), 2);
    }
}
