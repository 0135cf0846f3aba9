//! Figures of a simulation, as bytes: an SVG, and a PNG that needs no fonts of the system.
//!
//! Two panels. On the left every member's part of the last version; on the right the data service provider's part as versions
//! come. Each shows the median and the band that holds 90 % of the runs.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use thiserror::Error;

use crate::simulation::{Band, Law, Order, Outcome};

/// Width and height in pixels.
const SIZE: (u32, u32) = (1200, 540);
/// Latin, Greek and subscript digits of DejaVu Sans; its licence stands beside it.
const FONT: &[u8] = include_bytes!("../fonts/dejavu-sans-subset.ttf");
const FAMILY: &str = "sans-serif";
const TEXT: RGBColor = RGBColor(40, 40, 40);
const MEMBERS: RGBColor = RGBColor(0, 90, 160);
const DATA: RGBColor = RGBColor(180, 80, 0);

/// A figure could not be made.
#[derive(Debug, Error)]
pub enum PlotError {
    /// The font in this program is not one.
    #[error("the font that Charter carries can't be read")]
    Font,
    /// The drawing failed.
    #[error("the figure can't be drawn: {0}")]
    Draw(String),
    /// The encoding of the picture failed.
    #[error("the picture can't be encoded as PNG")]
    Png(#[from] png::EncodingError),
}

/// A figure in both formats.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For documents.
    pub svg: String,
    /// For everything else.
    pub png: Vec<u8>,
}

/// Draws what an experiment gave.
pub fn figure(outcome: &Outcome) -> Result<Figure, PlotError> {
    register_font(FAMILY, FontStyle::Normal, FONT).map_err(|_| PlotError::Font)?;
    let mut svg = String::new();
    draw(SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), outcome)?;
    let mut pixels = vec![0; SIZE.0 as usize * SIZE.1 as usize * 3];
    draw(BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area(), outcome)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(Figure { svg, png: bytes })
}

/// What was drawn, in words.
fn title(outcome: &Outcome) -> String {
    let experiment = &outcome.experiment;
    let law = match experiment.law {
        Law::Uniform { low, high, order } => {
            let order = match order {
                Order::Descending => "sorted descending",
                Order::Ascending => "sorted ascending",
                Order::Drawn => "not sorted",
            };
            format!("β uniform in {}–{} %, {order}", percent(low), percent(high))
        }
        Law::Pareto { index } => format!("ownership by a Pareto law, α = {index}"),
    };
    let runs = match experiment.runs {
        1 => "1 run".into(),
        runs => format!("{runs} runs"),
    };
    format!("{law}; {} members, {runs}, seed {}", experiment.members, experiment.seed)
}

