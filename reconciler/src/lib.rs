//! Compares what was ordered with what is there, decides, does, and reports: planner, executor, controller, service, and the
//! `charter` command.

pub mod actual;
pub mod cli;
pub mod clock;
pub mod conduct;
pub mod config;
pub mod control;
pub mod controller;
pub mod demo;
pub mod discovery;
pub mod document;
pub mod executor;
pub mod fabric;
pub mod identity;
pub mod loaded;
pub mod market;
pub mod network;
pub mod observe;
pub mod planner;
pub mod reporting;
pub mod service;
pub mod shutdown;
pub mod story;
pub mod submission;
pub mod telemetry;
pub mod view;
