//! API keys in Redis.

use std::{collections::BTreeSet, time::Duration};

use forebay_schemas::{KeyId, TenantId, names::KEYS_KEY};

use super::{
    credential::Credential,
    error::AccessError,
    record::{ApiKey, Scope, check_name},
    records::Records,
};
use crate::{Store, clock};

/// The description of a key that is created.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// A name for people; may be empty.
    pub name: String,
    /// Its rights; at least one.
    pub scopes: BTreeSet<Scope>,
    /// How long it is valid; for ever unless set.
    pub expires_in: Option<Duration>,
}

impl Store {
    fn key_records(&self) -> Records<'_> {
        Records { store: self, hash: KEYS_KEY, is_marked: true }
    }

    /// Creates a key for a tenant. The secret is in the [`Credential`] alone: it can't be had again.
    pub async fn create_key(
        &self,
        tenant: &TenantId,
        new: NewKey,
    ) -> Result<(Credential, ApiKey), AccessError> {
        check_name(&new.name)?;
        if new.scopes.is_empty() {
            return Err(AccessError::NoScope);
        }
        let found = self.tenant(tenant).await?;
        let tenant = found.ok_or_else(|| AccessError::NoTenant(tenant.clone()))?;
        let now_ms = clock::now_ms();
        let credential = Credential::random()?;
        let key = ApiKey {
            id: credential.id().clone(),
            tenant: tenant.id,
            tenant_created_at_ms: tenant.created_at_ms,
            hash: credential.hash(),
            scopes: new.scopes,
            name: new.name,
            created_at_ms: now_ms,
            expires_at_ms: new
                .expires_in
                .map(|time| now_ms.saturating_add(time.as_millis() as u64)),
            revoked_at_ms: None,
        };
        // Two random ids of sixty bits are never equal; if they were, the first key stays as it is.
        if self.key_records().create(key.id.as_str(), &key).await? {
            Ok((credential, key))
        } else {
            Err(AccessError::Contended(key.id.to_string()))
        }
    }

    /// A key; `None` if there is none of that id.
    pub async fn key(&self, id: &KeyId) -> Result<Option<ApiKey>, AccessError> {
        self.key_records().get(id.as_str()).await
    }

    /// All keys, by id.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, AccessError> {
        self.key_records().all().await
    }

    /// Whether there are keys, valid or not, or were keys before: a fleet that was closed once does not open because
    /// its last key is deleted, until [`Self::reopen`].
    pub async fn has_keys(&self) -> Result<bool, AccessError> {
        Ok(self.key_records().count().await? > 0)
    }

    /// Lets a fleet without keys be open once more: as before its first key, its gateways on loopback ask for none.
    pub async fn reopen(&self) -> Result<(), AccessError> {
        match self.key_records().unmark().await? {
            0 => Ok(()),
            keys => Err(AccessError::HasKeys(keys)),
        }
    }

    /// Revokes a key. One that was revoked before keeps the earlier time.
    pub async fn revoke_key(&self, id: &KeyId) -> Result<ApiKey, AccessError> {
        let now_ms = clock::now_ms();
        let revoke = |key: &mut ApiKey| {
            key.revoked_at_ms.get_or_insert(now_ms);
        };
        let revoked = self.key_records().change(id.as_str(), revoke).await?;
        revoked.ok_or_else(|| AccessError::NoKey(id.clone()))
    }

    /// Removes all keys of a tenant, and returns how many there were.
    pub(super) async fn remove_keys_of(&self, tenant: &TenantId) -> Result<usize, AccessError> {
        let mut removed = 0;
        for key in self.keys().await?.into_iter().filter(|key| key.tenant == *tenant) {
            removed += usize::from(self.key_records().remove(key.id.as_str()).await?);
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::{KeyState, TenantLimits},
        store::testing::Redis,
    };

    fn new() -> NewKey {
        NewKey { scopes: [Scope::Submit, Scope::Read].into(), ..NewKey::default() }
    }

    #[tokio::test]
    async fn a_key_is_found_by_its_id_listed_and_revoked_once() {
        let redis = Redis::start().await;
        let store = &redis.store;
        let tenant: TenantId = "acme".parse().unwrap();
        let none = store.create_key(&tenant, new()).await.unwrap_err();
        assert!(matches!(none, AccessError::NoTenant(_)), "{none}");
        store.create_tenant(&tenant, "", TenantLimits::default()).await.unwrap();
        let expires_in = Some(Duration::from_secs(60));
        assert!(!store.has_keys().await.unwrap());
        let (credential, key) =
            store.create_key(&tenant, NewKey { expires_in, ..new() }).await.unwrap();
        assert!(store.has_keys().await.unwrap());
        assert_eq!(key.expires_at_ms, Some(key.created_at_ms + 60_000));
        let found = store.key(credential.id()).await.unwrap().unwrap();
        assert!(found.hash.matches(&credential.hash()));
        assert_eq!(found.scopes, new().scopes);
        assert_eq!(store.keys().await.unwrap().len(), 1);
        let revoked = store.revoke_key(credential.id()).await.unwrap();
        assert_eq!(revoked.state(clock::now_ms()), KeyState::Revoked);
        let again = store.revoke_key(credential.id()).await.unwrap();
        assert_eq!(again.revoked_at_ms, revoked.revoked_at_ms, "the first time stands");
        let unknown = store.revoke_key(&"aaaaaaaaaaaa".parse().unwrap()).await.unwrap_err();
        assert!(matches!(unknown, AccessError::NoKey(_)), "{unknown}");
    }

    #[tokio::test]
    async fn a_fleet_whose_last_key_is_deleted_stays_closed_until_it_is_reopened() {
        let redis = Redis::start().await;
        let store = &redis.store;
        let tenant: TenantId = "acme".parse().unwrap();
        store.reopen().await.unwrap();
        store.create_tenant(&tenant, "", TenantLimits::default()).await.unwrap();
        store.create_key(&tenant, new()).await.unwrap();
        let kept = store.reopen().await.unwrap_err();
        assert!(matches!(kept, AccessError::HasKeys(1)), "{kept}");
        assert!(store.delete_tenant(&tenant).await.is_ok());
        assert!(store.keys().await.unwrap().is_empty());
        assert!(store.has_keys().await.unwrap(), "it had one");
        store.create_tenant(&tenant, "", TenantLimits::default()).await.unwrap();
        store.create_key(&tenant, new()).await.unwrap();
        let kept = store.reopen().await.unwrap_err();
        assert!(matches!(kept, AccessError::HasKeys(1)), "{kept}");
        store.delete_tenant(&tenant).await.unwrap();
        store.reopen().await.unwrap();
        assert!(!store.has_keys().await.unwrap());
    }

    #[tokio::test]
    async fn a_secret_is_nowhere_in_redis() {
        let mut redis = Redis::start().await;
        let tenant: TenantId = "acme".parse().unwrap();
        redis.store.create_tenant(&tenant, "", TenantLimits::default()).await.unwrap();
        let (credential, key) = redis.store.create_key(&tenant, new()).await.unwrap();
        let whole = credential.expose();
        let secret = whole.rsplit_once(key.id.as_str()).unwrap().1.trim_start_matches('_');
        let stored: Vec<String> = redis.ask(&["HGETALL", KEYS_KEY]).await;
        assert!(stored[0] == key.id.as_str() && !stored[1].contains(secret), "{stored:?}");
    }

    #[tokio::test]
    async fn keys_without_scopes_or_with_endless_names_are_refused() {
        let redis = Redis::start().await;
        let tenant: TenantId = "acme".parse().unwrap();
        redis.store.create_tenant(&tenant, "", TenantLimits::default()).await.unwrap();
        let none = redis.store.create_key(&tenant, NewKey::default()).await.unwrap_err();
        assert!(matches!(none, AccessError::NoScope), "{none}");
        let long = NewKey { name: "n".repeat(129), ..new() };
        let long = redis.store.create_key(&tenant, long).await.unwrap_err();
        assert!(matches!(long, AccessError::Name { chars: 129 }), "{long}");
    }

    #[tokio::test]
    async fn hundreds_of_keys_are_listed_once_each() {
        let redis = Redis::start().await;
        let tenant: TenantId = "acme".parse().unwrap();
        redis.store.create_tenant(&tenant, "", TenantLimits::default()).await.unwrap();
        let mut created = BTreeSet::new();
        for _ in 0..700 {
            created.insert(redis.store.create_key(&tenant, new()).await.unwrap().1.id);
        }
        let listed: Vec<KeyId> =
            redis.store.keys().await.unwrap().into_iter().map(|key| key.id).collect();
        assert_eq!(listed, created.into_iter().collect::<Vec<_>>());
    }
}
