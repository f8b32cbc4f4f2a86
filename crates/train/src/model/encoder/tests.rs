use super::*;
use crate::kernel::matrix::PerTower;
use crate::table::TableSettings;
use millrace_events::FeatureValue;

/// Every kind of feature; tables `a` (2 floats, shared by both sides) and `b` (1 float).
fn settings() -> ModelSettings {
    let rows = || FeatureInput::Rows { table: "a".into() };
    let query = vec![
        Feature::new("id", rows()),
        Feature::new("bag", rows()),
        Feature::new("kept", FeatureInput::Kept { table: "a".into(), length: 2 }),
        Feature::new(
            "bucket",
            FeatureInput::Buckets { table: "b".into(), boundaries: vec![0.0, 10.0] },
        ),
        Feature::new("vector", FeatureInput::Vector { length: 3 }),
    ];
    let price = FeatureInput::Number(NumberScale::Raw);
    let item = vec![Feature::new("id", rows()), Feature::new("price", price)];
    let mut settings = ModelSettings::new(1024, query, item);
    for (name, dim) in [("a", 2), ("b", 1)] {
        settings.tables.get_mut(name).expect("a feature names it").dim = dim;
    }
    settings
}

fn tables() -> Vec<Table> {
    let table = |dim| {
        Table::new(TableSettings {
            dim,
            rows_max: 100,
            init_scale: 1.0,
            seed: 5,
            learning_rate: 0.5,
            decay: 1.0,
            epsilon: 1e-12,
            batch: 1,
            expiry_events: None,
        })
    };
    vec![table(2), table(1)]
}

fn columns(events: &[Vec<FeatureValue>]) -> Vec<Column> {
    let mut columns = vec![Column::default(); events[0].len()];
    for event in events {
        for (column, value) in columns.iter_mut().zip(event) {
            column.push(value);
        }
    }
    columns
}

fn queries() -> Vec<Column> {
    let event = |id, bag: &[(u64, f32)], number, vector: [f32; 3]| {
        vec![
            FeatureValue::Id(id),
            FeatureValue::Bag(bag.to_vec()),
            FeatureValue::Absent,
            FeatureValue::Number(number),
            FeatureValue::Vector(vector.to_vec()),
        ]
    };
    columns(&[
        event(1, &[(2, 0.5), (3, 0.5)], -1.0, [1.0, 2.0, 3.0]),
        event(1, &[], 10.0, [4.0, 5.0, 6.0]),
    ])
}

fn items() -> Vec<Column> {
    columns(&[
        vec![FeatureValue::Id(2), FeatureValue::Number(9.0)],
        vec![FeatureValue::Id(4), FeatureValue::Absent],
    ])
}

#[test]
fn inputs_are_pooled_rows_side_by_side() {
    let (encoder, mut tables) = (Encoder::new(&settings()), tables());
    assert_eq!((encoder.query.width, encoder.item.width), (2 + 2 + 2 + 1 + 3, 2 + 1));
    let statistics = Statistics::default();
    let histories = [vec![7, 8, 9], vec![]];
    let query = encoder.query.encode(&queries(), 2, &histories, &statistics);
    let item = encoder.item.encode(&items(), 2, &[], &statistics);
    let mut lookup = Lookup::default();
    lookup.run(&encoder, &query, &item, &mut tables, 1);
    let row = |id| tables[0].row(tables[0].find(id).expect("touched"));
    let mean = |a: u64, b: u64| [0, 1].map(|i| 0.5 * row(a)[i] + 0.5 * row(b)[i]);

    let input = lookup.inputs().query;
    let (first, second) = input.split_at(10);
    assert_eq!(first[..2], *row(1));
    assert_eq!(first[2..4], mean(2, 3));
    assert_eq!(first[4..6], mean(8, 9), "the last two of the history");
    assert_eq!(first[7..], [1.0, 2.0, 3.0]);
    assert_eq!(second[..2], *row(1));
    assert_eq!(second[2..6], [0.0; 4], "an empty bag and an empty history are zeros");
    assert_ne!(first[6], second[6], "-1 and 10 fall into different buckets");

    let input = lookup.inputs().item;
    assert_eq!(input[..3], [row(2)[0], row(2)[1], 9.0]);
    assert_eq!(input[3..], [row(4)[0], row(4)[1], 0.0], "an absent number is zero");
    // Reading the same without training gives the same bits.
    assert_eq!(input, encoder.item.input(&item, &tables));
}

#[test]
fn unknown_ids_read_what_their_row_would_begin_with_and_leave_no_trace() {
    let (encoder, mut tables) = (Encoder::new(&settings()), tables());
    let statistics = Statistics::default();
    let item = encoder.item.encode(&items(), 2, &[], &statistics);
    let before = encoder.item.input(&item, &tables);
    assert_eq!(tables[0].len(), 0);
    let query = encoder.query.encode(&queries(), 2, &[vec![], vec![]], &statistics);
    Lookup::default().run(&encoder, &query, &item, &mut tables, 1);
    assert_eq!(before, encoder.item.input(&item, &tables));
}

#[test]
fn gradients_of_shared_rows_add_up_over_features_sides_and_events() {
    let (encoder, mut tables) = (Encoder::new(&settings()), tables());
    let statistics = Statistics::default();
    let query = encoder.query.encode(&queries(), 2, &[vec![], vec![]], &statistics);
    let item = encoder.item.encode(&items(), 2, &[], &statistics);
    let mut lookup = Lookup::default();
    lookup.run(&encoder, &query, &item, &mut tables, 1);
    let row = |tables: &[Table], id| tables[0].row(tables[0].find(id).expect("touched")).to_vec();
    let before: Vec<Vec<f32>> = [1, 2, 3, 4].map(|id| row(&tables, id)).to_vec();

    let mut query_gradient = [0.0; 20];
    (query_gradient[0], query_gradient[10]) = (1.0, 2.0); // id 1, first float, both events
    (query_gradient[2], query_gradient[3]) = (4.0, 0.0); // bag of 2 and 3, half each
    let mut item_gradient = [0.0; 6];
    item_gradient[0] = 6.0; // id 2, shared with the bag
    let gradients = PerTower { query: &query_gradient[..], item: &item_gradient[..] };
    lookup.update(&gradients, &mut tables);

    // Row-wise Adagrad's first step: lr * g / sqrt(mean(g^2)), with g = (3, 0), (8, 0), (2, 0).
    let expected = 0.5 * 2.0f32.sqrt();
    for (id, before) in [1, 2, 3].into_iter().zip(&before) {
        let after = row(&tables, id);
        assert!((before[0] - after[0] - expected).abs() < 1e-6, "id {id}");
        assert_eq!(before[1], after[1], "id {id}");
    }
    assert_eq!(before[3], row(&tables, 4), "no gradient, no move");
}
