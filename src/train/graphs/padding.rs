//! Padding rows of tables that are a head, too. PyTorch's embedding with `padding_idx` gives the
//! row no gradient where it is looked up; the head's product with the same table does.

use crate::error::Result;
use crate::onnx::{Build, Graph, ValueId};

/// A lookup, and what stands for it in the forward graph while gradients are attached.
type StoppedLookup = (ValueId, ValueId);

/// Routes the gradient of lookups of a table's padding row to nowhere; the tables and their rows
/// are in `padding`. The values are right again after [`resume_lookups`].
pub(super) fn stop_lookups(
    graph: &mut Graph,
    padding: &[(ValueId, usize)],
) -> Result<Vec<StoppedLookup>> {
    let mut stopped = Vec::new();
    for &(table, row) in padding {
        let lookups = graph.nodes().iter().filter(|n| {
            let along_rows = n.int("axis").unwrap_or(0) == 0;
            n.op == "Gather" && n.domain.is_empty() && along_rows && n.input(0) == Some(table)
        });
        let lookups: Vec<(ValueId, ValueId)> =
            lookups.filter_map(|n| Some((n.input(1)?, n.output(0)?))).collect();
        for (ids, lookup) in lookups {
            let name = graph.fresh_name("padding");
            let ty = graph.value(lookup).ty.clone();
            let elsewhere = graph.add_input(&name, ty)?;
            // Readers of the lookup read the routed value; the routing itself reads the lookup.
            let name = graph.fresh_name("looked_up");
            let reader = graph.add_value(&name)?;
            graph.replace_uses(lookup, reader);
            let mut g = Build::new(graph);
            let mut shape = g.shape(ids)?;
            shape.push(1);
            let is_padding = g.compare_number("Equal", ids, row as f64)?;
            let is_padding = g.reshape(is_padding, &shape)?;
            let routed = g.select(is_padding, elsewhere, lookup)?;
            graph.replace_uses(reader, routed);
            stopped.push((lookup, routed));
        }
    }
    if !stopped.is_empty() {
        graph.sort()?;
    }
    Ok(stopped)
}

/// Lets the forward graph read the lookups themselves again; the gradients stay routed.
pub(super) fn resume_lookups(graph: &mut Graph, stopped: &[StoppedLookup]) {
    stopped.iter().for_each(|&(lookup, routed)| graph.replace_uses(routed, lookup));
}
