//! One tick: observe, decide, act, report.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use forebay_fabric::{
    Config, Store,
    clock::Clock,
    config::{AutoscalerConfig, DeviceKind, LauncherKind, PoolConfig},
};
use forebay_schemas::{FleetStatus, ModelId, topology::Topology, worker::HEARTBEAT_TTL_MS};
use futures_util::future::join_all;
use metrics::histogram;
use tokio::time::Instant;

use crate::{
    act::{Instance, launchers::Launchers},
    deadlines::Deadlines,
    decide::{self, Decision, PoolInput, Timeouts},
    declaring::Declaring,
    doubted,
    lead::{Held, Lead},
    leaving::Leaving,
    observe::{self, Queues, Sight, devices::device_slots},
    pool::{ModelPool, PoolLook},
    reload::Reload,
    removed::Removed,
    status::{self, Board},
};

/// The part of the autoscaler that scales.
pub struct Scaler {
    /// The configuration that holds now.
    pub config: Config,
    /// Watches the configuration for changes.
    pub reload: Reload,
    /// Declares the queues of models that are new.
    pub declaring: Declaring,
    /// Has the workers' records and the fleet's status.
    pub store: Arc<Store>,
    /// Observes the queues.
    pub queues: Queues,
    /// Keeps the deadlines of jobs that no worker takes.
    pub deadlines: Deadlines,
    /// Leader election.
    pub lead: Lead,
    /// Has the status that `/status` shows.
    pub board: Board,
    /// Goes on evenly when the system's clock is set.
    pub clock: Clock,
    /// This autoscaler's name.
    pub id: String,
    /// The launchers in use.
    pub launchers: Launchers,
    /// The models that were taken out of the configuration.
    pub removed: Removed,
    /// The pools; empty unless this autoscaler leads.
    pub pools: BTreeMap<ModelId, ModelPool>,
    /// The fencing token under which the pools were made.
    pub pools_token: u64,
    /// Models with the launchers that ran them until their configuration was changed.
    pub former_launchers: BTreeSet<(ModelId, LauncherKind)>,
    /// The workers of those models that their former launchers still have.
    pub leaving: BTreeMap<LauncherKind, Leaving>,
}

/// The workers of each launcher, or why it could not list them.
type Listed = BTreeMap<LauncherKind, Result<Vec<Instance>, String>>;

/// How long a tick waits for what it had begun. What takes longer goes on, while its pool is left as it is.
const ACT_WAIT_MAX: Duration = Duration::from_secs(1);
/// The most pools whose launchers are at work at once; the others come at the next tick.
const ACTING_MAX: usize = 64;
/// The longest that a tick waits for the store to take in that workers have ended.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// How long workers may take, by the configuration.
pub fn timeouts(config: &AutoscalerConfig) -> Timeouts {
    Timeouts {
        start_ms: config.start_s_max * 1_000,
        stuck_ms: config.stuck_s * 1_000,
        drain_ms: config.grace_s * 1_000,
        silent_ms: 3 * HEARTBEAT_TTL_MS,
    }
}

impl Scaler {
    /// Takes in changes of the configuration, then runs the fleet if this autoscaler leads.
    pub async fn tick(&mut self) {
        let began = Instant::now();
        if let Some((config, text)) = self.reload.look() {
            self.apply(config, text).await;
        }
        match self.lead.held() {
            Some(held) => self.run_fleet(held).await,
            None => self.watch_the_leader().await,
        }
        histogram!("forebay_tick_ms").record(began.elapsed().as_secs_f64() * 1e3);
    }

    /// Makes a changed configuration hold.
    async fn apply(&mut self, config: Config, text: Option<String>) {
        // With the queue settings that all else was declared with: other ones need a restart.
        let topology = Topology::new(config.models.keys(), &self.config.queues);
        if let Err(error) = self.declaring.declare(topology).await {
            return self.reload.refuse(&error);
        }
        self.reload.accept(text);
        self.removed.accept(&self.config, &config);
        self.config.models = config.models;
        self.launchers.accept(&self.config, self.reload.text.as_deref());
        tracing::info!(models = self.config.models.len(), "the configuration was read again");
    }

    async fn watch_the_leader(&mut self) {
        self.deadlines.release();
        self.forget_pools();
        self.removed.stand_by();
        let leader = self.lead.leader();
        let reported = self.store.status().await.ok().flatten();
        let mut status = reported.unwrap_or_else(|| self.nothing_known());
        status.leads = false;
        status.leader = leader.id;
        status.problems.extend(leader.error);
        self.board.write(status);
    }

    fn forget_pools(&mut self) {
        self.pools.clear();
        self.leaving.clear();
    }

    fn nothing_known(&self) -> FleetStatus {
        FleetStatus {
            v: 1,
            leader: String::new(),
            leads: false,
            token: 0,
            at_ms: self.clock.now_ms(),
            config_read_at_ms: self.reload.read_at_ms,
            problems: Vec::new(),
            pools: Vec::new(),
        }
    }

