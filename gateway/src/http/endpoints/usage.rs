//! `GET /v1/usage`: what a tenant has used, and what that costs.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use forebay_fabric::{
    clock::now_ms,
    usage::{Report, UsageError},
};

use crate::{
    access::Scope,
    document::{Operation, Tag},
    error::ApiError,
    http::{answer, app::App},
    usage::{UsageAnswer, UsageQuery},
};

const CSV: HeaderValue = HeaderValue::from_static("text/csv; charset=utf-8");

/// `GET /v1/usage` in the document.
pub fn described() -> Operation {
    let about = "Sums by a property, of whole hours. A key with the scope `read` sees its own tenant's; `tenant` and \
                 `by=tenant` need the scope `admin`.";
    let operation =
        Operation::keyed(Scope::Read, "readUsage", Tag::Usage, "What was used").describe(about);
    let parameters = ["UsageStart", "UsageEnd", "UsageBy", "UsageTenant", "UsageFormat"];
    parameters
        .into_iter()
        .fold(operation, Operation::parameter)
        .answers::<UsageAnswer>(200, "The sums.")
        .or_text("text/csv")
        .errors(&[400])
}

/// Usage by the hour, grouped by one property.
pub async fn report(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let headers = request.headers();
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let query = UsageQuery::parse(request.uri().query().unwrap_or_default(), accept, now_ms())?;
    let caller = app.gate.admit(headers, query.scope()).await?;
    let mut report = Report::new(query.by);
    let store = app.fleet.client.store();
    let read = store.usage(&query.asked(caller.tenant()), |used| report.add(&used)).await;
    read.map_err(|error| failed(&error))?;
    if query.is_csv {
        let mut response = answer::bytes(StatusCode::OK, report.csv().into_bytes());
        response.headers_mut().insert(header::CONTENT_TYPE, CSV);
        return Ok(response);
    }
    Ok(answer::json(StatusCode::OK, &query.json(&report)))
}

fn failed(error: &UsageError) -> ApiError {
    match error {
        UsageError::TooMuch { .. } => ApiError::invalid("start", error.to_string()),
        UsageError::Store(error) => {
            tracing::warn!(%error, "usage can't be read");
            let message = "usage can't be read at present: try again soon";
            ApiError::unavailable("store_unavailable", message)
        }
    }
}
