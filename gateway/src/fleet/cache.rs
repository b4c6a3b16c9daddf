//! [`Cache`]: vectors of texts that were asked for before, in the memory of this process.
//!
//! An entry is found by a hash of the tenant, the model, its revision, the parameters and the text: tenants share
//! nothing, so that the time of an answer says nothing of what another tenant sent. Where the revision is not known,
//! nothing is read or kept. A vector is kept only if the worker that made it has the revision that was looked for.

use std::sync::Arc;

use forebay_client::{Client, ModelId};
use forebay_schemas::EmbedParams;
use metrics::{counter, gauge};
use quick_cache::{Weighter, sync};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::revisions::{Revision, Revisions};

/// Bytes of an entry besides its values: the key, the pointers and the bookkeeping, with room to spare.
const BYTES_BESIDE: u64 = 160;
/// Bytes of a usual entry, by which the number of entries is estimated: a vector of 384 values.
const BYTES_USUAL: u64 = 384 * 4 + BYTES_BESIDE;

/// The hash that an entry is found by.
pub type Key = [u8; 32];
/// One vector.
pub type Row = Arc<[f32]>;

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Row> for Bytes {
    fn weight(&self, _: &Key, row: &Row) -> u64 {
        size_of_val::<[f32]>(row) as u64 + BYTES_BESIDE
    }
}

/// Vectors of texts, at most so many bytes of them.
pub struct Cache {
    rows: sync::Cache<Key, Row, Bytes>,
    revisions: Revisions,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("bytes", &self.rows.weight()).finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache of at most `bytes_max`, which follows the workers' revisions until `stop`; `None` for none.
    pub fn start(client: &Client, bytes_max: usize, stop: &CancellationToken) -> Option<Arc<Self>> {
        (bytes_max > 0).then(|| Arc::new(Self::with(bytes_max, Revisions::start(client, stop))))
    }

    fn with(bytes_max: usize, revisions: Revisions) -> Self {
        let bytes_max = bytes_max as u64;
        let entries = usize::try_from(bytes_max / BYTES_USUAL).unwrap_or(usize::MAX).max(1);
        Self { rows: sync::Cache::with_weighter(entries, bytes_max, Bytes), revisions }
    }

    /// The vectors of one tenant, model and set of parameters; `None` while the model's revision is not known.
    pub fn view(
        self: &Arc<Self>,
        tenant: &str,
        model: &ModelId,
        params: &EmbedParams,
    ) -> Option<View> {
        let revision = self.revisions.of_model(model)?;
        let mut hash = Sha256::new();
        // The written form of parameters is the same within one process, which is as far as keys go.
        let params = format!("{params:?}");
        for part in [tenant, model.as_str(), &*revision, params.as_str()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Some(View { cache: self.clone(), revision, hash })
    }
}

/// Part of a cache.
#[derive(Debug, Clone)]
pub struct View {
    cache: Arc<Cache>,
    revision: Revision,
    hash: Sha256,
}

impl View {
    /// The key of a text.
    pub fn key(&self, text: &str) -> Key {
        self.hash.clone().chain_update(text).finalize().into()
    }

    /// The vectors of these keys that are there, of which `inputs` says how many inputs each stands for.
    pub fn get(&self, keys: &[Key], inputs: &[usize]) -> Vec<Option<Row>> {
        let found: Vec<Option<Row>> = keys.iter().map(|key| self.cache.rows.get(key)).collect();
        let all: usize = inputs.iter().sum();
        let hits: usize =
            found.iter().zip(inputs).filter(|(row, _)| row.is_some()).map(|(_, count)| count).sum();
        counter!("forebay_gateway_cache_hits_total").increment(hits as u64);
        counter!("forebay_gateway_cache_misses_total").increment((all - hits) as u64);
        found
    }

    /// Keeps vectors that `worker` made, if it has the revision that this is of.
    pub fn put<'a>(&self, worker: &str, rows: impl Iterator<Item = (Key, &'a [f32])>) {
        if !self.cache.revisions.is_of(worker, &self.revision) {
            return;
        }
        for (key, row) in rows {
            self.cache.rows.insert(key, row.into());
        }
        gauge!("forebay_gateway_cache_bytes").set(self.cache.rows.weight() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::revisions::tests::{seen, worker},
        *,
    };

    fn cache(bytes_max: usize, revision: Option<&str>) -> Arc<Cache> {
        Arc::new(Cache::with(
            bytes_max,
            seen(&[worker("w", "m", revision), worker("v", "n", Some("9"))]),
        ))
    }

    fn view(cache: &Arc<Cache>, tenant: &str) -> View {
        cache.view(tenant, &"m".parse().unwrap(), &EmbedParams::default()).unwrap()
    }

    fn put(view: &View, worker: &str, text: &str) {
        view.put(worker, [(view.key(text), &[0.1_f32, -0.0, f32::MIN_POSITIVE][..])].into_iter());
    }

    fn has(view: &View, text: &str) -> bool {
        view.get(&[view.key(text)], &[1])[0].is_some()
    }

    #[test]
    fn a_vector_comes_back_bit_by_bit_to_its_tenant_alone() {
        let cache = cache(100_000, Some("1"));
        let ours = view(&cache, "acme");
        put(&ours, "w", "a text");
        let row = ours.get(&[ours.key("a text")], &[1])[0].clone().unwrap();
        let bits: Vec<u32> = row.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits, [0.1_f32, -0.0, f32::MIN_POSITIVE].map(f32::to_bits));
        assert!(!has(&view(&cache, "other"), "a text") && !has(&ours, "another text"));
        let cut = EmbedParams { dimensions: Some(2), ..EmbedParams::default() };
        assert!(!has(&cache.view("acme", &"m".parse().unwrap(), &cut).unwrap(), "a text"));
    }

    #[test]
    fn nothing_is_kept_or_read_of_a_revision_that_is_not_known_or_another() {
        let unknown = cache(100_000, None);
        assert!(unknown.view("acme", &"m".parse().unwrap(), &EmbedParams::default()).is_none());
        let cache = cache(100_000, Some("1"));
        let ours = view(&cache, "acme");
        put(&ours, "v", "made by a worker of another revision");
        put(&ours, "u", "made by a worker that was not seen");
        assert!(!has(&ours, "made by a worker of another revision"));
        assert!(!has(&ours, "made by a worker that was not seen"));
        put(&ours, "w", "a text");
        assert!(has(&ours, "a text"));
        let changed = Cache::with(100_000, seen(&[worker("w", "m", Some("2"))]));
        assert_ne!(view(&Arc::new(changed), "acme").key("a text"), ours.key("a text"));
    }

    #[test]
    fn it_takes_no_more_bytes_than_allowed() {
        let cache = cache(20_000, Some("1"));
        let ours = view(&cache, "acme");
        for n in 0..1_000 {
            put(&ours, "w", &format!("text {n}"));
            assert!(cache.rows.weight() <= 20_000);
        }
        assert!(cache.rows.len() > 50, "{} entries", cache.rows.len());
    }
}
