//! Models and their training through the Rust API.

mod adapters;
mod attention;
mod checkpointing;
mod damage;
mod ema;
#[path = "../common/exported_graphs.rs"]
mod exported_graphs;
mod failed_calls;
mod fit;
mod groups;
mod half;
mod import_fixes;
mod load;
mod memory;
mod models_oracle;
mod models_properties;
mod mutual;
mod overlap;
mod placed;
mod precision;
#[cfg(feature = "text")]
mod predictor;
mod pretrained;
mod ranks;
mod resume;
mod sharded;
mod start;
mod trainer;
