//! Tenants in Redis.

use forebay_schemas::{TenantId, names::TENANTS_KEY};

use super::{
    error::AccessError,
    record::{Tenant, TenantLimits, check_name},
    records::Records,
};
use crate::{Store, clock};

impl Store {
    fn tenant_records(&self) -> Records<'_> {
        Records { store: self, hash: TENANTS_KEY, is_marked: false }
    }

    /// Creates a tenant, which must not exist.
    pub async fn create_tenant(
        &self,
        id: &TenantId,
        name: &str,
        limits: TenantLimits,
    ) -> Result<Tenant, AccessError> {
        check_name(name)?;
        limits.check()?;
        let tenant = Tenant {
            id: id.clone(),
            name: name.to_owned(),
            created_at_ms: clock::now_ms(),
            limits,
        };
        if self.tenant_records().create(id.as_str(), &tenant).await? {
            Ok(tenant)
        } else {
            Err(AccessError::TenantExists(id.clone()))
        }
    }

    /// A tenant; `None` if there is none of that id.
    pub async fn tenant(&self, id: &TenantId) -> Result<Option<Tenant>, AccessError> {
        self.tenant_records().get(id.as_str()).await
    }

    /// All tenants, by id.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, AccessError> {
        self.tenant_records().all().await
    }

    /// Changes a tenant's limits: `change` gets the present ones, and may be called several times. Requests that are
    /// being served are not affected.
    pub async fn change_limits(
        &self,
        id: &TenantId,
        change: impl Fn(TenantLimits) -> TenantLimits,
    ) -> Result<Tenant, AccessError> {
        let Some(tenant) = self.tenant(id).await? else {
            return Err(AccessError::NoTenant(id.clone()));
        };
        change(tenant.limits).check()?;
        let set = |tenant: &mut Tenant| tenant.limits = change(tenant.limits);
        let changed = self.tenant_records().change(id.as_str(), set).await?;
        changed.ok_or_else(|| AccessError::NoTenant(id.clone()))
    }

    /// Deletes a tenant with its keys, which stop to be valid at once; returns how many keys it had. What it used, and
    /// results of its jobs, stay.
    pub async fn delete_tenant(&self, id: &TenantId) -> Result<usize, AccessError> {
        // First, so that no key is valid any more, and none can be created, while the keys are removed.
        let was_there = self.tenant_records().remove(id.as_str()).await?;
        let keys = self.remove_keys_of(id).await?;
        // Run again after it was interrupted, it finds the keys alone.
        if was_there || keys > 0 { Ok(keys) } else { Err(AccessError::NoTenant(id.clone())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::{NewKey, Scope},
        store::testing::Redis,
    };

    fn limits(requests_per_minute: u64) -> TenantLimits {
        TenantLimits { requests_per_minute: Some(requests_per_minute), ..TenantLimits::default() }
    }

    #[tokio::test]
    async fn a_tenant_is_created_once_listed_changed_and_deleted() {
        let redis = Redis::start().await;
        let store = &redis.store;
        let id: TenantId = "acme".parse().unwrap();
        let created = store.create_tenant(&id, "Acme, Inc.", limits(10)).await.unwrap();
        assert_eq!(store.tenant(&id).await.unwrap(), Some(created.clone()));
        let again = store.create_tenant(&id, "", limits(1)).await.unwrap_err();
        assert!(matches!(again, AccessError::TenantExists(_)), "{again}");
        let changed = store.change_limits(&id, |_| limits(20)).await.unwrap();
        assert_eq!(changed, Tenant { limits: limits(20), ..created });
        assert_eq!(store.tenants().await.unwrap(), [changed]);
        assert_eq!(store.delete_tenant(&id).await.unwrap(), 0);
        assert_eq!(store.tenant(&id).await.unwrap(), None);
        for error in [
            store.delete_tenant(&id).await.map(|_| ()),
            store.change_limits(&id, |_| limits(1)).await.map(|_| ()),
        ] {
            assert!(matches!(error, Err(AccessError::NoTenant(_))), "{error:?}");
        }
    }

    #[tokio::test]
    async fn wrong_limits_are_not_written() {
        let redis = Redis::start().await;
        let id: TenantId = "acme".parse().unwrap();
        assert!(redis.store.create_tenant(&id, "", limits(0)).await.is_err());
        assert_eq!(redis.store.tenant(&id).await.unwrap(), None);
        redis.store.create_tenant(&id, "", limits(1)).await.unwrap();
        assert!(redis.store.change_limits(&id, |_| limits(u64::MAX)).await.is_err());
        assert_eq!(redis.store.tenant(&id).await.unwrap().unwrap().limits, limits(1));
    }

    #[tokio::test]
    async fn changes_at_once_are_all_made() {
        let redis = Redis::start().await;
        let id: TenantId = "acme".parse().unwrap();
        redis.store.create_tenant(&id, "", limits(1)).await.unwrap();
        let add = |limits: TenantLimits| TenantLimits {
            requests_per_minute: limits.requests_per_minute.map(|limit| limit + 1),
            ..limits
        };
        let changes = (0..4).map(|_| redis.store.change_limits(&id, add));
        for changed in futures_util::future::join_all(changes).await {
            changed.unwrap();
        }
        assert_eq!(redis.store.tenant(&id).await.unwrap().unwrap().limits, limits(5));
    }

    #[tokio::test]
    async fn a_deleted_tenant_s_keys_are_gone_and_the_others_stay() {
        let redis = Redis::start().await;
        let store = &redis.store;
        for id in ["acme", "other"] {
            let id = id.parse().unwrap();
            store.create_tenant(&id, "", TenantLimits::default()).await.unwrap();
            for _ in 0..2 {
                let new = NewKey { scopes: [Scope::Read].into(), ..NewKey::default() };
                store.create_key(&id, new).await.unwrap();
            }
        }
        assert_eq!(store.delete_tenant(&"acme".parse().unwrap()).await.unwrap(), 2);
        let left = store.keys().await.unwrap();
        assert_eq!(left.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>(), ["other"; 2]);
    }
}
