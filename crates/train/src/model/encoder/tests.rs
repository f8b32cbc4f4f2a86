use super::*;
use crate::kernel::matrix::PerTower;
use crate::model::feature::Pool;
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

fn table_settings(dim: usize) -> TableSettings {
    TableSettings {
        dim,
        rows_max: 100,
        init_scale: 1.0,
        seed: 5,
        learning_rate: 0.5,
        decay: 1.0,
        epsilon: 1e-12,
        batch: 1,
        admit_after: 1,
        expiry_events: None,
    }
}

fn tables() -> Vec<Table> {
    [2, 1].map(|dim| Table::new(table_settings(dim))).into()
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

/// One query feature of table `a`, and an item's.
fn one(feature: Feature) -> Encoder {
    let item = Feature::new("id", FeatureInput::Rows { table: "a".into() });
    let mut settings = ModelSettings::new(1024, vec![feature], vec![item]);
    settings.tables.get_mut("a").expect("a feature names it").dim = 2;
    Encoder::new(&settings)
}

fn bag(pool: Pool) -> Feature {
    Feature { pool, ..Feature::new("bag", FeatureInput::Rows { table: "a".into() }) }
}

fn of_bags(bags: &[&[(u64, f32)]]) -> Vec<Column> {
    columns(&bags.iter().map(|bag| vec![FeatureValue::Bag(bag.to_vec())]).collect::<Vec<_>>())
}

#[test]
fn a_mean_divides_by_its_weights_and_a_sum_does_not() {
    let bags = of_bags(&[&[(1, 1.0), (2, 3.0)], &[(3, 0.0)], &[], &[(1, -2.0), (2, 2.0)]]);
    let weights = |pool| {
        let encoded = one(bag(pool)).query.encode(&bags, 4, &[], &Statistics::default());
        encoded.columns[0].values.clone()
    };
    assert_eq!(weights(Pool::Sum), [1.0, 3.0, 0.0, -2.0, 2.0]);
    assert_eq!(weights(Pool::Mean), [0.25, 0.75, 0.0, -0.5, 0.5]);
}

#[test]
fn a_history_with_a_half_life_weighs_what_is_recent_more() {
    let half_life = Some(1.0);
    let kept = FeatureInput::Kept { table: "a".into(), length: 3 };
    let kept = Feature { half_life, ..Feature::new("kept", kept) };
    let given = Feature { half_life, ..bag(Pool::Sum) };
    let statistics = Statistics::default();
    let histories = [vec![9, 1, 2, 3], vec![]];
    let of_kept =
        one(kept).query.encode(&of_bags(&[&[], &[]]), 2, &histories, &statistics).columns.remove(0);
    let bags = of_bags(&[&[(1, 0.5), (2, 0.5), (3, 0.5)], &[]]);
    let of_given = one(given).query.encode(&bags, 2, &[], &statistics).columns.remove(0);
    assert_eq!(of_kept.ids, [1, 2, 3]);
    for column in [of_kept, of_given] {
        let expected = [1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0];
        for (weight, expected) in column.values.iter().zip(expected) {
            assert!((weight - expected).abs() < 1e-6, "{weight} {expected}");
        }
    }
}

#[test]
fn the_greatest_of_each_dimension_is_taken_and_alone_moves() {
    let (encoder, mut tables) = (one(bag(Pool::Max)), tables());
    let statistics = Statistics::default();
    let ids: Vec<(u64, f32)> = (1..=6).chain([3]).map(|id| (id, 0.5)).collect();
    let query = encoder.query.encode(&of_bags(&[&ids, &[]]), 2, &[], &statistics);
    let item = encoder.item.encode(&columns(&[vec![FeatureValue::Id(100)]]), 1, &[], &statistics);
    let mut lookup = Lookup::default();
    lookup.run(&encoder, &query, &item, &mut tables, 1);
    let rows = |tables: &[Table]| -> Vec<Vec<f32>> {
        (1..=6).map(|id| tables[0].row(tables[0].find(id).expect("touched")).to_vec()).collect()
    };
    let before = rows(&tables);
    let greatest: Vec<f32> = (0..2)
        .map(|dim| before.iter().map(|row| row[dim]).fold(f32::NEG_INFINITY, f32::max))
        .collect();
    let pooled = lookup.inputs().query.to_vec();
    assert_eq!(pooled[..2], greatest);
    assert_eq!(pooled[2..], [0.0, 0.0], "an empty bag");
    assert_eq!(pooled, encoder.query.input(&query, &tables), "without training");
    let gradients = PerTower { query: &[1.0, 1.0, 5.0, 5.0][..], item: &[0.0, 0.0][..] };
    lookup.update(&gradients, &mut tables);
    for (before, after) in before.iter().zip(rows(&tables)) {
        for dim in 0..2 {
            // A row with one of both dimensions has g = (1, 0) or (0, 1), else (1, 1).
            let is_greatest = before[dim] == greatest[dim];
            let both = before == &greatest;
            let step = 0.5 * if both { 1.0 } else { 2.0f32.sqrt() };
            let expected = if is_greatest { before[dim] - step } else { before[dim] };
            assert!((after[dim] - expected).abs() < 1e-6, "{before:?} {after:?}");
        }
    }
}

#[test]
fn a_number_is_clipped_before_it_is_scaled_and_says_where_it_is_missing() {
    let number = FeatureInput::Number(NumberScale::Log);
    let clip = Some([0.0, 10.0]);
    let encoder = one(Feature { clip, missing: true, ..Feature::new("price", number) });
    assert_eq!(encoder.query.width, 2);
    let numbers = [Some(1e30), Some(-5.0), None]
        .map(|number| vec![number.map_or(FeatureValue::Absent, FeatureValue::Number)]);
    let query = encoder.query.encode(&columns(&numbers), 3, &[], &Statistics::default());
    let input = encoder.query.input(&query, &tables());
    assert_eq!(input, [10f32.ln_1p(), 0.0, 0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn dropped_ids_read_the_row_that_unknown_ones_read() {
    let dropped = Feature { dropout: 0.5, ..bag(Pool::Sum) };
    let (encoder, mut tables) = (one(dropped), tables());
    let statistics = Statistics::default();
    let bags: Vec<Vec<(u64, f32)>> = (0..1000).map(|id| vec![(id, 1.0)]).collect();
    let bags = of_bags(&bags.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let encode = |seed| {
        let mut encoded = encoder.query.encode(&bags, 1000, &[], &statistics);
        encoder.query.drop_ids(&mut encoded, seed);
        encoded
    };
    let (query, again, other) = (encode(3), encode(3), encode(4));
    assert_eq!(query.columns[0].ids, again.columns[0].ids);
    assert_ne!(query.columns[0].ids, other.columns[0].ids);
    let dropped = query.columns[0].ids.iter().filter(|&&id| id == UNKNOWN).count();
    assert!((400..600).contains(&dropped), "{dropped} of 1000");

    let item = encoder.item.encode(&columns(&[vec![FeatureValue::Id(5000)]]), 1, &[], &statistics);
    let mut lookup = Lookup::default();
    for table in &mut tables {
        *table = Table::new(TableSettings { rows_max: 2000, ..table_settings(table.dim()) });
    }
    lookup.run(&encoder, &query, &item, &mut tables, 1);
    let unknown = tables[0].row(tables[0].find(UNKNOWN).expect("some were dropped")).to_vec();
    let stranger = encoder.query.encode(&of_bags(&[&[(7777, 1.0)]]), 1, &[], &statistics);
    assert_eq!(encoder.query.input(&stranger, &tables), unknown);
    // A row that is made now begins there, too, but for the noise that tells it from others.
    lookup.run(&encoder, &stranger, &item, &mut tables, 2);
    let mut noise = vec![0.0; 2];
    tables[0].initial_row(7777, &mut noise);
    let expected: Vec<f32> = unknown.iter().zip(&noise).map(|(row, noise)| noise + row).collect();
    assert_eq!(tables[0].row(tables[0].find(7777).expect("made")), expected);
}

/// Pooled by attention in `f64`, from the definition.
fn attended(rows: &[[f64; 2]], weights: &[f64]) -> [f64; 2] {
    let last = rows[rows.len() - 1];
    let dot = |row: &[f64; 2]| row[0] * last[0] + row[1] * last[1];
    let shares: Vec<f64> =
        rows.iter().zip(weights).map(|(row, w)| w * (dot(row) / 2f64.sqrt()).exp()).collect();
    let sum: f64 = shares.iter().sum();
    [0, 1].map(|dim| rows.iter().zip(&shares).map(|(row, share)| row[dim] * share / sum).sum())
}

#[test]
fn attention_pools_as_defined_and_its_gradient_is_the_slope() {
    let kept = FeatureInput::Kept { table: "a".into(), length: 4 };
    let attention =
        Feature { pool: Pool::Attention, half_life: Some(2.0), ..Feature::new("kept", kept) };
    let (encoder, mut tables) = (one(attention), tables());
    let statistics = Statistics::default();
    // An item that comes twice, one of which is the last; an item alone; none.
    let histories = [vec![9, 3, 1, 2, 3], vec![1], vec![]];
    let columns_of = of_bags(&[&[], &[], &[]]);
    let query = encoder.query.encode(&columns_of, 3, &histories, &statistics);
    let item = encoder.item.encode(&columns(&[vec![FeatureValue::Id(100)]]), 1, &[], &statistics);
    let mut lookup = Lookup::default();
    lookup.run(&encoder, &query, &item, &mut tables, 1);
    let rows = |tables: &[Table]| {
        [1, 2, 3].map(|id| {
            let row = tables[0].row(tables[0].find(id).expect("touched"));
            [f64::from(row[0]), f64::from(row[1])]
        })
    };
    let before = rows(&tables);
    let pooled = |rows: &[[f64; 2]; 3]| {
        let weights: Vec<f64> = query.columns[0].values[..4].iter().map(|&w| w.into()).collect();
        let history = [rows[2], rows[0], rows[1], rows[2]];
        (attended(&history, &weights), rows[0])
    };
    let inputs = lookup.inputs().query.to_vec();
    let (expected, alone) = pooled(&before);
    for (found, expected) in inputs.iter().zip(expected.into_iter().chain(alone).chain([0.0, 0.0]))
    {
        assert!((f64::from(*found) - expected).abs() < 1e-6, "{inputs:?}");
    }
    assert_eq!(inputs, encoder.query.input(&query, &tables), "without training");

    let slopes = [0.7f64, -1.3, 0.4, 0.9];
    let value = |rows: &[[f64; 2]; 3]| {
        let (first, second) = pooled(rows);
        slopes.iter().zip(first.into_iter().chain(second)).map(|(g, x)| g * x).sum::<f64>()
    };
    let gradients: Vec<f32> = slopes.iter().map(|&g| g as f32).chain([0.0, 0.0]).collect();
    let gradients = PerTower { query: &gradients[..], item: &[0.0, 0.0][..] };
    lookup.update(&gradients, &mut tables);
    let after = rows(&tables);
    for row in 0..3 {
        let slope = [0, 1].map(|dim| {
            let moved = |by: f64| {
                let mut rows = before;
                rows[row][dim] += by;
                value(&rows)
            };
            (moved(1e-5) - moved(-1e-5)) / 2e-5
        });
        // Row-wise Adagrad's first step.
        let size = ((slope[0].powi(2) + slope[1].powi(2)) / 2.0).sqrt();
        for dim in 0..2 {
            let step = before[row][dim] - after[row][dim];
            assert!((step - 0.5 * slope[dim] / size).abs() < 1e-4, "row {row}: {step} {slope:?}");
        }
    }
}
