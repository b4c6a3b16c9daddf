//! The promises of every launcher, and the bench that each is put on.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use forebay_autoscaler::act::{Instance, InstanceState, Launcher, Order};
use forebay_schemas::ModelId;
use tokio::time::{Instant, interval};

/// The longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where a launcher shows what it does.
pub trait Bench {
    /// A launcher as an autoscaler that was just started has it.
    fn launcher(&self) -> Box<dyn Launcher>;

    /// Has a worker that runs end by itself, as one that fails does: with exit code 3.
    fn crash(&self, name: &str) -> impl Future<Output = ()>;
}

pub fn model() -> ModelId {
    "all-minilm-l6-v2".parse().unwrap()
}

pub fn other_model() -> ModelId {
    "bge.small_en".parse().unwrap()
}

/// An order under a name that is unique on this machine: other tests run at the same time.
pub fn order(model: &ModelId) -> Order {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number =
        u64::from(std::process::id()) << 8 | u64::from(NUMBER.fetch_add(1, Ordering::Relaxed));
    Order { model: model.clone(), name: format!("{model}-{number:08x}"), device: "cpu".into() }
}

/// Lists a launcher's workers again and again, and keeps what it found.
pub struct Watch<'a> {
    launcher: &'a dyn Launcher,
    models: Vec<ModelId>,
    /// The workers of the last look that had not ended.
    pub now: Vec<Instance>,
    /// How workers ended, at whichever look that was listed, and whether well.
    pub ends: BTreeMap<String, (String, bool)>,
}

impl<'a> Watch<'a> {
    pub fn new(launcher: &'a dyn Launcher, models: &[ModelId]) -> Self {
        let models = models.to_vec();
        Self { launcher, models, now: Vec::new(), ends: BTreeMap::new() }
    }

    pub async fn look(&mut self) {
        self.now.clear();
        for instance in self.launcher.list(&self.models).await.unwrap() {
            // It may list workers of other models too.
            if !self.models.iter().any(|model| model.as_str() == instance.model) {
                continue;
            }
            assert!(instance.launched_at_ms > 0, "{instance:?}");
            match &instance.state {
                InstanceState::Ended { how, well } => {
                    self.ends.insert(instance.name, (how.clone(), *well));
                }
                _ => self.now.push(instance),
            }
        }
    }

    pub async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        let mut tick = interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            self.look().await;
            if holds(self) {
                return;
            }
            let now = &self.now;
            let ends = &self.ends;
            assert!(begun.elapsed() < PATIENCE, "not in time: {what}; {now:?}, ended {ends:?}");
        }
    }

    /// The names of those in a state, in order.
    pub fn names(&self, state: &InstanceState) -> Vec<String> {
        let mut names: Vec<_> = self.now.iter().filter(|one| one.state == *state).collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        names.into_iter().map(|one| one.name.clone()).collect()
    }

    pub fn running(&self) -> Vec<String> {
        self.names(&InstanceState::Running)
    }

    /// How a worker ended. A pod's container ends under a name that begins with the pod's.
    pub fn end_of(&self, name: &str) -> Option<&(String, bool)> {
        let life = format!("{name}#");
        self.ends
            .iter()
            .find(|(listed, _)| *listed == name || listed.starts_with(&life))
            .map(|end| end.1)
    }
}

/// Launches so many workers and waits until they run.
pub async fn launch(launcher: &dyn Launcher, count: u32) -> Watch<'_> {
    for _ in 0..count {
        launcher.launch(&order(&model())).await.unwrap();
    }
    let mut watch = Watch::new(launcher, &[model()]);
    watch.until("all run", |watch| watch.running().len() == count as usize).await;
    watch
}

pub async fn what_is_launched_comes_to_run(bench: &impl Bench) {
    let launcher = bench.launcher();
    assert_eq!(launcher.list(&[model()]).await.unwrap(), []);
    let watch = launch(&*launcher, 2).await;
    assert_eq!(watch.now.len(), 2, "{:?}", watch.now);
    assert!(watch.ends.is_empty(), "{:?}", watch.ends);
}

