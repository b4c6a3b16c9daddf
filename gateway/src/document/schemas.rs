//! Schemas of types, and the definitions that they refer to.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

/// A schema that refers to the definitions beside it.
#[derive(Debug)]
pub(super) struct Schema {
    value: Value,
    definitions: Map<String, Value>,
}

/// Where the document has its definitions.
const PATH: &str = "/components/schemas";

fn of<T: JsonSchema>(mut settings: SchemaSettings) -> Schema {
    settings.definitions_path = PATH.into();
    settings.meta_schema = None;
    let mut generator: SchemaGenerator = settings.into_generator();
    let value = generator.subschema_for::<T>().to_value();
    Schema { value, definitions: generator.take_definitions(true) }
}

/// The schema of what a client may send: fields that may be left out are not required.
pub(super) fn sent<T: JsonSchema>() -> Schema {
    of::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// The schema of what the gateway answers: fields that are always there are required.
pub(super) fn answered<T: JsonSchema>() -> Schema {
    of::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// The whole schema of a body, with its definitions, for a test that validates by it.
pub fn read<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// The definitions of a document.
#[derive(Debug, Default)]
pub(super) struct Components(Map<String, Value>);

impl Components {
    /// Takes the definitions of a schema over, and returns it without them.
    pub(super) fn take(&mut self, schema: Schema) -> Value {
        for (name, definition) in schema.definitions {
            let before = self.0.insert(name.clone(), definition.clone());
            debug_assert!(
                before.is_none_or(|before| before == definition),
                "two types are called {name} in the document: rename one"
            );
        }
        schema.value
    }

    /// The schema of an answer that all operations have.
    pub(super) fn of<T: JsonSchema>(&mut self) -> Value {
        self.take(answered::<T>())
    }

    pub(super) fn written(self) -> Value {
        self.0.into()
    }
}
