//! Settles what no worker will: jobs for models that this fleet does not have.

use forebay_fabric::{
    answer::Answerer,
    broker::{Delivery, Subscription},
    intake::{self, Ended},
};
use forebay_schemas::{ErrorCode, JobError, Limits};
use metrics::counter;
use tokio_util::sync::CancellationToken;

/// Answers every message of `forebay.unroutable`, until `stop`.
pub async fn unroutable(
    mut subscription: Subscription,
    answerer: Answerer,
    limits: Limits,
    stop: CancellationToken,
) {
    while let Some(Some(delivery)) = stop.run_until_cancelled(subscription.next()).await {
        counter!("forebay_settle_unroutable_total").increment(1);
        answerer.end(vec![end(delivery, &limits)]).await;
    }
    subscription.stop().await;
}

fn end(delivery: Delivery, limits: &Limits) -> Ended {
    let routing_key = delivery.routing_key.clone();
    match intake::read(delivery, limits) {
        Ok((job, ticket)) => {
            let message = format!(
                "no queue takes the routing key `{routing_key}`: model `{}` is not in this fleet",
                job.model
            );
            tracing::info!(id = %job.id, model = %job.model, "unknown model");
            Ended::failed(&job, ticket, JobError::new(ErrorCode::ModelNotFound, message))
        }
        // What is no job at all is answered, or kept, for that reason.
        Err(ended) => ended,
    }
}
