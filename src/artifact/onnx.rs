//! The query tower as ONNX: a `Gemm` a layer with a `Relu` between them, and the norm.
//!
//! Lookups are not in it: they are tables that grow, and a graph is no place for them. Its input is
//! what they give, `[batch, width]`.
//!
//! The messages are those of onnx.proto that such a graph needs, with its numbers.

use millrace_train::model::towers::DenseLayer;
use prost::Message;

/// Serving systems of years ago read it; `ReduceL2` takes its axes as an attribute until 17.
const OPSET: i64 = 17;
/// The first one that allows this opset.
const IR_VERSION: i64 = 8;
/// `TensorProto.FLOAT`
const FLOAT: i32 = 1;
/// `AttributeProto.INT`
const INT: i32 = 2;
/// `AttributeProto.INTS`
const INTS: i32 = 7;

/// The bytes of a model: `input` `[batch, width]` in, `vector` `[batch, dim]` of length 1 out.
pub(super) fn model<'m>(layers: impl Iterator<Item = DenseLayer<'m>>, name: &str) -> Vec<u8> {
    let layers: Vec<DenseLayer<'m>> = layers.collect();
    let mut graph = Graph { name: "query_tower".to_owned(), ..Graph::default() };
    let mut above = "input".to_owned();
    for (number, layer) in layers.iter().enumerate() {
        let [weight, bias, sum] = ["weight", "bias", "sum"].map(|part| format!("{part}.{number}"));
        graph.initializer.push(tensor(&weight, &[layer.inputs, layer.outputs], layer.weight));
        graph.initializer.push(tensor(&bias, &[layer.outputs], layer.bias));
        graph.node.push(node("Gemm", &[&above, &weight, &bias], &sum));
        above = sum;
        if number + 1 < layers.len() {
            let relu = format!("relu.{number}");
            graph.node.push(node("Relu", &[&above], &relu));
            above = relu;
        }
    }
    let mut norm = node("ReduceL2", &[&above], "norm");
    let axes = Attribute { ints: vec![1], kind: INTS, ..Attribute::named("axes") };
    let keep = Attribute { i: 1, kind: INT, ..Attribute::named("keepdims") };
    norm.attribute.extend([axes, keep]);
    graph.node.push(norm);
    graph.node.push(node("Div", &[&above, "norm"], "vector"));
    let width = layers.first().map_or(0, |layer| layer.inputs);
    let dim = layers.last().map_or(0, |layer| layer.outputs);
    graph.input.push(value("input", width));
    graph.output.push(value("vector", dim));
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "millrace".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: name.to_owned(),
        graph: Some(graph),
        opset_import: vec![Opset { domain: String::new(), version: OPSET }],
    };
    model.encode_to_vec()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: output.to_owned(),
        op_type: operator.to_owned(),
        attribute: Vec::new(),
    }
}

fn tensor(name: &str, dims: &[usize], values: &[f32]) -> Tensor {
    Tensor {
        dims: dims.iter().map(|&dim| dim as i64).collect(),
        data_type: FLOAT,
        name: name.to_owned(),
        raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

fn value(name: &str, width: usize) -> Value {
    let batch = Dimension { value: 0, name: "batch".to_owned() };
    let shape = Shape { dim: vec![batch, Dimension { value: width as i64, name: String::new() }] };
    let tensor = TensorType { elem_type: FLOAT, shape: Some(shape) };
    Value { name: name.to_owned(), kind: Some(Type { tensor: Some(tensor) }) }
}

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(string, tag = "6")]
    doc_string: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<Opset>,
}

#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

impl Attribute {
    fn named(name: &str) -> Attribute {
        Attribute { name: name.to_owned(), ..Attribute::default() }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

/// One of the two: a number, or a name for one that is open. What is not set is not written.
#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, tag = "1")]
    value: i64,
    #[prost(string, tag = "2")]
    name: String,
}
