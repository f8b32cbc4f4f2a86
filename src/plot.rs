//! Draws curves and scatters as SVG.
//!
//! Owns how a picture looks: size, fonts, grid, colours, legend. Must never know: what is drawn,
//! files.

use std::collections::HashSet;
use std::ops::Range;

use anyhow::Context;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Canvas units to a pixel: plotters rounds coordinates to integers, which at a whole pixel shows
/// as steps in a curve.
const PX: u32 = 8;

/// Size of a panel's chart with its axes, pixels.
const CHART: (u32, u32) = (560, 400);
const MARGIN: u32 = 14;
/// Half of the last tick's label stands out to the right.
const MARGIN_RIGHT: u32 = 26;
const TITLE: u32 = 46;
/// A line of text above a chart: the panel's title, or a row of its legend.
const ROW: u32 = 22;
const SWATCH: u32 = 22;
const GAP: u32 = 8;

/// Okabe and Ito (2008), told apart with any colour vision; without their yellow, which is too
/// faint for a line on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
const INK: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(229, 229, 229);
const AXIS: RGBColor = RGBColor(153, 153, 153);

/// Points that share a colour and an entry in the legend.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// What the legend says; empty: no entry.
    pub name: String,
    /// In the order of x for [`Marks::Lines`].
    pub points: Vec<(f64, f64)>,
    /// For lines: lower and upper edge of the spread around each point; may be empty.
    pub band: Vec<(f64, f64)>,
}

/// What becomes of the points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// Curves on linear axes, y from 0.
    Lines,
    /// A scatter on logarithmic axes of one range, with the diagonal y = x. Points at 0 or below
    /// have no place and are left out.
    Scatter,
}

/// One panel.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Above the panel.
    pub title: String,
    /// Label of the x axis, with its unit.
    pub x: String,
    /// Label of the y axis, with its unit. Panels with the same label have the same scale.
    pub y: String,
    /// Lines or a scatter.
    pub marks: Marks,
    /// At most seven have a colour of their own.
    pub series: Vec<Series>,
}

