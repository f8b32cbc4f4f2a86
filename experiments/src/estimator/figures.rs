//! The paper's Figures 4 and 5 in both modes, the error that is left without collisions, and what
//! the automatic rate is worth.

use std::path::Path;

use anyhow::Context;
use millrace::plot::{self, Marks, Plot, Series};
use millrace_train::frequency::{FrequencySettings, Mode, Rate};
use serde_json::{Value, json};

use super::sample::{Sample, rounded};
use super::simulation::{BATCH, Curve, Curves, STEPS, SWITCH, ideal_error};

const MODES: [(Mode, &str); 2] = [(Mode::Paper, "paper"), (Mode::Default, "default")];
const RATES: [f32; 3] = [0.01, 0.05, 0.1];
/// Hashes and buckets of Figure 5.
const SHAPES: [(usize, usize); 3] = [(1, 4000), (2, 2000), (4, 1000)];
/// What the automatic rate is compared with.
pub(super) const LADDER: [f32; 9] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4];

/// Figure 4's estimator. Its seed comes with the stream's.
pub(super) fn hashed(mode: Mode, alpha: Rate) -> FrequencySettings {
    FrequencySettings {
        mode,
        exact: false,
        hashes: 1,
        buckets: 5000,
        alpha,
        initial_gap: 100.0,
        exact_ids_max: 1 << 20,
        seed: 0,
        batch: 1,
    }
}

fn figure5(mode: Mode, (hashes, buckets): (usize, usize)) -> FrequencySettings {
    FrequencySettings { hashes, buckets, ..hashed(mode, Rate::Fixed(0.05)) }
}

/// The default mode without collisions.
pub(super) fn exact(alpha: Rate) -> FrequencySettings {
    FrequencySettings { exact: true, ..hashed(Mode::Default, alpha) }
}

/// The paper's mode as good as without collisions; it has no exact variant.
pub(super) fn wide() -> FrequencySettings {
    FrequencySettings { buckets: 1 << 22, ..hashed(Mode::Paper, Rate::Fixed(0.01)) }
}

fn rates(mode: Mode) -> Vec<Rate> {
    let auto = (mode == Mode::Default).then_some(Rate::Auto);
    RATES.map(Rate::Fixed).into_iter().chain(auto).collect()
}

pub(super) fn name(rate: Rate) -> String {
    match rate {
        Rate::Fixed(alpha) => alpha.to_string(),
        Rate::Auto => "auto".to_owned(),
    }
}

/// Simulates, prints, and fills in all but the keys `globo` and `zipf_top`.
pub(super) fn measure(results: &mut Value, seeds: u64, out: &Path) -> anyhow::Result<()> {
    let of_mode = |(mode, _)| rates(mode).into_iter().map(move |rate| hashed(mode, rate));
    let mut settings: Vec<_> = MODES.into_iter().flat_map(of_mode).collect();
    settings.extend(LADDER.map(|alpha| exact(Rate::Fixed(alpha))));
    settings.extend([exact(Rate::Auto), wide()]);
    let curves = Curves::new(settings, STEPS, seeds);
    measure_figure4(&mut results["figure4"], &curves, out)?;
    measure_figure5(&mut results["figure5"], seeds, out)?;
    measure_collision_free(&mut results["collision_free"], &curves);
    println!("\nauto rate beside fixed rates (exact slots), mean error");
    for (name, steps) in [("before", 1..=SWITCH), ("after", SWITCH + 1..=STEPS)] {
        let error = |rate| curves.sample(&exact(rate), |curve| curve.mean(steps.clone()));
        results["auto"][name] = compare(&format!("{name} the switch"), error);
    }
    Ok(())
}

fn floor(curve: &Curve) -> f64 {
    curve.mean(SWITCH - 999..=SWITCH)
}

fn measure_figure4(results: &mut Value, curves: &Curves, out: &Path) -> anyhow::Result<()> {
    println!("\nFigure 4 (m = 1, H = 5000)");
    println!("  mode    alpha   start  at 500   floor          half recovery, steps");
    let mut plots = Vec::new();
    for (mode, mode_name) in MODES {
        let mut series = Vec::new();
        for rate in rates(mode) {
            let (settings, name) = (hashed(mode, rate), name(rate));
            let start = curves.sample(&settings, |curve| curve.at(1));
            let early = curves.sample(&settings, |curve| curve.at(500));
            let floor = curves.sample(&settings, floor);
            let half = curves.sample(&settings, |curve| curve.half_recovery() as f64);
            let leaf = &mut results[mode_name][&name];
            start.put(leaf, "start");
            early.put(leaf, "at_500");
            floor.put(leaf, "floor");
            half.put(leaf, "half_recovery_steps");
            println!(
                "  {mode_name:<7} {name:<5}  {:.4}   {:.4}  {:.4} ± {:.4}  {:6.0} ± {:.0}",
                start.mean, early.mean, floor.mean, floor.sd, half.mean, half.sd
            );
            series.push(line(format!("α = {name}"), curves, &settings));
        }
        plots.push(panel_of_mode(mode_name, series));
    }
    let title = "Figure 4: the law switches after step 10,000 (m = 1, H = 5000)";
    write(&out.join("figure4.svg"), title, &plots)
}

