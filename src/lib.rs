//! tidegate: a transparent OpenAI-compatible proxy that never sends a rate-limited provider a request too many.

pub mod admission;
pub mod answer;
pub mod api;
pub mod app;
pub mod breaker;
pub mod cache;
pub mod call;
pub mod commands;
pub mod config;
pub mod headers;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod openai;
pub mod pipeline;
pub mod proxy;
pub mod sim;
pub mod tasks;
pub mod telemetry;
pub mod time;
pub mod units;
pub mod upstream;
