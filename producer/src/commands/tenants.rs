//! `forebay tenants`: its actions.

use clap::Subcommand;
use forebay_fabric::{
    Store,
    access::{BUDGET_MAX, LIMIT_MAX, Tenant, TenantLimits},
    clock::now_ms,
    config::{format_decimal, parse_decimal},
};
use forebay_schemas::TenantId;

use crate::{
    context::{Context, unless_stopped},
    error::{CommandError, CommandResult},
    output::{grouped, plain, span},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create a tenant; a limit that is not given does not hold
    Create(Create),
    /// List the tenants with their limits
    List,
    /// Show a tenant with its limits
    Show {
        /// The tenant
        tenant: TenantId,
    },
    /// Change a tenant's limits; those that are not given stay as they are
    ///
    /// Holds for new requests on every replica of the gateway at once.
    SetLimits(SetLimits),
    /// Delete a tenant with all its keys, which stop to work at once
    Delete {
        /// The tenant
        tenant: TenantId,
    },
}

#[derive(clap::Args)]
struct Create {
    /// Its id: 1 to 63 of a-z, 0-9, `.`, `_`, `-`
    tenant: TenantId,
    /// A name for people
    #[arg(long, default_value = "")]
    name: String,
    #[command(flatten)]
    limits: Limits,
}

#[derive(clap::Args)]
struct SetLimits {
    /// The tenant
    tenant: TenantId,
    #[command(flatten)]
    limits: Limits,
}

/// Limits as options: a number, or `none`.
#[derive(clap::Args)]
struct Limits {
    /// The most requests in any minute, or `none`
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    requests_per_minute: Option<Limit>,
    /// The most tokens in any minute, or `none`
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    tokens_per_minute: Option<Limit>,
    /// The most requests that are served at once, or `none`
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    in_flight: Option<Limit>,
    /// The most money in a month of UTC, in currency units such as 12.50, or `none`
    #[arg(long, value_name = "MONEY", value_parser = parse_budget)]
    budget: Option<Limit>,
}

/// A limit that is given: it holds, or it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit(Option<u64>);

fn parse_limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let number = text.parse().ok().filter(|number| (1..=LIMIT_MAX).contains(number));
    number
        .map(|number| Limit(Some(number)))
        .ok_or_else(|| format!("write 1 to {LIMIT_MAX}, or none"))
}

fn parse_budget(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let budget = parse_decimal(text).map_err(|error| error.to_string())?;
    if (1..=BUDGET_MAX).contains(&budget) {
        return Ok(Limit(Some(budget)));
    }
    Err(format!("write more than 0 and at most {}, or none", format_decimal(BUDGET_MAX)))
}

impl Limits {
    /// The limits after those that are given have replaced the present ones.
    fn over(&self, present: TenantLimits) -> TenantLimits {
        let over = |given: Option<Limit>, present| given.map_or(present, |Limit(limit)| limit);
        TenantLimits {
            requests_per_minute: over(self.requests_per_minute, present.requests_per_minute),
            tokens_per_minute: over(self.tokens_per_minute, present.tokens_per_minute),
            in_flight: over(self.in_flight, present.in_flight),
            budget: over(self.budget, present.budget),
        }
    }

    fn are_none_given(&self) -> bool {
        [self.requests_per_minute, self.tokens_per_minute, self.in_flight, self.budget]
            .iter()
            .all(Option::is_none)
    }
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let store = context.store()?;
    let stop = context.stop.clone();
    let shown = unless_stopped(&stop, carry_out(args.action, &store)).await?;
    match shown {
        Shown::Tenants(tenants) => show(&tenants, context),
        Shown::Deleted { tenant, keys } if context.output.json => {
            let line = serde_json::json!({"tenant": tenant, "deleted": true, "keys": keys});
            Ok(context.output.json_line(&line)?)
        }
        Shown::Deleted { tenant, keys } => {
            Ok(context.output.line(format_args!("{tenant}  deleted with {keys} keys"))?)
        }
    }
}

/// The outcome of an action.
enum Shown {
    Tenants(Vec<Tenant>),
    Deleted { tenant: TenantId, keys: usize },
}

