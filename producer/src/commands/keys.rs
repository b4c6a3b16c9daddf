//! `forebay keys`: its actions.

use std::time::Duration;

use clap::Subcommand;
use forebay_fabric::{
    Store,
    access::{ApiKey, Credential, KeyState, NewKey, Scope},
    clock::now_ms,
};
use forebay_schemas::{KeyId, NameError, TenantId};
use serde::Serialize;

use super::duration;
use crate::{
    context::{Context, unless_stopped},
    error::{CommandError, CommandResult},
    output::{Output, plain, span},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create a key for a tenant, and print it: it is shown this once
    Create(Create),
    /// List the keys, without their secrets
    List {
        /// Only of this tenant
        #[arg(long, value_name = "TENANT")]
        tenant: Option<TenantId>,
    },
    /// Revoke keys: they stop to work at once on every replica of the gateway
    Revoke {
        /// The ids of the keys: the twelve characters after `fbk_`; a whole key is taken too
        #[arg(value_name = "ID", required = true, value_parser = parse_id)]
        ids: Vec<KeyId>,
    },
    /// Open a fleet that has no key any more: a gateway on loopback asks for none then, as before the first one
    ///
    /// Deleting the last key alone does not open a fleet. Fails while there are keys.
    Reopen,
}

#[derive(clap::Args)]
struct Create {
    /// The tenant
    #[arg(long, value_name = "TENANT")]
    tenant: TenantId,
    /// Its rights: submit, read, admin; several with commas
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', default_value = "submit,read")]
    scope: Vec<Scope>,
    /// How long it works, such as 90d; for ever unless given
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    expires_in: Option<Duration>,
    /// A name for people
    #[arg(long, default_value = "")]
    name: String,
}

/// A key's id, also from the whole key: who finds a leaked one has that.
fn parse_id(text: &str) -> Result<KeyId, NameError> {
    Credential::parse(text).map_or_else(|| text.parse(), |whole| Ok(whole.id().clone()))
}

/// A key that has expired at once would be a mistake.
fn parse_expiry(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if time.is_zero() { Err("longer than 0".to_owned()) } else { Ok(time) }
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let store = context.store()?;
    match args.action {
        Action::Create(create) => create_key(create, &store, context).await,
        Action::List { tenant } => list(tenant, &store, context).await,
        Action::Revoke { ids } => revoke(&ids, &store, context).await,
        Action::Reopen => reopen(&store, context).await,
    }
}

/// A key as a line of JSON: all that is known of it but the hash of its secret.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a KeyId,
    tenant: &'a TenantId,
    state: KeyState,
    scopes: Vec<Scope>,
    name: &'a str,
    created_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at_ms: Option<u64>,
    /// The whole key, of one that was just created.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl<'a> Line<'a> {
    fn new(key: &'a ApiKey, now_ms: u64) -> Self {
        Self {
            id: &key.id,
            tenant: &key.tenant,
            state: key.state(now_ms),
            scopes: key.scopes.iter().copied().collect(),
            name: &key.name,
            created_at_ms: key.created_at_ms,
            expires_at_ms: key.expires_at_ms,
            revoked_at_ms: key.revoked_at_ms,
            key: None,
        }
    }
}

async fn create_key(create: Create, store: &Store, context: &mut Context) -> CommandResult {
    let Create { tenant, scope, expires_in, name } = create;
    let new = NewKey { name, scopes: scope.into_iter().collect(), expires_in };
    // Not interrupted by Ctrl-C: a key that was created and not shown would be of no use.
    let (credential, key) = store.create_key(&tenant, new).await?;
    show_new(&credential, &key, &mut context.output)
}

fn show_new(credential: &Credential, key: &ApiKey, output: &mut Output) -> CommandResult {
    if output.json {
        let line = Line { key: Some(credential.expose()), ..Line::new(key, now_ms()) };
        return Ok(output.json_line(&line)?);
    }
    // Alone on standard output, so that a script can take it from there.
    output.line(credential.expose())?;
    eprintln!(
        "forebay: this key of {} is shown this once; `forebay keys revoke {}` ends it",
        key.tenant, key.id
    );
    Ok(())
}