/// A part of one as per cent, with no more digits than it has.
fn percent(part: f64) -> String {
    let text = format!("{:.4}", part * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn failed(error: impl std::fmt::Display) -> PlotError {
    PlotError::Draw(error.to_string())
}

fn draw<B: DrawingBackend>(area: DrawingArea<B, Shift>, outcome: &Outcome) -> Result<(), PlotError> {
    area.fill(&WHITE).map_err(failed)?;
    let area = area
        .margin(10, 0, 0, 0)
        .titled(&title(outcome), (FAMILY, 22).into_font().color(&TEXT))
        .map_err(failed)?;
    let (left, right) = area.split_horizontally(SIZE.0 / 2);
    let member = |i: i32| match i {
        0 => "DSP".to_owned(),
        i => format!("VSP {i}"),
    };
    let members = Panel {
        caption: "Ownership of the last version",
        across: "member, in the order in which they joined",
        colour: MEMBERS,
        bands: &outcome.ownership,
    };
    members.draw(&left, member)?;
    let data = Panel {
        caption: "The data service provider's part",
        across: "version (0: the data alone)",
        colour: DATA,
        bands: &outcome.data,
    };
    data.draw(&right, |i| i.to_string())?;
    area.present().map_err(failed)
}

/// One panel: a band and its median over the members or the versions.
struct Panel<'a> {
    caption: &'a str,
    across: &'a str,
    colour: RGBColor,
    bands: &'a [Band],
}

impl Panel<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, name: impl Fn(i32) -> String) -> Result<(), PlotError> {
        let mut chart = ChartBuilder::on(area)
            .caption(self.caption, (FAMILY, 18).into_font().color(&TEXT))
            .margin(12)
            .margin_right(28)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d(Places { count: self.bands.len() }, 0.0..100.0)
            .map_err(failed)?;
        let small = (FAMILY, 14).into_font().color(&TEXT);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(TEXT)
            .y_labels(11)
            .x_label_formatter(&|x| name(x.round() as i32))
            .y_label_formatter(&|y| format!("{y:.0} %"))
            .x_desc(self.across)
            .y_desc("part of the profit")
            .label_style(small.clone())
            .axis_desc_style((FAMILY, 15).into_font().color(&TEXT))
            .draw()
            .map_err(failed)?;
        let points = |of: fn(&Band) -> f64| self.bands.iter().enumerate().map(move |(i, band)| (i as f64, 100.0 * of(band)));
        let (colour, shade) = (self.colour, self.colour.mix(0.2));
        let outline: Vec<_> = points(|band| band.high)
            .chain(points(|band| band.low).collect::<Vec<_>>().into_iter().rev())
            .collect();
        chart
            .draw_series(std::iter::once(Polygon::new(outline, shade)))
            .map_err(failed)?
            .label("5 % to 95 % of the runs")
            .legend(move |(x, y)| Rectangle::new([(x, y - 6), (x + 22, y + 6)], shade.filled()));
        chart
            .draw_series(LineSeries::new(points(|band| band.median), colour.stroke_width(2)))
            .map_err(failed)?
            .label("median")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(2)));
        chart
            .draw_series(points(|band| band.median).map(|point| Circle::new(point, 4, colour.filled())))
            .map_err(failed)?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .margin(10)
            .legend_area_size(34)
            .background_style(WHITE.mix(0.9))
            .border_style(RGBColor(200, 200, 200))
            .label_font(small)
            .draw()
            .map_err(failed)
    }
}

/// An axis of whole places, with room at both ends, so that the first and the last point stand free of the frame.
struct Places {
    count: usize,
}

/// The room at both ends.
const ROOM: f64 = 0.4;

impl Ranged for Places {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let Range { start, end } = self.range();
        from + ((value - start) / (end - start) * f64::from(to - from)).round() as i32
    }

    /// A name at each place, or now and then when there are many.
    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (0..self.count).step_by(self.count.div_ceil(9).max(1)).map(|i| i as f64).collect()
    }

    fn range(&self) -> Range<f64> {
        -ROOM..self.count as f64 - 1.0 + ROOM
    }
}

impl ValueFormatter<f64> for Places {
    fn format(value: &f64) -> String {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::simulation::{Experiment, simulate};

    fn outcome(members: usize) -> Outcome {
        let experiment = Experiment {
            law: Law::Pareto { index: 1.16 },
            members,
            runs: 200,
            seed: 3,
        };
        simulate(&experiment, NonZeroUsize::MIN).unwrap()
    }

    #[test]
    fn a_figure_names_what_it_shows_and_is_small() {
        for members in [2, 8, 64] {
            let figure = figure(&outcome(members)).unwrap();
            for text in ["median", "5 % to 95 % of the runs", "DSP", "VSP 1", "α = 1.16", "200 runs", "100 %"] {
                // Between two or sixty-four members not every name has a place.
                assert!(figure.svg.contains(text) || (members == 64 && text == "VSP 1"), "{members}: {text}");
            }
            assert!(figure.svg.len() < 60_000, "{}", figure.svg.len());
        }
    }

    #[test]
    fn a_picture_has_its_size_and_its_writing() {
        let figure = figure(&outcome(8)).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(figure.png)).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), SIZE);
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let dark = |rows: std::ops::Range<usize>| {
            let row = SIZE.0 as usize * 3;
            pixels[rows.start * row..rows.end * row]
                .chunks(3)
                .filter(|pixel| pixel.iter().all(|value| *value < 100))
                .count()
        };
        // The title's letters stand where nothing else is drawn.
        assert!(dark(0..36) > 300, "{}", dark(0..36));
    }
}
