//! The JSON Schemas of the contract's types, as stored in `schemas/json/`.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};

use crate::{outcome::Outcome, wire::WireJob, worker::WorkerRecord};

/// The schema of the written form: a field that is left out when it is absent is not required.
fn schema<T: JsonSchema>() -> String {
    let generator: SchemaGenerator =
        SchemaSettings::draft2020_12().for_serialize().into_generator();
    let schema = generator.into_root_schema_for::<T>();
    format!("{:#}\n", schema.as_value())
}

/// The schema of a job's body.
pub fn job() -> String {
    schema::<WireJob<'_>>()
}

/// File names and contents.
pub fn json_schemas() -> [(&'static str, String); 3] {
    [
        ("job.schema.json", job()),
        ("result.schema.json", schema::<Outcome>()),
        ("worker.schema.json", schema::<WorkerRecord>()),
    ]
}
