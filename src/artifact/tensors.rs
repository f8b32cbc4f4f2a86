//! A version's numbers as `safetensors`, which numpy, torch, JAX and candle read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use safetensors::{Dtype, View};

use millrace_events::Names;
use millrace_train::{ItemSide, QuerySide};

/// Numbers of one kind; little-endian in the file.
enum Numbers<'v> {
    F32(Cow<'v, [f32]>),
    /// One after the other.
    F32Pieces(&'v [Vec<f32>]),
    U64(Cow<'v, [u64]>),
    U8(Cow<'v, [u8]>),
}

/// A named array.
struct Tensor<'v> {
    shape: Vec<usize>,
    numbers: Numbers<'v>,
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.numbers {
            Numbers::F32(_) | Numbers::F32Pieces(_) => Dtype::F32,
            Numbers::U64(_) => Dtype::U64,
            Numbers::U8(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    // Asked for when it is written: one array at a time is there twice.
    fn data(&self) -> Cow<'_, [u8]> {
        match &self.numbers {
            Numbers::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Numbers::F32Pieces(pieces) => {
                pieces.iter().flatten().flat_map(|value| value.to_le_bytes()).collect()
            }
            Numbers::U64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Numbers::U8(values) => Cow::Borrowed(values),
        }
    }

    fn data_len(&self) -> usize {
        match &self.numbers {
            Numbers::F32(values) => 4 * values.len(),
            Numbers::F32Pieces(pieces) => pieces.iter().map(|piece| 4 * piece.len()).sum(),
            Numbers::U64(values) => 8 * values.len(),
            Numbers::U8(values) => values.len(),
        }
    }
}

/// Writes the arrays of a version to a new file at `path`; their names and shapes, for the spec.
pub(super) fn write(
    path: &Path,
    queries: &QuerySide,
    items: &ItemSide,
) -> anyhow::Result<Vec<(String, Vec<usize>)>> {
    let mut tensors: Vec<(String, Tensor<'_>)> = of_items(items);
    let model = &queries.model;
    for (number, layer) in model.towers.query_layers().enumerate() {
        let shape = vec![layer.inputs, layer.outputs];
        tensors.push(floats(format!("tower.{number}.weight"), shape, layer.weight));
        tensors.push(floats(format!("tower.{number}.bias"), vec![layer.outputs], layer.bias));
    }
    for table in model.query_tables() {
        let (name, table) = (&model.encoder.tables[table], &model.tables[table]);
        let ids = table.ids();
        let keys: Vec<u64> = ids.iter().map(|(id, _)| *id).collect();
        let rows: Vec<f32> = ids.iter().flat_map(|&(_, slot)| table.row(slot)).copied().collect();
        tensors.push(whole(format!("table.{name}.keys"), keys));
        let shape = vec![ids.len(), table.dim()];
        let numbers = Numbers::F32(Cow::Owned(rows));
        tensors.push((format!("table.{name}.rows"), Tensor { shape, numbers }));
    }
    if queries.keeps_histories() {
        let histories = queries.histories();
        let lengths = histories.iter().scan(0, |end, (_, items)| {
            *end += items.len() as u64;
            Some(*end)
        });
        tensors.push(whole("histories.ends".to_owned(), lengths.collect()));
        let items = histories.iter().flat_map(|(_, items)| *items).copied();
        tensors.push(whole("histories.items".to_owned(), items.collect()));
        let keys = histories.iter().map(|(query, _)| *query);
        tensors.push(whole("histories.keys".to_owned(), keys.collect()));
    }
    let shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone()));
    let shapes = shapes.collect();
    let about = HashMap::from([("program".to_owned(), "millrace".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(about), path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(shapes)
}

fn of_items(items: &ItemSide) -> Vec<(String, Tensor<'_>)> {
    let vectors = Numbers::F32Pieces(&items.vectors);
    let vectors = Tensor { shape: vec![items.len(), items.dim], numbers: vectors };
    let mut tensors = vec![
        ("items.vectors".to_owned(), vectors),
        floats("items.log_q".to_owned(), vec![items.len()], &items.log_q),
        whole("items.keys".to_owned(), items.keys.clone()),
    ];
    tensors.extend(texts("items.ids", &items.names));
    for (name, column) in &items.attributes {
        tensors.extend(texts(&format!("items.attributes.{name}"), column));
    }
    tensors
}

/// A text for each item: all of them one after the other, and where each ends.
fn texts<'v>(name: &str, column: &Names) -> [(String, Tensor<'v>); 2] {
    let mut ends = Vec::with_capacity(column.len());
    let mut bytes = Vec::new();
    for text in column.iter() {
        bytes.extend_from_slice(text.as_bytes());
        ends.push(bytes.len() as u64);
    }
    let shape = vec![bytes.len()];
    let bytes = Tensor { shape, numbers: Numbers::U8(Cow::Owned(bytes)) };
    [whole(format!("{name}.ends"), ends), (format!("{name}.bytes"), bytes)]
}

fn floats(name: String, shape: Vec<usize>, values: &[f32]) -> (String, Tensor<'_>) {
    (name, Tensor { shape, numbers: Numbers::F32(Cow::Borrowed(values)) })
}

fn whole<'v>(name: String, values: Vec<u64>) -> (String, Tensor<'v>) {
    (name, Tensor { shape: vec![values.len()], numbers: Numbers::U64(Cow::Owned(values)) })
}