fn measure_figure5(results: &mut Value, seeds: u64, out: &Path) -> anyhow::Result<()> {
    let of_mode = |(mode, _)| SHAPES.map(|shape| figure5(mode, shape));
    let settings = MODES.into_iter().flat_map(of_mode).collect();
    let curves = Curves::new(settings, SWITCH, seeds);
    println!("\nFigure 5 (alpha 0.05)");
    println!("  mode     m     H   floor");
    let mut plots = Vec::new();
    for (mode, mode_name) in MODES {
        let mut series = Vec::new();
        for (hashes, buckets) in SHAPES {
            let settings = figure5(mode, (hashes, buckets));
            let floor = curves.sample(&settings, floor);
            floor.put(&mut results[mode_name][hashes.to_string()], "floor");
            println!(
                "  {mode_name:<7} {hashes:2}  {buckets:4}  {:.4} ± {:.4}",
                floor.mean, floor.sd
            );
            series.push(line(format!("m = {hashes}, H = {buckets}"), &curves, &settings));
        }
        plots.push(panel_of_mode(mode_name, series));
    }
    let title = "Figure 5: the same memory split over m hashes (α = 0.05)";
    write(&out.join("figure5.svg"), title, &plots)
}

fn measure_collision_free(results: &mut Value, curves: &Curves) {
    println!("\nfloor without collisions");
    let cases = [
        ("paper", wide()),
        ("default_0.01", exact(Rate::Fixed(0.01))),
        ("default", exact(Rate::Auto)),
    ];
    for (name, settings) in cases {
        let floor = curves.sample(&settings, floor);
        floor.put(&mut results[name], "floor");
        println!("  {name:<14} {:.4} ± {:.4}", floor.mean, floor.sd);
    }
    results["ideal"]["floor"] = rounded(ideal_error());
    println!("  {:<14} {:.4}", "ideal", ideal_error());
}

/// The automatic rate beside the fixed ones; prints a line.
pub(super) fn compare(what: &str, error: impl Fn(Rate) -> Sample) -> Value {
    let auto = error(Rate::Auto);
    let fixed = LADDER.map(|alpha| (alpha, error(Rate::Fixed(alpha)).mean));
    let best = fixed.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let (best_rate, best) = best.expect("the ladder has rungs");
    let ratio = auto.mean / best;
    println!(
        "  {what:<18} auto {:.4}, best fixed {best:.4} (alpha {best_rate}): ratio {ratio:.3}",
        auto.mean
    );
    let mut value = json!({
        "best_fixed": rounded(best),
        "best_rate": rounded(f64::from(best_rate)),
        "ratio": rounded(ratio),
    });
    auto.put(&mut value, "auto");
    for (alpha, error) in fixed {
        value["fixed"][alpha.to_string()] = rounded(error);
    }
    value
}

/// Mean over the seeds, with a band of one standard deviation.
fn line(name: String, curves: &Curves, settings: &FrequencySettings) -> Series {
    let steps: Vec<u64> = curves.of(settings).next().map_or(vec![], |c| c.drawn().collect());
    let mut series = Series { name, ..Series::default() };
    for step in steps {
        let Sample { mean, sd } = curves.sample(settings, |curve| curve.at(step));
        series.points.push((step as f64, mean));
        series.band.push((mean - sd, mean + sd));
    }
    series
}

fn panel_of_mode(mode: &str, series: Vec<Series>) -> Plot {
    panel(&format!("{mode} mode"), &format!("error: Σ |p̂ − p| / (2 · {BATCH})"), series)
}

/// Lines over steps.
pub(super) fn panel(title: &str, y: &str, series: Vec<Series>) -> Plot {
    Plot {
        title: title.to_owned(),
        x: "step".to_owned(),
        y: y.to_owned(),
        marks: Marks::Lines,
        series,
    }
}

pub(super) fn write(path: &Path, title: &str, plots: &[Plot]) -> anyhow::Result<()> {
    std::fs::write(path, plot::svg(title, plots)?)
        .with_context(|| format!("cannot write {}", path.display()))
}