    async fn run_fleet(&mut self, held: Held) {
        if self.pools_token != held.token {
            self.forget_pools();
            self.pools_token = held.token;
        }
        self.launchers.make(&self.config, self.reload.text.as_deref());
        let models = self.models();
        let mut names: Vec<ModelId> = models.iter().map(|(model, _)| model.clone()).collect();
        names.dedup();
        let (mut sight, listed) = tokio::join!(
            observe::look(&self.queues, &self.store, &names),
            self.launchers.list(&models)
        );
        let now_ms = self.clock.now_ms();
        self.deadlines.count_in(&mut sight);
        self.deadlines.step(now_ms, &sight, |model| may_have_workers(&listed, model));
        self.keep_pools(&listed);
        for pool in self.pools.values_mut() {
            pool.acted(now_ms, Instant::now()).await;
        }
        let mut looks = self.look_at_pools(now_ms, &sight, &listed);
        take_in_ends(&self.store, &looks).await;
        let timeouts = timeouts(&self.config.autoscaler);
        doubted::ask(&mut self.pools, &mut looks, &self.launchers, &timeouts).await;
        let decisions = self.decide(&looks, &listed);
        if !self.act(held.token, now_ms, &looks, &decisions).await {
            return;
        }
        self.drain_at_former_launchers(held.token, now_ms, &sight, &listed).await;
        self.removed.step().await;
        self.report(held, now_ms, &sight, &looks, &decisions).await;
    }

    /// The models of the configuration and those that still have workers, each with its launcher and its former ones.
    fn models(&self) -> Vec<(ModelId, LauncherKind)> {
        let had = self.pools.iter().map(|(model, pool)| (model.clone(), pool.config.launcher));
        let former = self.former_launchers.iter().cloned();
        let configured =
            self.config.models.iter().map(|(model, it)| (model.clone(), it.pool.launcher));
        let all: BTreeSet<(ModelId, LauncherKind)> = had.chain(former).chain(configured).collect();
        all.into_iter().collect()
    }

    /// Keeps a pool for each model that has workers or may get some. The pool of a model that is no longer configured
    /// has a maximum of zero, and is forgotten when its last worker is gone.
    fn keep_pools(&mut self, listed: &Listed) {
        let mut wanted: BTreeMap<ModelId, PoolConfig> = BTreeMap::new();
        for (kind, instances) in listed {
            for instance in instances.iter().flatten() {
                let Ok(model) = instance.model.parse::<ModelId>() else { continue };
                let nothing =
                    PoolConfig { min: 0, max: 0, launcher: *kind, ..PoolConfig::default() };
                wanted.insert(model, nothing);
            }
        }
        for (model, settings) in &self.config.models {
            if settings.pool.launcher != LauncherKind::None {
                wanted.insert(model.clone(), settings.pool_of_workers());
            }
        }
        self.pools.retain(|model, _| wanted.contains_key(model));
        for (model, config) in wanted {
            let new = || ModelPool::new(model.clone(), config.clone());
            let pool = self.pools.entry(model.clone()).or_insert_with(new);
            if pool.config.launcher != config.launcher {
                self.former_launchers.insert((model, pool.config.launcher));
            }
            pool.config = config;
        }
    }

    fn look_at_pools(
        &mut self,
        now_ms: u64,
        sight: &Sight,
        listed: &Listed,
    ) -> BTreeMap<ModelId, PoolLook> {
        let mut looks = BTreeMap::new();
        for (model, pool) in &mut self.pools {
            let mine: Result<Vec<Instance>, &str> = match listed.get(&pool.config.launcher) {
                Some(Ok(all)) => {
                    Ok(all.iter().filter(|one| one.model == model.as_str()).cloned().collect())
                }
                Some(Err(reason)) => Err(reason),
                None => Err("its launcher is not there"),
            };
            let mine = mine.as_deref().map_err(|reason| *reason);
            looks.insert(model.clone(), pool.look(now_ms, sight, mine));
        }
        looks
    }

    /// Decides on the pools of each launcher and kind of device, which share their slots.
    fn decide(
        &mut self,
        looks: &BTreeMap<ModelId, PoolLook>,
        listed: &Listed,
    ) -> BTreeMap<ModelId, Decision> {
        let timeouts = timeouts(&self.config.autoscaler);
        let mut groups: BTreeMap<(LauncherKind, DeviceKind), Vec<&mut ModelPool>> = BTreeMap::new();
        for pool in self.pools.values_mut() {
            groups.entry((pool.config.launcher, pool.config.device)).or_default().push(pool);
        }
        let mut decisions = BTreeMap::new();
        for ((launcher, kind), mut pools) in groups {
            let mut slots = device_slots(&self.config.autoscaler, launcher, kind);
            let instances = listed.get(&launcher).and_then(|listed| listed.as_ref().ok());
            for instance in instances.into_iter().flatten().filter(|one| one.is_alive()) {
                if let Some(device) = &instance.device {
                    slots.occupy(device);
                }
            }
            let models: Vec<ModelId> = pools.iter().map(|pool| pool.model.clone()).collect();
            let mut inputs: Vec<PoolInput<'_>> = pools
                .iter_mut()
                .zip(&models)
                .map(|(pool, model)| pool.input(&looks[model]))
                .collect();
            let decided = decide::decide(&mut inputs, &mut slots, &timeouts);
            decisions.extend(models.into_iter().zip(decided));
        }
        decisions
    }

