//! What rounding the operands may change, and what not. Without AVX512-BF16 the f32 path answers
//! and passes all the more.

use super::*;

fn run(case: &Case) -> LossOutput {
    BatchSoftmax::new(Precision::Bf16).run(&case.input()).clone()
}

/// To the nearest bf16, ties to even.
fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

/// The norm of the error over the norm of the gradient. In one dimension, say, the terms of a
/// gradient may cancel almost wholly; against `floor` their rounding is small again.
fn error(actual: &[f32], expected: &[f64], floor: f64) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut actual.iter().zip(expected).map(|(&a, e)| f64::from(a) - e));
    error / norm(&mut expected.iter().copied()).max(floor)
}

/// Errors of the loss (relative) and of the gradients of query and item.
fn errors(case: &Case) -> [f64; 3] {
    let (output, reference) = (run(case), Reference::new(case));
    let (query, item) = reference.gradients();
    let loss = reference.loss();
    let floor = 1e-2 / (case.batch() as f64).sqrt() / f64::from(case.temperature);
    [
        (f64::from(output.loss) - loss).abs() / loss.max(1e-6),
        error(&output.query_gradient, &query, floor),
        error(&output.item_gradient, &item, floor),
    ]
}

const SHAPES: [(usize, usize); 25] = {
    let (dims, batches) = ([1, 7, 33, 64, 96], [1, 2, 17, 100, 300]);
    let mut shapes = [(0, 0); 25];
    let mut at = 0;
    while at < 25 {
        shapes[at] = (dims[at / 5], batches[at % 5]);
        at += 1;
    }
    shapes
};

/// Vectors that bf16 can hold have exact scores, so loss and ranks are as good as in f32, and only
/// the weights' rounding is left in the gradients.
#[test]
fn rounding_the_operands_is_the_only_difference() {
    for (seed, (dim, batch)) in SHAPES.into_iter().enumerate() {
        let mut case = Case::random(seed as u64, batch, dim);
        case.query.iter_mut().chain(&mut case.item).for_each(|x| *x = rounded(*x));
        let [loss, query, item] = errors(&case);
        println!("batch {batch}, dim {dim}: {loss:.1e} {query:.1e} {item:.1e}");
        assert!(loss < 1e-5 && query < 5e-3 && item < 5e-3);
        assert_ranks(&case, &run(&case).ranks);
    }
}

#[test]
fn close_to_the_definition() {
    for (seed, (dim, batch)) in SHAPES.into_iter().enumerate() {
        let case = Case::random(seed as u64, batch, dim).with_columns(seed as u64, 3, 2);
        let [loss, query, item] = errors(&case);
        println!(
            "batch {batch}, dim {dim}, t {}: {loss:.1e} {query:.1e} {item:.1e}",
            case.temperature
        );
        // A score is off by 1e-3 at random, its logit by 1 / temperature times that; the mean over
        // few rows keeps more of it.
        let few = (100.0 / batch as f64).sqrt().max(1.0);
        assert!(loss < 1e-3 * few && query < 1e-2 && item < 1e-2);
    }
}

#[test]
fn same_bits_for_any_number_of_threads() {
    for (seed, batch) in [(1, 2500), (2, 300), (3, 1)] {
        let case = Case::random(seed, batch, 33);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads can be started").install(|| bits(&run(&case)))
        };
        let one = on(1);
        assert!(on(2) == one && on(8) == one, "seed {seed}, batch {batch}");
    }
}

#[test]
fn same_bits_with_used_scratch() {
    let mut used = BatchSoftmax::new(Precision::Bf16);
    for (seed, (batch, dim)) in
        [(700, 16), (1, 16), (65, 3), (0, 3), (1500, 16), (64, 40), (700, 16)]
            .into_iter()
            .enumerate()
    {
        let case = Case::random(seed as u64, batch, dim);
        assert!(bits(used.run(&case.input())) == bits(&run(&case)), "seed {seed}, batch {batch}");
    }
}

