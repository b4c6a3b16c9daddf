//! One tick: observe, decide, act, tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use forebay_fabric::{
    Broker, Config, Store,
    clock::Clock,
    config::{DeviceKind, LauncherKind, PoolConfig},
};
use forebay_schemas::{FleetStatus, ModelId, topology::Topology, worker::HEARTBEAT_TTL_MS};
use metrics::histogram;
use tokio::time::Instant;

use crate::{
    act::{
        Instance,
        launchers::{Launchers, within},
    },
    devices::Devices,
    fleet::Patience,
    lead::{Held, Lead},
    observe::{self, Queues, Sight},
    orders::{Orders, carry_out},
    pool::{self, Plan, Pool},
    reload::Reload,
    share::share,
    status::{self, Board},
};

/// The part of the autoscaler that scales.
pub struct Scaler {
    /// What holds now.
    pub config: Config,
    /// As it changes.
    pub reload: Reload,
    /// Declares the queues of models that are new.
    pub broker: Broker,
    /// Where workers tell of themselves, and the fleet's status is told.
    pub store: Arc<Store>,
    /// What waits.
    pub queues: Queues,
    /// Who leads.
    pub lead: Lead,
    /// Where `/status` reads.
    pub board: Board,
    /// Goes on evenly, whatever is done to the system's clock.
    pub clock: Clock,
    /// This autoscaler's name.
    pub id: String,
    /// What launches workers.
    pub launchers: Launchers,
    /// The pools, while we lead.
    pub pools: BTreeMap<ModelId, Pool>,
    /// Under which token they were made.
    pub pools_token: u64,
    /// Models with what launched them until their configuration was changed.
    pub strays: BTreeSet<(ModelId, LauncherKind)>,
}

type Listed = BTreeMap<LauncherKind, Result<Vec<Instance>, String>>;

impl Scaler {
    /// One tick.
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

    /// What has changed in the configuration begins to hold.
    async fn apply(&mut self, config: Config, text: Option<String>) {
        // With the settings that all else was declared with; other ones need a restart.
        let topology = Topology::new(config.models.keys(), &self.config.queues);
        match self.broker.declare(topology).await {
            Err(error) if error.is_final() => return self.reload.refuse(&error),
            Err(error) => {
                tracing::warn!(%error, "new queues are declared with the next connection");
            }
            Ok(()) => {}
        }
        self.reload.accept(text);
        self.config.models = config.models;
        self.launchers.accept(&self.config, self.reload.text.as_deref());
        tracing::info!(models = self.config.models.len(), "the configuration was read anew");
    }

