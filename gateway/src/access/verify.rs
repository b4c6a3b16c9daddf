//! [`Verifier`]: from the key that a request came with to its [`Caller`].
//!
//! A key is kept in memory for five seconds as Redis has it, and so is that Redis has none of an id. Every change to a
//! key or a tenant is published, and all of it is forgotten then: changes are rare, and a cache of five seconds is soon
//! full again. So a revoked key stops at once on every replica that hears of it, and within five seconds on one that
//! does not.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use forebay_fabric::{
    Store,
    access::{AccessError, ApiKey, Credential, KeyState, Scope, Tenant},
    clock::now_ms,
};
use forebay_schemas::{KeyId, names::ACCESS_CHANNEL};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{recent::Recent, subscribe::subscribe};

/// How long what Redis said is trusted, whatever becomes of the subscription.
const TRUSTED: Duration = Duration::from_secs(5);
/// The most keys that are kept; some hundred bytes each.
const KNOWN_MAX: usize = 20_000;
/// The most ids that are kept of which Redis has no key. They have a cache of their own: invented ones must not drive
/// out those that are.
const UNKNOWN_MAX: usize = 20_000;

/// Why a request is not let in. Its message is for the client: it has nothing of Redis in it.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// No key came, and this fleet has keys.
    #[error(
        "no API key came: send it as `Authorization: Bearer fbk_...`; an operator makes one with `forebay keys create`"
    )]
    Missing,
    /// The text is no key, or not one of this fleet.
    #[error(
        "the API key is not known; check that it is complete, of the form fbk_<id>_<secret>, and of this fleet"
    )]
    Unknown,
    /// It was revoked.
    #[error("the API key {0} was revoked; ask your operator for another")]
    Revoked(KeyId),
    /// Its time is over.
    #[error("the API key {0} has expired; ask your operator for another")]
    Expired(KeyId),
    /// It is valid, and not for this.
    #[error(
        "the API key {key} lacks the scope `{scope}`, which this request needs; use one that has it"
    )]
    Scope {
        /// The key.
        key: KeyId,
        /// The scope that is missing.
        scope: Scope,
    },
    /// It can't be looked up at present.
    #[error("API keys can't be looked up at present; try again in a moment")]
    Unavailable(#[source] Box<AccessError>),
}

impl Denied {
    /// The HTTP status: 401, 403 or 503.
    pub fn status(&self) -> u16 {
        match self {
            Self::Missing | Self::Unknown | Self::Revoked(_) | Self::Expired(_) => 401,
            Self::Scope { .. } => 403,
            Self::Unavailable(_) => 503,
        }
    }

    /// The error code, as clients of OpenAI's API know it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing_api_key",
            Self::Unknown | Self::Revoked(_) | Self::Expired(_) => "invalid_api_key",
            Self::Scope { .. } => "insufficient_permissions",
            Self::Unavailable(_) => "store_unavailable",
        }
    }
}

/// A key with its tenant, as Redis had them.
#[derive(Debug)]
struct Known {
    key: ApiKey,
    tenant: Tenant,
}

/// Who asks: a valid key and its tenant.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Known>);

impl Caller {
    /// The key's public id, which may be logged.
    pub fn key(&self) -> &KeyId {
        &self.0.key.id
    }

    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// Whether the key has a scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.0.key.scopes.contains(&scope)
    }

    /// Fails unless the key has a scope.
    pub fn require(&self, scope: Scope) -> Result<(), Denied> {
        if self.has(scope) { Ok(()) } else { Err(Denied::Scope { key: self.key().clone(), scope }) }
    }
}

/// Verifies keys. Clones share what is kept.
#[derive(Clone)]
pub struct Verifier {
    store: Store,
    kept: Arc<Mutex<Kept>>,
}

/// The answer from memory.
enum Answer {
    Kept(Option<Arc<Known>>),
    NotKept,
}

/// The keys that are kept in memory.
struct Kept {
    /// How often it was all forgotten: what was asked for before is not kept.
    forgotten: u64,
    known: Recent<KeyId, Arc<Known>>,
    unknown: Recent<KeyId, ()>,
    /// Whether there are keys at all, as Redis said at that time.
    any: Option<(Instant, bool)>,
}