/// An SVG file with the panels side by side under a common title. Text is in the viewer's
/// sans-serif font.
pub fn svg(title: &str, plots: &[Plot]) -> anyhow::Result<String> {
    let head = plots.iter().map(Plot::head).max().context("a picture needs a plot")?;
    let pixels = (CHART.0 * plots.len() as u32, TITLE + head + CHART.1);
    let size = (pixels.0 * PX, pixels.1 * PX);
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, size).into_drawing_area();
        root.fill(&WHITE)?;
        let middle = ((size.0 / 2) as i32, (MARGIN * PX) as i32);
        let centred = text(18).pos(Pos::new(HPos::Center, VPos::Top));
        root.draw(&Text::new(title, middle, centred))?;
        let (_, below) = root.split_vertically(TITLE * PX);
        for (plot, area) in plots.iter().zip(below.split_evenly((1, plots.len()))) {
            let (above, chart) = area.split_vertically(head * PX);
            plot.draw_head(&above)?;
            match plot.marks {
                Marks::Lines => plot.draw_lines(&chart, top_of(plots, &plot.y))?,
                Marks::Scatter => plot.draw_scatter(&chart)?,
            }
        }
        root.present()?;
    }
    // The canvas keeps its fine units; the picture takes its size in pixels.
    let size_of = |(width, height)| format!("width=\"{width}\" height=\"{height}\"");
    Ok(out.replacen(&size_of(size), &size_of(pixels), 1))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Plot {
    /// Height of the title and the legend, pixels.
    fn head(&self) -> u32 {
        let rows = self.legend().last().map_or(0, |entry| entry.row + 1);
        ROW * (1 + rows) + GAP
    }

    /// Where each legend entry goes: in rows, so that it lies over no data.
    fn legend(&self) -> Vec<Entry<'_>> {
        let left = MARGIN + Y_LABELS;
        let (mut row, mut x) = (0, left);
        let mut entries = Vec::new();
        for (series, &colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            if series.name.is_empty() {
                continue;
            }
            // No font is at hand to measure with; sans-serif letters of 13 pixels are some 7 wide.
            let width = SWATCH + GAP + 7 * series.name.chars().count() as u32 + 2 * GAP;
            if x > left && x + width > CHART.0 {
                (row, x) = (row + 1, left);
            }
            entries.push(Entry { name: &series.name, colour, row, x });
            x += width;
        }
        entries
    }

    fn draw_head(&self, area: &Area<'_>) -> anyhow::Result<()> {
        let at = |x: u32, y: u32| ((x * PX) as i32, (y * PX) as i32);
        let left = Pos::new(HPos::Left, VPos::Center);
        let title = at(MARGIN + Y_LABELS, ROW / 2);
        area.draw(&Text::new(self.title.as_str(), title, text(15).pos(left)))?;
        for Entry { name, colour, row, x } in self.legend() {
            let y = ROW * (row + 1) + ROW / 2;
            match self.marks {
                Marks::Lines => {
                    let line = vec![at(x, y), at(x + SWATCH, y)];
                    area.draw(&PathElement::new(line, colour.stroke_width(3 * PX)))?;
                }
                Marks::Scatter => {
                    area.draw(&Circle::new(at(x + SWATCH / 2, y), 4 * PX, colour.filled()))?;
                }
            }
            area.draw(&Text::new(name, at(x + SWATCH + GAP, y), text(13).pos(left)))?;
        }
        Ok(())
    }

    fn draw_lines(&self, area: &Area<'_>, top: f64) -> anyhow::Result<()> {
        let x = from_zero(span(self.points().map(|point| point.0)).unwrap_or(0.0..1.0));
        let mut chart = builder(area).build_cartesian_2d(x, 0.0..top)?;
        self.draw_axes(&mut chart, &plain)?;
        let coloured = || self.series.iter().zip(COLOURS.iter().cycle());
        // Bands first: none may hide a curve.
        for (series, colour) in coloured().filter(|(series, _)| !series.band.is_empty()) {
            let xs = series.points.iter().map(|point| point.0);
            let edges = xs.zip(&series.band);
            let lower = edges.clone().map(|(x, &(low, _))| (x, low.max(0.0)));
            let upper = edges.rev().map(|(x, &(_, high))| (x, high));
            let outline: Vec<_> = lower.chain(upper).collect();
            chart.draw_series([Polygon::new(outline, colour.mix(0.18).filled())])?;
        }
        for (series, colour) in coloured() {
            let style = colour.stroke_width(7 * PX / 4);
            chart.draw_series(LineSeries::new(series.points.iter().copied(), style))?;
        }
        Ok(())
    }

    fn draw_scatter(&self, area: &Area<'_>) -> anyhow::Result<()> {
        let placed = |&(x, y): &(f64, f64)| x > 0.0 && y > 0.0;
        let both = self.points().filter(placed).flat_map(|(x, y)| [x, y]);
        let Range { start, end } = span(both).unwrap_or(1.0..10.0);
        // Whole decades.
        let (low, high) = (start.log10().floor(), end.log10().ceil());
        let (low, high) = (10f64.powf(low), 10f64.powf(high.max(low + 1.0)));
        let axis = || (low..high).log_scale();
        let mut chart = builder(area).build_cartesian_2d(axis(), axis())?;
        self.draw_axes(&mut chart, &short)?;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let style = colour.mix(0.35).filled();
            let points = apart(series.points.iter().filter(|point| placed(point)), high / low);
            chart.draw_series(points.map(|point| Circle::new(point, 2 * PX, style)))?;
        }
        let diagonal = [(low, low), (high, high)];
        chart.draw_series(LineSeries::new(diagonal, INK.stroke_width(PX)))?;
        Ok(())
    }

    fn draw_axes<X, Y>(
        &self,
        chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
        label: &dyn Fn(&f64) -> String,
    ) -> anyhow::Result<()>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut mesh = chart.configure_mesh();
        mesh.bold_line_style(GRID.stroke_width(PX)).light_line_style(TRANSPARENT);
        mesh.axis_style(AXIS.stroke_width(PX)).set_all_tick_mark_size(4 * PX);
        mesh.label_style(text(13)).axis_desc_style(text(14));
        mesh.x_desc(&self.x).x_labels(6).x_label_formatter(label);
        mesh.y_desc(&self.y).y_labels(6).y_label_formatter(label);
        Ok(mesh.draw()?)
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|series| series.points.iter().copied())
    }

    /// Highest point, or edge of a band.
    fn top(&self) -> f64 {
        let edges = self.series.iter().flat_map(|series| &series.band);
        self.points().chain(edges.copied()).map(|point| point.1).fold(0.0, f64::max)
    }
}

/// An entry of a legend: its row, and the pixel it begins at.
struct Entry<'a> {
    name: &'a str,
    colour: RGBColor,
    row: u32,
    x: u32,
}

/// Width of the y axis's labels, pixels.
const Y_LABELS: u32 = 64;
const X_LABELS: u32 = 48;