    async fn watch_the_leader(&mut self) {
        self.pools.clear();
        let leader = self.lead.leader();
        let told = self.store.status().await.ok().flatten();
        let mut status = told.unwrap_or_else(|| self.nothing_known());
        status.leads = false;
        status.leader = leader.id;
        status.problems.extend(leader.error);
        self.board.write(status);
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
            self.pools.clear();
            self.pools_token = held.token;
        }
        self.launchers.make(&self.config, self.reload.text.as_deref());
        let models = self.models();
        let mut names: Vec<ModelId> = models.iter().map(|(model, _)| model.clone()).collect();
        names.dedup();
        let (sight, listed) = tokio::join!(
            observe::look(&self.queues, &self.store, &names),
            self.launchers.list(&models)
        );
        let now_ms = self.clock.now_ms();
        self.keep_pools(&listed);
        let plans = self.plan(now_ms, &sight, &listed);
        let orders = self.share_places(&plans, &listed);
        if !self.act(held.token, now_ms, &plans, &orders).await {
            return;
        }
        self.drain_strays(held.token, &listed).await;
        self.tell(held, now_ms, &sight, &plans, &orders).await;
    }

    /// The models of the configuration and those that still have workers, with what launches them and what launched
    /// them before.
    fn models(&self) -> Vec<(ModelId, LauncherKind)> {
        let had = self.pools.iter().map(|(model, pool)| (model.clone(), pool.config.launcher));
        let strays = self.strays.iter().cloned();
        let configured =
            self.config.models.iter().map(|(model, it)| (model.clone(), it.pool.launcher));
        let all: BTreeSet<(ModelId, LauncherKind)> = had.chain(strays).chain(configured).collect();
        all.into_iter().collect()
    }

    /// A pool for each model that has workers or may get some. One whose model was taken out of the configuration is
    /// drained, and forgotten then.
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
                wanted.insert(model.clone(), settings.pool.clone());
            }
        }
        self.pools.retain(|model, _| wanted.contains_key(model));
        for (model, config) in wanted {
            let fresh = || Pool::new(model.clone(), config.clone());
            let pool = self.pools.entry(model.clone()).or_insert_with(fresh);
            if pool.config.launcher != config.launcher {
                self.strays.insert((model, pool.config.launcher));
            }
            pool.config = config;
        }
    }

    fn plan(&mut self, now_ms: u64, sight: &Sight, listed: &Listed) -> BTreeMap<ModelId, Plan> {
        let autoscaler = &self.config.autoscaler;
        let patience = Patience {
            start_ms_max: autoscaler.start_s_max * 1_000,
            stuck_ms: autoscaler.stuck_s * 1_000,
            drain_ms_max: autoscaler.grace_s * 1_000,
            silent_ms_max: 3 * HEARTBEAT_TTL_MS,
        };
        let mut plans = BTreeMap::new();
        for (model, pool) in &mut self.pools {
            let listed = listed.get(&pool.config.launcher);
            let mine: Result<Vec<Instance>, &str> = match listed {
                Some(Ok(all)) => {
                    Ok(all.iter().filter(|one| one.model == model.as_str()).cloned().collect())
                }
                Some(Err(reason)) => Err(reason),
                None => Err("its launcher is not there"),
            };
            let mine = mine.as_deref().map_err(|reason| *reason);
            plans.insert(model.clone(), pool.plan(now_ms, sight, mine, &patience));
        }
        plans
    }

    /// Shares the places of each launcher among its pools.
    fn share_places(
        &self,
        plans: &BTreeMap<ModelId, Plan>,
        listed: &Listed,
    ) -> BTreeMap<ModelId, Orders> {
        let mut groups: BTreeMap<(LauncherKind, DeviceKind), Vec<&Pool>> = BTreeMap::new();
        for pool in self.pools.values() {
            groups.entry((pool.config.launcher, pool.config.device)).or_default().push(pool);
        }
        let mut orders = BTreeMap::new();
        for ((launcher, kind), pools) in groups {
            let devices = Devices::of(&self.config.autoscaler, launcher, kind);
            let claims: Vec<_> = pools.iter().map(|pool| pool.claim(&plans[&pool.model])).collect();
            let places = devices.as_ref().map_or(u32::MAX, Devices::places);
            let mut taken: Vec<String> = listed
                .get(&launcher)
                .and_then(|listed| listed.as_ref().ok())
                .into_iter()
                .flatten()
                .filter(|one| !matches!(one.state, crate::act::InstanceState::Ended { .. }))
                .filter_map(|one| one.device.clone())
                .collect();
            for (pool, granted) in pools.iter().zip(share(&claims, places)) {
                let plan = &plans[&pool.model];
                let leaving = pool::leaving(plan, granted);
                let staying = pool::active(&plan.workers) - leaving.len() as u32;
                let missing = granted.saturating_sub(staying) as usize;
                let found = match &devices {
                    Some(devices) => devices.free(&taken, missing),
                    None => vec![default_device(kind); missing],
                };
                taken.extend(found.iter().cloned());
                orders.insert(pool.model.clone(), Orders { granted, leaving, devices: found });
            }
        }
        orders
    }

    /// Whether the lease still held all the while.
    async fn act(
        &mut self,
        token: u64,
        now_ms: u64,
        plans: &BTreeMap<ModelId, Plan>,
        orders: &BTreeMap<ModelId, Orders>,
    ) -> bool {
        let idle = |model: &ModelId| {
            let (plan, order) = (&plans[model], &orders[model]);
            plan.overdue.is_empty() && order.leaving.is_empty() && order.devices.is_empty()
        };
        for (model, pool) in &mut self.pools {
            let (plan, order) = (&plans[model], &orders[model]);
            // What could not be seen is left as it is.
            if !plan.observed && plan.overdue.is_empty() {
                continue;
            }
            if !idle(model) {
                let launcher = match self.launchers.get(pool.config.launcher) {
                    Ok(launcher) => launcher.clone(),
                    Err(reason) => {
                        pool.circuit.failed(now_ms, reason);
                        continue;
                    }
                };
                if !carry_out(pool, &*launcher, &self.lead, token, now_ms, plan, order).await {
                    tracing::warn!(token, "the lease is lost: nothing more is done");
                    return false;
                }
            }
            pool.note(now_ms, order.granted, plan);
        }
        true
    }

    /// Workers of a model that another launcher runs now.
    async fn drain_strays(&self, token: u64, listed: &Listed) {
        for (kind, instances) in listed {
            for instance in instances.iter().flatten() {
                let runs = instance.state == crate::act::InstanceState::Running;
                let Ok(model) = instance.model.parse::<ModelId>() else { continue };
                let elsewhere =
                    self.pools.get(&model).is_some_and(|pool| pool.config.launcher != *kind);
                if !runs || !elsewhere || !self.lead.may_act(token).await {
                    continue;
                }
                if let Ok(launcher) = self.launchers.get(*kind) {
                    let names = [instance.name.clone()];
                    let drained = within(launcher.kind(), "drain", launcher.drain(&model, &names));
                    if let Err(error) = drained.await {
                        tracing::warn!(%error, "a worker of another launcher stays for now");
                    }
                }
            }
        }
    }

    async fn tell(
        &self,
        held: Held,
        now_ms: u64,
        sight: &Sight,
        plans: &BTreeMap<ModelId, Plan>,
        orders: &BTreeMap<ModelId, Orders>,
    ) {
        let mut problems = sight.problems();
        problems.extend(self.reload.refused.clone());
        problems.extend(self.lead.leader().error);
        let pools = self.pools.values().map(|pool| {
            let (plan, order) = (&plans[&pool.model], &orders[&pool.model]);
            let launcher = kind_name(pool.config.launcher);
            let told = pool.status(launcher, plan, order.granted);
            status::measure(&told, plan.observed, pool.circuit.is_open());
            told
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
            tracing::debug!(%error, "the status was not told");
        }
        self.board.write(status);
    }
}

fn kind_name(kind: LauncherKind) -> &'static str {
    match kind {
        LauncherKind::None => "none",
        LauncherKind::Process => "process",
        LauncherKind::Docker => "docker",
        LauncherKind::Kubernetes => "kubernetes",
    }
}

fn default_device(kind: DeviceKind) -> String {
    match kind {
        DeviceKind::Cpu => "cpu".to_owned(),
        DeviceKind::Cuda => "cuda:0".to_owned(),
    }
}
