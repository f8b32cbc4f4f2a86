//! The softmax on a device against the host's, on whatever adapter wgpu finds (Mesa's software
//! Vulkan included).

use super::*;
use crate::placement::any_gpu;

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

fn run(softmax: &mut GraphSoftmax, case: &Case) -> LossOutput {
    let Outcome { loss, ranks, gradients } = softmax.run(&case.input());
    LossOutput {
        loss,
        query_gradient: gradients.query.read(case.batch(), case.dim).into_owned(),
        item_gradient: gradients.item.read(case.trained, case.dim).into_owned(),
        ranks: ranks.to_vec(),
    }
}

/// Within a thousandth of the greatest element of the host's.
fn assert_same(softmax: &mut GraphSoftmax, case: &Case) {
    let (output, host) = (run(softmax, case), case.run());
    // Losses of both signs may cancel where positives are left out.
    let size = if case.shift.is_some() { 1.0 } else { 1e-6 };
    assert_close_from(size, "loss", &[output.loss], &widen(&[host.loss]), 1e-3);
    assert_close("query", &output.query_gradient, &widen(&host.query_gradient), 1e-3);
    assert_close("item", &output.item_gradient, &widen(&host.item_gradient), 1e-3);
    assert_ranks(case, &output.ranks);
}

#[test]
fn the_devices_softmax_is_the_hosts() {
    let mut softmax = GraphSoftmax::new(&any_gpu());
    for (seed, (batch, dim)) in
        [(1, 8), (65, 64), (300, 19), (256, 32), (1024, 64)].into_iter().enumerate()
    {
        println!("batch {batch}, dim {dim}");
        let case = Case::random(seed as u64, batch, dim);
        let more = case.clone().with_columns(seed as u64, batch / 2 + 3, batch / 3);
        let without = more.clone().excluding_positives(seed as u64);
        let window = case.clone().with_window(seed as u64, batch / 2 + 1);
        let cases = [case.clone(), case.excluding_positives(seed as u64), more, without, window];
        for case in cases {
            assert_same(&mut softmax, &case);
        }
    }
}

#[test]
fn the_devices_blocks_add_up() {
    let mut softmax = GraphSoftmax::new(&any_gpu());
    softmax.block_logits = 1; // one step of rows a block
    assert_same(&mut softmax, &Case::random(4, 700, 16).with_columns(4, 300, 20));
}

#[test]
fn the_devices_softmax_keeps_the_hosts_edges() {
    let mut softmax = GraphSoftmax::new(&any_gpu());
    // One item only: nothing is left to tell apart.
    let mut one_item = Case::random(3, 70, 8);
    one_item.item_ids = vec![5; 70];
    for case in [one_item.clone(), one_item.excluding_positives(3)] {
        let output = run(&mut softmax, &case);
        assert_eq!(output.loss, 0.0);
        assert!(output.query_gradient.iter().chain(&output.item_gradient).all(|&g| g == 0.0));
        assert!(output.ranks.iter().all(|&rank| rank == 1));
    }
    // 1 - P is 4e-9, below the spacing of f32 numbers near 1.
    let axes: Vec<f32> = (0..9).map(|x| if x % 4 == 0 { 1.0 } else { 0.0 }).collect();
    let mut certain = Case::plain(3, &axes, &axes);
    certain.temperature = 0.05;
    let (output, host) = (run(&mut softmax, &certain), certain.run());
    let scaled = |values: &[f32]| -> Vec<f32> { values.iter().map(|x| x * 1e9).collect() };
    assert_close("loss", &scaled(&[output.loss]), &widen(&scaled(&[host.loss])), 1e-3);
    let (actual, expected) = (scaled(&output.query_gradient), scaled(&host.query_gradient));
    assert_close("query", &actual, &widen(&expected), 1e-3);
    // Logits 1000 nats apart.
    let mut cold = Case::random(12, 100, 4);
    cold.temperature = 0.002;
    assert_same(&mut softmax, &cold);
    let mut bad = Case::random(8, 150, 5);
    bad.query[77 * 5] = f32::NAN;
    assert!(softmax.run(&bad.input()).loss.is_nan());
}
