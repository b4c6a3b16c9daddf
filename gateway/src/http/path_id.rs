//! [`PathId`]: the id at the end of a path.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use crate::error::ApiError;

/// The id that a path ends with, without its escapes. One that is not UTF-8 is refused in the shape of all errors.
#[derive(Debug)]
pub struct PathId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        id.map(|Path(id)| Self(id)).map_err(|_| {
            let message = "the id in the path is not UTF-8: send its characters as UTF-8, escaped";
            ApiError::invalid("id", message)
        })
    }
}