#[test]
fn masks_and_ties_are_exact() {
    let mut random = Random(3);
    let (query, item) = (random.unit_rows(70, 9), random.unit_rows(70, 9));
    let mut one_item = Case::plain(9, &query, &item);
    one_item.item_ids = vec![5; 70];
    let mut one_query = Case::plain(9, &query, &item);
    one_query.query_ids = Some(vec![5; 70]);
    for case in [one_item, one_query] {
        let output = run(&case);
        assert_eq!(output.loss, 0.0);
        assert!(output.query_gradient.iter().chain(&output.item_gradient).all(|&g| g == 0.0));
    }
    // Equal vectors under different ids score the same, wherever they lie in the kernel's tiles.
    let mut ties = Case::plain(9, &query, &item[..9].repeat(70));
    assert!(run(&ties).ranks.iter().all(|&rank| rank == 70));
    ties.item_ids[0] = 1;
    assert!(run(&ties).ranks.iter().all(|&rank| rank == 69));
}

/// The last pair of an odd number of rows has an unused lane: its exponentials would overflow.
#[test]
fn unused_lanes_leave_no_trace() {
    let mut case = Case::random(5, 65, 7);
    case.log_q.fill(-200.0);
    let output = run(&case);
    assert!(output.loss.is_finite());
    assert!(output.query_gradient.iter().chain(&output.item_gradient).all(|g| g.is_finite()));
}

#[test]
fn nonfinite_input_gives_nan_and_leaves_nothing_behind() {
    let good = Case::random(8, 151, 5);
    let expected = bits(&run(&good));
    let mut softmax = BatchSoftmax::new(Precision::Bf16);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 77, 150] {
            let mut bad = vec![good.clone(); 4];
            bad[0].query[at * 5 + 2] = value;
            bad[1].item[at * 5 + 2] = value;
            bad[2].log_q[at] = value;
            bad[3].rewards[at] = value;
            for (field, bad) in bad.iter().enumerate() {
                let loss = softmax.run(&bad.input()).loss;
                assert!(loss.is_nan(), "{value} in field {field}, row {at} gives {loss}");
                assert!(bits(softmax.run(&good.input())) == expected, "{value} stays in scratch");
            }
        }
    }
}

#[test]
fn without_the_instructions_f32_answers() {
    let mut softmax = BatchSoftmax::with(None);
    assert_eq!(softmax.precision(), Precision::F32);
    assert_eq!(BatchSoftmax::default().precision(), Precision::F32);
    let case = Case::random(1, 100, 7);
    assert!(bits(softmax.run(&case.input())) == bits(&case.run()));
    let asked = BatchSoftmax::new(Precision::Bf16).precision();
    assert_eq!(asked == Precision::Bf16, super::super::bf16::Items::detect().is_some());
}

/// Gradient descent on the vectors themselves, from noise around planted pairs.
#[test]
fn training_ends_at_the_same_loss() {
    let (batch, dim) = (256, 32);
    let mut random = Random(11);
    let item = random.unit_rows(batch, dim);
    let noise = random.unit_rows(batch, dim);
    let query: Vec<f32> = item.iter().zip(noise).map(|(i, n)| 0.3 * i + 0.7 * n).collect();
    let start = Case { temperature: 0.2, ..Case::plain(dim, &query, &item) };
    let train = |precision: Precision| {
        let (mut case, mut softmax) = (start.clone(), BatchSoftmax::new(precision));
        let mut loss = f32::NAN;
        for _ in 0..200 {
            let output = softmax.run(&case.input());
            for (x, g) in case.query.iter_mut().zip(&output.query_gradient) {
                *x -= RATE * g;
            }
            for (x, g) in case.item.iter_mut().zip(&output.item_gradient) {
                *x -= RATE * g;
            }
            loss = output.loss;
        }
        loss
    };
    const RATE: f32 = 0.3;
    let (first, f32, bf16) = (start.run().loss, train(Precision::F32), train(Precision::Bf16));
    println!("from {first} to {f32} in f32, {bf16} in bf16");
    assert!(f32 < 0.8 * first && (bf16 - f32).abs() < 5e-3 * f32);
}