fn builder<'a, 's>(area: &'a Area<'s>) -> ChartBuilder<'a, 'a, SVGBackend<'s>> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(MARGIN * PX).margin_top(0).margin_right(MARGIN_RIGHT * PX);
    builder.x_label_area_size(X_LABELS * PX).y_label_area_size(Y_LABELS * PX);
    builder
}

/// Plotters' size is the height of a line, 1.24 times what SVG and people call the font size
/// (plotters-svg 0.3, `draw_text`).
fn text<'a>(pixels: u32) -> TextStyle<'a> {
    (FontFamily::SansSerif, pixels * PX * 124 / 100).into_font().color(&INK)
}

/// End of the y axis of all plots labelled `y`, with room above the highest curve.
fn top_of(plots: &[Plot], y: &str) -> f64 {
    let top = plots.iter().filter(|plot| plot.y == y).map(Plot::top).fold(0.0, f64::max);
    if top > 0.0 { 1.05 * top } else { 1.0 }
}

/// From the least to the largest value; `None` if there are not two.
fn span(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let empty = f64::INFINITY..f64::NEG_INFINITY;
    let span = values.fold(empty, |span, value| span.start.min(value)..span.end.max(value));
    (span.start < span.end).then_some(span)
}

/// Of points within half a pixel of each other on logarithmic axes only the first, so that the file
/// does not grow with the data without end. `range` is the largest value over the least.
fn apart<'a>(
    points: impl Iterator<Item = &'a (f64, f64)>,
    range: f64,
) -> impl Iterator<Item = (f64, f64)> {
    let cells = 2.0 * f64::from(CHART.0) / range.ln();
    let mut taken = HashSet::new();
    let cell = move |value: f64| (value.ln() * cells) as i64;
    points.copied().filter(move |&(x, y)| taken.insert((cell(x), cell(y))))
}

/// Begins the axis at 0 where that wastes next to nothing.
fn from_zero(span: Range<f64>) -> Range<f64> {
    let start = if (0.0..0.1 * span.end).contains(&span.start) { 0.0 } else { span.start };
    start..span.end
}

/// `0.25`, `15,000`.
fn plain(value: &f64) -> String {
    if *value < 1000.0 {
        return format!("{}", (value * 1e6).round() / 1e6);
    }
    format!("{},{:03}", *value as u64 / 1000, *value as u64 % 1000)
}

/// `0.01`, `100`, `10k`, `1M`.
fn short(value: &f64) -> String {
    match *value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => plain(&value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(marks: Marks, points: Vec<(f64, f64)>) -> Plot {
        let series = Series { name: "a < b".to_owned(), points, ..Series::default() };
        let [title, x, y] = ["title", "steps", "error"].map(str::to_owned);
        Plot { title, x, y, marks, series: vec![series] }
    }

    #[test]
    fn a_picture_has_its_words_and_its_size_in_pixels() {
        let plots = [(); 2].map(|()| plot(Marks::Lines, vec![(1.0, 2.0), (2.0, 3.0)]));
        let svg = svg("two panels", &plots).expect("strings take any drawing");
        assert!(svg.starts_with("<svg width=\"1120\" height=\""), "{}", &svg[..80]);
        for words in ["two panels", "title", "steps", "error", "a &lt; b"] {
            assert!(svg.contains(words), "{words}");
        }
    }

    #[test]
    fn a_scatter_leaves_out_what_has_no_logarithm_and_draws_no_point_twice() {
        let points = vec![(1.0, 1.0), (1.0, 1.0), (0.0, 5.0), (5.0, -1.0), (50.0, 20.0)];
        let svg = svg("", &[plot(Marks::Scatter, points)]).expect("strings take any drawing");
        assert_eq!(svg.matches("<circle").count(), 2 + 1, "two points and the legend's");
    }

    #[test]
    fn nothing_to_draw_is_drawn_all_the_same() {
        for marks in [Marks::Lines, Marks::Scatter] {
            svg("empty", &[plot(marks, vec![])]).expect("strings take any drawing");
            svg("one", &[plot(marks, vec![(3.0, 3.0)])]).expect("strings take any drawing");
        }
    }

    #[test]
    fn ticks_read_well() {
        assert_eq!([0.0, 0.1 + 0.2, 15_000.0].map(|v| plain(&v)), ["0", "0.3", "15,000"]);
        assert_eq!([0.001, 100.0, 1e4, 1e6].map(|v| short(&v)), ["0.001", "100", "10k", "1M"]);
    }
}