impl Kept {
    fn forget(&mut self) {
        self.forgotten += 1;
        self.any = None;
        self.known.clear();
        self.unknown.clear();
    }

    /// Answers from memory, if it can: with the key, or with `None` where there is none of that id.
    fn answer(&self, id: &KeyId, now: Instant) -> Answer {
        if let Some(known) = self.known.get(id, now) {
            return Answer::Kept(Some(known));
        }
        if self.unknown.get(id, now).is_some() { Answer::Kept(None) } else { Answer::NotKept }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier of the keys in `store`, which hears of changes until `stop`. Must be called inside a Tokio runtime.
    pub fn start(store: &Store, stop: &CancellationToken) -> Self {
        let kept = Arc::new(Mutex::new(Kept {
            forgotten: 0,
            known: Recent::new(KNOWN_MAX, TRUSTED),
            unknown: Recent::new(UNKNOWN_MAX, TRUSTED),
            any: None,
        }));
        let verifier = Self { store: store.clone(), kept };
        let hears = verifier.clone();
        // Whatever the event: where the subscription begins, changes may have been missed.
        subscribe(store.clone(), ACCESS_CHANNEL, stop.clone(), move |_| hears.kept().forget());
        verifier
    }

    /// Who asks, by the key that came with the request: the text after `Bearer `.
    pub async fn verify(&self, key: &str) -> Result<Caller, Denied> {
        let credential = Credential::parse(key).ok_or(Denied::Unknown)?;
        let found = self.look_up(credential.id()).await?;
        let is_meant = |known: &Arc<Known>| known.key.hash.matches(&credential.hash());
        // From here on the client has shown the secret: it may hear what became of its key.
        let known = found.filter(is_meant).ok_or(Denied::Unknown)?;
        match known.key.state(now_ms()) {
            KeyState::Active => Ok(Caller(known)),
            KeyState::Revoked => Err(Denied::Revoked(known.key.id.clone())),
            KeyState::Expired => Err(Denied::Expired(known.key.id.clone())),
        }
    }

    /// Whether there are keys in this fleet, valid or not.
    pub async fn has_keys(&self) -> Result<bool, Denied> {
        let asked_at = Instant::now();
        let forgotten = {
            let kept = self.kept();
            if let Some((_, any)) = kept.any.filter(|(at, _)| asked_at - *at < TRUSTED) {
                return Ok(any);
            }
            kept.forgotten
        };
        let any = self.store.has_keys().await;
        let any = any.map_err(|error| Denied::Unavailable(Box::new(error)))?;
        let mut kept = self.kept();
        if kept.forgotten == forgotten {
            kept.any = Some((asked_at, any));
        }
        Ok(any)
    }

    async fn look_up(&self, id: &KeyId) -> Result<Option<Arc<Known>>, Denied> {
        // The time before Redis is asked: what it says may be as old as that.
        let asked_at = Instant::now();
        let forgotten = {
            let kept = self.kept();
            if let Answer::Kept(found) = kept.answer(id, asked_at) {
                return Ok(found);
            }
            kept.forgotten
        };
        let found = self.read(id).await.map_err(|error| Denied::Unavailable(Box::new(error)))?;
        let mut kept = self.kept();
        // A change that was published meanwhile may be one that this reading has not seen.
        if kept.forgotten == forgotten {
            match &found {
                Some(known) => kept.known.put(id.clone(), asked_at, known.clone()),
                None => kept.unknown.put(id.clone(), asked_at, ()),
            }
        }
        Ok(found)
    }

    async fn read(&self, id: &KeyId) -> Result<Option<Arc<Known>>, AccessError> {
        let Some(key) = self.store.key(id).await? else { return Ok(None) };
        let tenant = self.store.tenant(&key.tenant).await?;
        let tenant = tenant.filter(|tenant| key.is_of(tenant));
        Ok(tenant.map(|tenant| Arc::new(Known { key, tenant })))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
