//! The services as their users meet them: real programs, a real `RabbitMQ` and a real Redis.
//!
//! One binary, so that the broker boots once. Each test has a virtual host and a Redis of its own, or
//! borrows the shared fleet when it only submits jobs and looks at results.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod service {
    mod access;
    mod batching;
    mod bounds;
    mod clients;
    mod clients_text;
    mod clients_text_model;
    mod commands;
    mod dead;
    mod decoder_encoders;
    mod disturbance;
    mod documents;
    mod drain;
    mod foreign;
    mod full;
    mod gateway;
    mod gateway_connections;
    mod gateway_document;
    mod gateway_events;
    mod gateway_keys;
    mod gateway_limits;
    mod gateway_routes;
    mod gateway_shaping;
    mod gateway_tasks;
    mod gateway_text;
    mod gateway_text_model;
    mod gateway_text_streams;
    mod generate;
    mod given_up;
    mod journey;
    mod killer;
    mod large;
    mod logins;
    mod permissions;
    mod publishers;
    mod python;
    mod refusals;
    mod registry;
    mod remote;
    mod retries;
    mod schema;
    mod scores;
    mod secrets;
    mod servers;
    mod settling;
    mod telemetry;
    mod tenants;
    mod tls;
    mod top;
    mod topology;
    mod traces;
    mod usage;
    mod vectors;
}
