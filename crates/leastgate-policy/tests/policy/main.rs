//! Holds the engine to the scope language: by a table of examples, by properties, and by a second, naive evaluator
//! that shares no code with it and must agree on everything random policies and requests bring up.

mod agreement;
mod documents;
mod engine;
mod examples;
mod generate;
mod invariants;
mod limits;
mod load_errors;
mod notation;
mod own_token;
mod reference;
mod server_names;
