//! Options that select dead letters, and the columns that all lists of them share.

use std::time::Duration;

use forebay_client::{DeadLetterFilter, DeadLetterInfo, JobId, ModelId};
use forebay_fabric::death::{Reason, UnknownReason};

use super::super::duration;
use crate::output::plain;

/// Selects the dead letters that satisfy every option that is given.
#[derive(clap::Args)]
#[group(id = "selection")]
pub(super) struct Selection {
    /// Names of dead letters, or ids of their jobs
    #[arg(value_name = "NAME")]
    names: Vec<JobId>,
    /// A name or an id, as an option; may be repeated
    #[arg(long = "id", value_name = "NAME")]
    ids: Vec<JobId>,
    /// Only of this model
    #[arg(long, short)]
    model: Option<ModelId>,
    /// Only dead for this reason
    #[arg(long, value_parser = parse_reason, help = reasons())]
    reason: Option<Reason>,
    /// Only dead for longer; leaves out those whose time of death is unknown
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    older_than: Option<Duration>,
    /// Only dead for less long; leaves out those whose time of death is unknown
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    newer_than: Option<Duration>,
    /// At most N, from the head of their queue
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

fn reasons() -> String {
    format!(
        "Only dead for this reason: {}",
        Reason::NAMED.map(|reason| reason.to_string()).join(", ")
    )
}

fn parse_reason(text: &str) -> Result<Reason, UnknownReason> {
    text.parse()
}

impl Selection {
    pub(super) fn filter(self) -> DeadLetterFilter {
        DeadLetterFilter {
            names: self.names.into_iter().chain(self.ids).collect(),
            model: self.model,
            reason: self.reason,
            older_than: self.older_than,
            newer_than: self.newer_than,
            limit: self.limit,
        }
    }
}

/// The id of the job, or a dash.
pub(super) fn job(info: &DeadLetterInfo) -> &str {
    info.job.as_ref().map_or("-", JobId::as_str)
}

/// Model and lane; the routing key and a dash where it names none.
pub(super) fn addressee(info: &DeadLetterInfo) -> [String; 2] {
    match (&info.model, info.lane) {
        (Some(model), Some(lane)) => [model.to_string(), lane.to_string()],
        _ => [plain(&info.routing_key), "-".to_owned()],
    }
}
