//! Differentiation: every gradient rule, graphs of exported models, damaged graphs.

mod fuzz;
mod graphs;
mod hostile;
mod oracle;
mod rules;
