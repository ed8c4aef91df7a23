//! Graphs of small configurations: names, shapes, errors, directories.