async fn carry_out(action: Action, store: &Store) -> Result<Shown, CommandError> {
    let tenants = match action {
        Action::Create(Create { tenant, name, limits }) => {
            vec![store.create_tenant(&tenant, &name, limits.over(TenantLimits::default())).await?]
        }
        Action::List => store.tenants().await?,
        Action::Show { tenant } => vec![existing(store, &tenant).await?],
        Action::SetLimits(SetLimits { tenant, limits }) => {
            if limits.are_none_given() {
                return Err(CommandError::Usage(
                    "which limits? Give --requests-per-minute, --tokens-per-minute, --in-flight or --budget, \
                     each with a number or `none`"
                        .into(),
                ));
            }
            vec![store.change_limits(&tenant, |present| limits.over(present)).await?]
        }
        Action::Delete { tenant } => {
            let keys = store.delete_tenant(&tenant).await?;
            return Ok(Shown::Deleted { tenant, keys });
        }
    };
    Ok(Shown::Tenants(tenants))
}

async fn existing(store: &Store, id: &TenantId) -> Result<Tenant, CommandError> {
    let found = store.tenant(id).await?;
    found.ok_or_else(|| forebay_fabric::access::AccessError::NoTenant(id.clone()).into())
}

fn show(tenants: &[Tenant], context: &mut Context) -> CommandResult {
    if context.output.json {
        for tenant in tenants {
            context.output.json_line(tenant)?;
        }
        return Ok(());
    }
    if tenants.is_empty() {
        eprintln!("forebay: there is no tenant: create one with `forebay tenants create`");
    }
    let now_ms = now_ms();
    let rows: Vec<_> = tenants.iter().map(|tenant| row(tenant, now_ms)).collect();
    let heads = [
        "TENANT",
        "REQUESTS/MIN>",
        "TOKENS/MIN>",
        "IN FLIGHT>",
        "BUDGET/MONTH>",
        "CREATED>",
        "NAME",
    ];
    Ok(context.output.table(heads, &rows)?)
}

fn row(tenant: &Tenant, now_ms: u64) -> [String; 7] {
    let limit = |limit: Option<u64>| limit.map_or("none".to_owned(), grouped);
    let TenantLimits { requests_per_minute, tokens_per_minute, in_flight, budget } = tenant.limits;
    [
        tenant.id.to_string(),
        limit(requests_per_minute),
        limit(tokens_per_minute),
        limit(in_flight),
        budget.map_or("none".to_owned(), format_decimal),
        format!("{} ago", span(now_ms.saturating_sub(tenant.created_at_ms))),
        plain(&tenant.name),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_limit_is_a_number_from_one_on_or_none() {
        assert_eq!(parse_limit("none"), Ok(Limit(None)));
        assert_eq!(parse_limit("60"), Ok(Limit(Some(60))));
        for wrong in ["0", "-1", "", "many", "1000000000001"] {
            assert!(parse_limit(wrong).unwrap_err().contains("none"), "{wrong}");
        }
    }

    #[test]
    fn a_budget_is_an_exact_amount_or_none() {
        assert_eq!(parse_budget("none"), Ok(Limit(None)));
        assert_eq!(parse_budget("12.50"), Ok(Limit(Some(12_500_000_000))));
        for wrong in ["0", "9000001", "-1", "free"] {
            assert!(parse_budget(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_that_are_not_given_stay_as_they_are() {
        let given = Limits {
            requests_per_minute: Some(Limit(Some(60))),
            tokens_per_minute: None,
            in_flight: Some(Limit(None)),
            budget: None,
        };
        let present = TenantLimits {
            requests_per_minute: None,
            tokens_per_minute: Some(1_000),
            in_flight: Some(4),
            budget: Some(5),
        };
        let expected = TenantLimits {
            requests_per_minute: Some(60),
            tokens_per_minute: Some(1_000),
            in_flight: None,
            budget: Some(5),
        };
        assert_eq!(given.over(present), expected);
        assert!(!given.are_none_given());
    }
}
