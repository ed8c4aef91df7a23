//! Releases the files that a graph was read from.

use bytes::Bytes;

use super::graph::{Attribute, Graph};
use super::proto::{AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto};
use super::tensor_data::TensorData;
use crate::error::Result;
use crate::memory::copied;

impl Graph {
    /// Copies all remaining data out of the mapped files that the graph was read from, so that they
    /// are closed once nothing else refers to them. Otherwise one small constant would keep a whole
    /// weights file mapped.
    ///
    /// Error: `OutOfMemory`; the graph still refers to some of them.
    pub fn detach(&mut self) -> Result<()> {
        self.initializers_mut().values_mut().try_for_each(TensorData::detach)?;
        for node in self.nodes_mut() {
            for attribute in node.attributes.values_mut() {
                match attribute {
                    Attribute::Tensor(data) => data.detach()?,
                    Attribute::Graph(body) => detach_graph(body)?,
                    Attribute::Opaque(proto) => detach_attribute(proto)?,
                    _ => {}
                }
            }
        }
        for function in &mut self.functions {
            detach_nodes(&mut function.node)?;
            function.attribute_proto.iter_mut().try_for_each(detach_attribute)?;
        }
        Ok(())
    }
}

fn own(bytes: &mut Bytes) -> Result<()> {
    *bytes = copied(bytes)?.into();
    Ok(())
}

fn detach_graph(graph: &mut GraphProto) -> Result<()> {
    graph.initializer.iter_mut().try_for_each(detach_tensor)?;
    graph.sparse_initializer.iter_mut().try_for_each(detach_sparse)?;
    detach_nodes(&mut graph.node)
}

fn detach_nodes(nodes: &mut [NodeProto]) -> Result<()> {
    nodes.iter_mut().flat_map(|n| &mut n.attribute).try_for_each(detach_attribute)
}

fn detach_attribute(attribute: &mut AttributeProto) -> Result<()> {
    attribute.s.iter_mut().chain(&mut attribute.strings).try_for_each(own)?;
    attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(detach_tensor)?;
    attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(detach_graph)
}

fn detach_sparse(tensor: &mut SparseTensorProto) -> Result<()> {
    tensor.values.iter_mut().chain(&mut tensor.indices).try_for_each(detach_tensor)
}

fn detach_tensor(tensor: &mut TensorProto) -> Result<()> {
    tensor.raw_data.iter_mut().chain(&mut tensor.string_data).try_for_each(own)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::onnx::proto::FunctionProto;
    use crate::onnx::{Node, ValueType};

    /// Bytes whose owner counts the references to them.
    struct Watched {
        _owner: Arc<()>,
    }

    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &[1, 0, 0, 0, 0, 0, 0, 0]
        }
    }

    #[test]
    fn nothing_refers_to_the_file_any_more() {
        let file = Arc::new(());
        let bytes = Bytes::from_owner(Watched { _owner: file.clone() });
        let tensor = TensorProto { raw_data: Some(bytes.clone()), ..Default::default() };
        let attribute = AttributeProto {
            s: Some(bytes.slice(..3)),
            t: Some(tensor.clone()),
            tensors: vec![tensor.clone()],
            ..Default::default()
        };
        let nodes = vec![NodeProto { attribute: vec![attribute.clone()], ..Default::default() }];
        let body = GraphProto {
            initializer: vec![tensor.clone()],
            node: nodes.clone(),
            ..Default::default()
        };
        let mut g = Graph::new("detached", 17);
        let x = g.add_input("x", ValueType::default()).unwrap();
        let data = TensorData::new(crate::tensor::DType::I64, &[1], bytes).unwrap();
        let c = g.add_initializer("c", data.clone()).unwrap();
        let y = g.op("Add", &[x, c], []);
        let attributes = [
            ("tensor", Attribute::Tensor(data.clone())),
            ("body", Attribute::Graph(Box::new(body))),
            ("other", Attribute::Opaque(Box::new(attribute))),
        ];
        g.push_node(Node {
            attributes: attributes.map(|(k, v)| (k.to_owned(), v)).into(),
            ..g.nodes()[0].clone()
        });
        g.functions.push(FunctionProto { node: nodes, ..Default::default() });
        g.add_output(y);
        drop((data, tensor));
        assert!(Arc::strong_count(&file) > 1);
        g.detach().unwrap();
        assert_eq!(Arc::strong_count(&file), 1);
        assert_eq!(g.initializer(c).unwrap().to_i64s().unwrap(), [1]);
    }
}