    /// Has the decisions carried out, those on all pools at once, so that a launcher that hangs holds up its own pool
    /// alone. Whether the lease held all the while.
    async fn act(
        &mut self,
        token: u64,
        now_ms: u64,
        looks: &BTreeMap<ModelId, PoolLook>,
        decisions: &BTreeMap<ModelId, Decision>,
    ) -> bool {
        let permit = self.lead.permit(token);
        let mut acting = self.pools.values().filter(|pool| pool.is_acting()).count();
        for (model, pool) in &mut self.pools {
            let look = &looks[model];
            let decision = &decisions[model];
            // A size that rests on no observation is no scale action.
            let records = look.observed() && !look.seen.acting;
            if !decision.moves.is_empty() && acting < ACTING_MAX {
                match self.launchers.get(pool.config.launcher) {
                    Ok(launcher) => {
                        pool.act(launcher.clone(), decision.moves.clone(), permit.clone());
                        acting += 1;
                    }
                    Err(reason) => {
                        pool.circuit.failed(now_ms, reason);
                        continue;
                    }
                }
            }
            if records {
                pool.record(look, decision);
            }
        }
        let until = Instant::now() + ACT_WAIT_MAX;
        let mut lost = false;
        for pool in self.pools.values_mut() {
            lost |= pool.acted(now_ms, until).await;
        }
        if lost {
            tracing::warn!(token, "the lease is lost: nothing more is done");
        }
        !lost
    }

    /// Drains the workers of models that another launcher runs now.
    async fn drain_at_former_launchers(
        &mut self,
        token: u64,
        now_ms: u64,
        sight: &Sight,
        listed: &Listed,
    ) {
        let permit = self.lead.permit(token);
        let timeouts = timeouts(&self.config.autoscaler);
        let registry = sight.workers.as_ref().ok();
        for (kind, instances) in listed {
            let Ok(instances) = instances else { continue };
            let Ok(launcher) = self.launchers.get(*kind) else { continue };
            let elsewhere = |one: &&Instance| {
                let model = one.model.parse::<ModelId>().ok();
                let pool = model.and_then(|model| self.pools.get(&model));
                pool.is_some_and(|pool| pool.config.launcher != *kind)
            };
            let instances: Vec<Instance> = instances.iter().filter(elsewhere).cloned().collect();
            let leaving = self.leaving.entry(*kind).or_default();
            leaving.step(now_ms, &instances, registry, &**launcher, &timeouts, &permit).await;
        }
    }

    /// Publishes the status of the fleet: to the store, to `/status`, and as metrics.
    async fn report(
        &self,
        held: Held,
        now_ms: u64,
        sight: &Sight,
        looks: &BTreeMap<ModelId, PoolLook>,
        decisions: &BTreeMap<ModelId, Decision>,
    ) {
        let mut problems = sight.problems();
        let known = self.config.models.keys().chain(self.removed.models());
        problems.extend(self.queues.unserved(known).await);
        problems.extend(self.removed.problems());
        problems.extend(self.reload.refused.clone());
        problems.extend(self.lead.leader().error);
        let pools = self.pools.values().map(|pool| {
            let look = &looks[&pool.model];
            let launcher = pool.config.launcher.as_str();
            let status = pool.status(launcher, look, &decisions[&pool.model]);
            status::measure(&status, look.observed(), pool.circuit.is_open());
            status
        });
        let status = FleetStatus {
            leader: self.id.clone(),
            leads: true,
            token: held.token,
            at_ms: now_ms,
            problems,
            pools: pools.collect(),
            ..self.nothing_known()
        };
        if let Err(error) = self.store.write_status(&status).await {
            tracing::debug!(%error, "the status was not written");
        }
        self.board.write(status);
    }
}

/// Reports to the store which workers have ended, so that their records are gone at once and what they held is known to
/// be theirs. What fails is left to the expiry.
async fn take_in_ends(store: &Store, looks: &BTreeMap<ModelId, PoolLook>) {
    // `<pod>#...` is an end that its pod outlived.
    let ended = looks.values().flat_map(|look| &look.ended).filter(|name| !name.contains('#'));
    let removed = join_all(ended.map(async |name| {
        if let Err(error) = store.worker_ended(name).await {
            tracing::debug!(%error, worker = name, "its record stays until it expires");
        }
    }));
    let _ = tokio::time::timeout(ENDS_WITHIN, removed).await;
}

/// Whether a launcher has a worker of this model, which may not be in the registry yet.
fn may_have_workers(listed: &Listed, model: &ModelId) -> bool {
    let is_one = |one: &Instance| one.model == model.as_str() && one.is_alive();
    listed.values().any(|all| all.as_ref().is_ok_and(|all| all.iter().any(is_one)))
}