pub async fn models_are_distinguished(bench: &impl Bench) {
    let launcher = bench.launcher();
    let watch = launch(&*launcher, 1).await;
    launcher.launch(&order(&other_model())).await.unwrap();
    let mut others = Watch::new(&*launcher, &[other_model()]);
    others.until("the other runs", |others| others.running().len() == 1).await;
    assert_ne!(others.running(), watch.running());
    let mut both = Watch::new(&*launcher, &[model(), other_model()]);
    both.look().await;
    assert_eq!(both.running().len(), 2);
    // A name of another model is none of this one's.
    launcher.drain(&model(), &others.running()).await.unwrap();
    both.look().await;
    assert_eq!(both.running().len(), 2);
}

pub async fn what_is_drained_ends_well_and_nothing_else_does(bench: &impl Bench) {
    let launcher = bench.launcher();
    let mut watch = launch(&*launcher, 3).await;
    let before = watch.running();
    let drained = vec![before[1].clone()];
    launcher.drain(&model(), &drained).await.unwrap();
    // Asked again, as after an answer that was lost.
    launcher.drain(&model(), &drained).await.unwrap();
    watch.until("it ended", |watch| watch.end_of(&drained[0]).is_some()).await;
    assert!(watch.end_of(&drained[0]).unwrap().1, "{:?}", watch.ends);
    launcher.drain(&model(), &drained).await.unwrap();
    launcher.drain(&model(), &["never-there".to_owned()]).await.unwrap();
    watch.look().await;
    let rest = [before[0].clone(), before[2].clone()];
    assert_eq!(watch.running(), rest);
    assert_eq!(watch.now.len(), 2, "{:?}", watch.now);
    assert_eq!(watch.ends.len(), 1, "{:?}", watch.ends);
}

pub async fn what_is_ended_is_gone(bench: &impl Bench) {
    let launcher = bench.launcher();
    let mut watch = launch(&*launcher, 2).await;
    let name = watch.running()[0].clone();
    launcher.end(&name).await.unwrap();
    launcher.end(&name).await.unwrap();
    launcher.end("never-there").await.unwrap();
    watch.until("it is gone", |watch| watch.now.iter().all(|one| one.name != name)).await;
}

pub async fn the_next_autoscaler_adopts_what_is_there(bench: &impl Bench) {
    let first = bench.launcher();
    let before = launch(&*first, 2).await.now;
    let second = bench.launcher();
    let mut watch = Watch::new(&*second, &[model()]);
    watch.look().await;
    assert_eq!(watch.now, before);
    let names = watch.running();
    second.drain(&model(), &names).await.unwrap();
    watch.until("both ended", |watch| watch.now.is_empty()).await;
}

pub async fn an_end_by_itself_is_listed_once_with_how(bench: &impl Bench) {
    let launcher = bench.launcher();
    let mut watch = launch(&*launcher, 1).await;
    let name = watch.running()[0].clone();
    bench.crash(&name).await;
    watch.until("its end is listed", |watch| watch.end_of(&name).is_some()).await;
    let (how, well) = watch.end_of(&name).unwrap().clone();
    assert!(how.contains("exit code 3"), "{how}");
    assert!(!well);
    watch.ends.clear();
    for _ in 0..3 {
        watch.look().await;
    }
    assert!(watch.ends.is_empty(), "listed again: {:?}", watch.ends);
}

/// Holds a launcher to all of it. `$bench` is awaited and gives a bench, or none where it can't be had.
macro_rules! holds {
    ($bench:expr; $($promise:ident)*) => {
        $(#[tokio::test]
        async fn $promise() {
            if let Some(bench) = $bench.await {
                $crate::contract::$promise(&bench).await;
            }
        })*
    };
    ($bench:expr) => {
        $crate::contract::holds! { $bench;
            what_is_launched_comes_to_run
            models_are_distinguished
            what_is_drained_ends_well_and_nothing_else_does
            what_is_ended_is_gone
            the_next_autoscaler_adopts_what_is_there
            an_end_by_itself_is_listed_once_with_how
        }
    };
}
pub(crate) use holds;
