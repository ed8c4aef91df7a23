//! The project itself: what the architecture forbids, and whether the pages say what is so.

mod folders;
mod layers;
mod readme;
mod scripts;
