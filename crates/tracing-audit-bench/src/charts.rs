//! Draws the charts: bars for contestants and lines for growth, each for light and for dark pages.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    Result,
    figures::{Results, Spread},
    report::Growth,
    tables::{Table, grouped},
};

#[derive(Debug, Clone, Copy)]
struct Theme {
    name: &'static str,
    back: RGBColor,
    text: RGBColor,
    faint: RGBColor,
    ours: RGBColor,
    floor: RGBColor,
    others: RGBColor,
    lines: [RGBColor; 3],
}

const THEMES: [Theme; 2] = [
    Theme {
        name: "light",
        back: RGBColor(255, 255, 255),
        text: RGBColor(31, 35, 40),
        faint: RGBColor(209, 217, 224),
        ours: RGBColor(9, 105, 218),
        floor: RGBColor(129, 139, 152),
        others: RGBColor(191, 135, 0),
        lines: [RGBColor(9, 105, 218), RGBColor(191, 135, 0), RGBColor(26, 127, 55)],
    },
    Theme {
        name: "dark",
        back: RGBColor(13, 17, 23),
        text: RGBColor(240, 246, 252),
        faint: RGBColor(61, 68, 77),
        ours: RGBColor(68, 147, 248),
        floor: RGBColor(145, 152, 161),
        others: RGBColor(210, 153, 34),
        lines: [RGBColor(68, 147, 248), RGBColor(210, 153, 34), RGBColor(63, 185, 80)],
    },
];

const WIDTH: i32 = 860;
const BAR: i32 = 24;
const LEFT: i32 = 170;
const RIGHT: i32 = 150;
const TOP: i32 = 44;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn label(area: &Area<'_>, theme: &Theme, text: &str, size: u32, at: (i32, i32), align: HPos) -> Result<()> {
    let style = ("sans-serif", size).into_font().color(&theme.text).pos(Pos::new(align, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(|error| error.to_string())?;
    Ok(())
}

/// Draws one bar for each contestant on a logarithmic scale, with a thin line from minimum to maximum.
pub(crate) fn bars(dir: &Path, name: &str, table: &Table, figure: &str, results: &Results) -> Result<()> {
    let rows: Vec<(&str, Spread)> = table
        .rows(results)
        .into_iter()
        .filter_map(|(contestant, _)| Some((contestant.name, table.spread(results, contestant, figure)?)))
        .filter(|(_, spread)| spread.min > 0.0)
        .collect();
    let least = rows.iter().map(|(_, spread)| spread.min).fold(f64::INFINITY, f64::min);
    let most = rows.iter().map(|(_, spread)| spread.max).fold(0.0, f64::max);
    if rows.is_empty() || most <= 0.0 {
        return Ok(());
    }
    let first = 10_f64.powf(least.log10().floor());
    let decades = (most / first).log10().max(0.1);
    let x = |value: f64| {
        let share = (value / first).log10().max(0.0) / decades;
        LEFT + (share * f64::from(WIDTH - LEFT - RIGHT)) as i32
    };
    let column = table.columns.iter().find(|(_, known)| *known == figure).map_or("", |(title, _)| title);
    let title = format!("{}, {column} ({}, logarithmic)", table.title, table.unit.name());
    let height = TOP + BAR * rows.len() as i32 + 16;
    for theme in &THEMES {
        let path = dir.join(format!("{name}-{}.svg", theme.name));
        let area = SVGBackend::new(&path, (WIDTH as u32, height as u32)).into_drawing_area();
        let drawn = |result: std::result::Result<(), _>| {
            result.map_err(|error: DrawingAreaErrorKind<_>| error.to_string())
        };
        drawn(area.fill(&theme.back))?;
        label(&area, theme, &title, 15, (12, 20), HPos::Left)?;
        for power in 0..=decades.floor() as i32 {
            let at = x(first * 10_f64.powi(power));
            drawn(area.draw(&PathElement::new([(at, TOP - 6), (at, height - 10)], theme.faint)))?;
        }
        for (index, (contestant, spread)) in rows.iter().enumerate() {
            let y = TOP + BAR * index as i32;
            let color = match contestant {
                name if name.starts_with("ours") => theme.ours,
                name if name.starts_with("floor") || matches!(*name, "raw" | "ideal") => theme.floor,
                _ => theme.others,
            };
            let (middle, end) = (y + BAR / 2, x(spread.median).max(LEFT + 2));
            label(&area, theme, contestant, 13, (LEFT - 8, middle), HPos::Right)?;
            drawn(area.draw(&Rectangle::new([(LEFT, y + 4), (end, y + BAR - 4)], color.filled())))?;
            let range = [(x(spread.min), middle), (x(spread.max), middle)];
            drawn(area.draw(&PathElement::new(range, theme.text)))?;
            let value = table.unit.print(spread.median);
            label(&area, theme, &value, 13, (x(spread.max).max(end) + 8, middle), HPos::Left)?;
        }
        drawn(area.present())?;
    }
    Ok(())
}

/// Draws one line for each series, with both axes logarithmic.
pub(crate) fn lines(dir: &Path, growth: &Growth, lines: &[(String, Vec<(f64, f64)>)]) -> Result<()> {
    let points: Vec<&(f64, f64)> = lines.iter().flat_map(|(_, points)| points).collect();
    let range = |value: fn(&(f64, f64)) -> f64| {
        let values = points.iter().map(|point| value(point)).filter(|value| *value > 0.0);
        values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)))
    };
    let ((x_least, x_most), (y_least, y_most)) = (range(|point| point.0), range(|point| point.1));
    if !(x_least < x_most && y_least <= y_most) {
        return Ok(());
    }
    for theme in &THEMES {
        let path = dir.join(format!("{}-{}.svg", growth.measure, theme.name));
        let area = SVGBackend::new(&path, (WIDTH as u32, 360)).into_drawing_area();
        draw_lines(&area, theme, growth, lines, (x_least..x_most, y_least / 1.5..y_most * 1.5))
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

type Ranges = (std::ops::Range<f64>, std::ops::Range<f64>);
type DrawError = DrawingAreaErrorKind<std::io::Error>;

fn draw_lines(
    area: &Area<'_>,
    theme: &Theme,
    growth: &Growth,
    lines: &[(String, Vec<(f64, f64)>)],
    (x, y): Ranges,
) -> std::result::Result<(), DrawError> {
    let font = |size: u32| ("sans-serif", size).into_font().color(&theme.text);
    area.fill(&theme.back)?;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{} (logarithmic)", growth.title), font(15))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(84)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(growth.x)
        .y_desc(growth.y)
        .axis_style(theme.text)
        .bold_line_style(theme.faint)
        .light_line_style(theme.back)
        .label_style(font(12))
        .axis_desc_style(font(13))
        .x_label_formatter(&|value| grouped(*value))
        .y_label_formatter(&|value| if *value < 10.0 { format!("{value}") } else { grouped(*value) })
        .draw()?;
    for ((name, points), color) in lines.iter().zip(theme.lines.into_iter().cycle()) {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
            .label(name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font(font(12))
        .background_style(theme.back)
        .border_style(theme.faint)
        .draw()?;
    area.present()
}
