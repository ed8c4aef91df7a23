//! The C ABI and what stands on it: header, exported symbols, programs in C, C++, Go and Rust.

mod bindings;
#[path = "../common/c_program.rs"]
mod c_program;
mod calls;
mod coverage;
mod dump;
mod examples;
#[path = "../common/exported_graphs.rs"]
mod exported_graphs;
mod generate;
mod header;
mod header_file;
mod install;
mod programs;
mod recipes;
mod standard;
mod stub;
mod task_programs;
mod trace;