async fn list(tenant: Option<TenantId>, store: &Store, context: &mut Context) -> CommandResult {
    let read = async { Ok::<_, CommandError>(store.keys().await?) };
    let mut keys = unless_stopped(&context.stop, read).await?;
    keys.retain(|key| tenant.as_ref().is_none_or(|tenant| key.tenant == *tenant));
    keys.sort_by(|one, other| {
        (&one.tenant, one.created_at_ms).cmp(&(&other.tenant, other.created_at_ms))
    });
    let now_ms = now_ms();
    if context.output.json {
        for key in &keys {
            context.output.json_line(&Line::new(key, now_ms))?;
        }
        return Ok(());
    }
    if keys.is_empty() && tenant.is_none() && store.has_keys().await? {
        eprintln!(
            "forebay: there is no key, and there was one: the fleet stays closed until `forebay keys create` makes \
             another, or `forebay keys reopen` lets this machine in without one"
        );
    } else if keys.is_empty() {
        eprintln!(
            "forebay: there is no key: create one with `forebay keys create --tenant TENANT`"
        );
    }
    let rows: Vec<_> = keys.iter().map(|key| row(key, now_ms)).collect();
    let heads = ["KEY", "TENANT", "STATE", "SCOPES", "CREATED>", "EXPIRES>", "NAME"];
    Ok(context.output.table(heads, &rows)?)
}

fn row(key: &ApiKey, now_ms: u64) -> [String; 7] {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let expires = match key.expires_at_ms {
        None => "never".to_owned(),
        Some(at_ms) if at_ms > now_ms => format!("in {}", span(at_ms - now_ms)),
        Some(at_ms) => format!("{} ago", span(now_ms - at_ms)),
    };
    [
        key.id.to_string(),
        key.tenant.to_string(),
        key.state(now_ms).as_str().to_owned(),
        scopes.join(","),
        format!("{} ago", span(now_ms.saturating_sub(key.created_at_ms))),
        expires,
        plain(&key.name),
    ]
}

async fn revoke(ids: &[KeyId], store: &Store, context: &mut Context) -> CommandResult {
    for id in ids {
        let revoke = async { Ok::<_, CommandError>(store.revoke_key(id).await?) };
        let key = unless_stopped(&context.stop, revoke).await?;
        if context.output.json {
            context.output.json_line(&Line::new(&key, now_ms()))?;
        } else {
            context.output.line(format_args!("{id}  revoked"))?;
        }
    }
    Ok(())
}

async fn reopen(store: &Store, context: &mut Context) -> CommandResult {
    let reopen = async { Ok::<_, CommandError>(store.reopen().await?) };
    unless_stopped(&context.stop, reopen).await?;
    if context.output.json {
        return Ok(context.output.json_line(&serde_json::json!({"open": true}))?);
    }
    Ok(context.output.line("open  a gateway on loopback asks for no key")?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(expires_at_ms: Option<u64>) -> (Credential, ApiKey) {
        let credential = Credential::random().unwrap();
        let key = ApiKey {
            id: credential.id().clone(),
            tenant: "acme".parse().unwrap(),
            tenant_created_at_ms: 0,
            hash: credential.hash(),
            scopes: [Scope::Read, Scope::Submit].into(),
            name: "ci\u{1b}[2J".to_owned(),
            created_at_ms: 1_000,
            expires_at_ms,
            revoked_at_ms: None,
        };
        (credential, key)
    }

    #[test]
    fn a_listed_key_says_all_but_its_secret() {
        let (credential, key) = key(Some(61_000));
        let line = serde_json::to_string(&Line::new(&key, 1_000)).unwrap();
        let hash = serde_json::to_value(credential.hash()).unwrap();
        assert!(!line.contains(hash.as_str().unwrap()) && !line.contains("\"key\""), "{line}");
        let id = key.id.as_str();
        let row = row(&key, 1_000);
        let expected = [id, "acme", "active", "submit,read", "0 s ago", "in 60 s", "ci\\u{1b}[2J"];
        assert_eq!(row, expected);
    }

    #[test]
    fn a_key_is_listed_as_expired_or_as_lasting_for_ever() {
        assert_eq!(
            row(&key(Some(2_000)).1, 5_000)[2..6],
            ["expired", "submit,read", "4 s ago", "3 s ago"]
        );
        assert_eq!(row(&key(None).1, 5_000)[5], "never");
    }

    #[test]
    fn a_key_is_named_by_its_id_or_as_a_whole() {
        let (credential, key) = key(None);
        for text in [key.id.as_str(), &credential.expose()] {
            assert_eq!(parse_id(text).as_ref(), Ok(&key.id));
        }
        assert!(parse_id("fbk_").is_err());
    }

    #[test]
    fn an_expiry_of_nothing_is_refused() {
        assert_eq!(parse_expiry("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert!(parse_expiry("0d").is_err() && parse_expiry("soon").is_err());
    }
}
