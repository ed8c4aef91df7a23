//! The library's own operators that a forward graph can hold.

use crate::autodiff::rule::RuleCx;
use crate::autodiff::table::{Entry, Row};
use crate::error::Result;
use crate::onnx::{Node, ValueType};

pub(super) const ROWS: &[Row] =
    &[Row { op: "Dropout", domain: "mmopt", since: 1, entry: Entry::Rule(dropout) }];

/// y = x m(seed) / (1 - ratio)        dx = dy m(seed) / (1 - ratio): the operator itself
fn dropout(cx: &mut RuleCx) -> Result<()> {
    let (dy, seed) = (cx.dy()?, cx.x(1)?);
    let (forward, shape) = (cx.node().clone(), cx.x_shape(0)?);
    cx.give(0, |g| {
        let dtype = g.dtype(dy)?;
        let dx = g.graph_mut().add_value("")?;
        g.graph_mut().set_type(dx, ValueType::known(dtype, &shape));
        let (inputs, outputs) = (vec![Some(dy), Some(seed)], vec![Some(dx)]);
        g.graph_mut().push_node(Node { name: String::new(), inputs, outputs, ..forward });
        Ok(dx)
    })
}
