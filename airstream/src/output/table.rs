//! Rows under headings, and which columns fit into a terminal.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

/// Content up to this width (a time's) is never wrapped.
const NARROW: usize = 20;
/// A column of text that is narrower than this cannot be read.
const READABLE: usize = 15;
/// A blank on each side of a cell. Those at both ends of a line are not printed.
const PADDING: usize = 2;

/// The width of the terminal that stdout is.
pub(super) fn terminal_width() -> Option<usize> {
    Table::new().width().map(usize::from)
}

/// Lines for people and `grep`: with a `width` wrapped to it, else one per row. Beside them the headings of the columns for
/// which there was no room: those in `first` go first, then those on the right.
pub(super) fn lines<'a>(
    headings: &[&'a str],
    rows: &[Vec<String>],
    first: &[&str],
    width: Option<usize>,
) -> (Vec<String>, Vec<&'a str>) {
    let all: Vec<usize> = (0..headings.len()).collect();
    let full = table(headings, rows, &all);
    let mut columns = all.clone();
    let text =
        |column: usize| rows.iter().any(|row| row.get(column).is_some_and(|cell| cell.contains([' ', '{', '['])));
    let widths: Vec<usize> = full.column_max_content_widths().into_iter().map(usize::from).collect();
    // Ids and times are there to be copied and stay in one piece; text and documents may be wrapped.
    let wraps = |column: usize, width: usize| width > NARROW && text(column);
    let least: Vec<usize> =
        widths.iter().enumerate().map(|(at, width)| if wraps(at, *width) { READABLE } else { *width }).collect();
    let needed = |columns: &[usize]| -> usize {
        columns.iter().filter_map(|at| least.get(*at)).map(|least| least + PADDING).sum()
    };
    while let Some(width) = width
        && columns.len() > 1
        && needed(&columns) > width + PADDING
    {
        let named = first.iter().find_map(|name| columns.iter().position(|at| headings.get(*at) == Some(name)));
        columns.remove(named.unwrap_or(columns.len() - 1));
    }
    let mut table = if columns == all { full } else { table(headings, rows, &columns) };
    table.set_content_arrangement(ContentArrangement::Disabled);
    if let Some(width) = width {
        let width = u16::try_from(width + PADDING).unwrap_or(u16::MAX);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        for (at, column) in columns.iter().zip(table.column_iter_mut()) {
            if widths.get(*at) == least.get(*at) && columns.len() > 1 {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    let text = table.trim_fmt();
    // Without borders each line begins with its cell's padding.
    let lines = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned()).collect();
    (lines, all.iter().filter(|at| !columns.contains(at)).filter_map(|at| headings.get(*at).copied()).collect())
}

fn table(headings: &[&str], rows: &[Vec<String>], columns: &[usize]) -> Table {
    let mut table = Table::new();
    let names = columns.iter().filter_map(|at| headings.get(*at)).map(|name| name.to_uppercase());
    table.load_style(presets::NOTHING).set_header(names);
    table.add_rows(rows.iter().map(|row| columns.iter().map(|at| row.get(*at).cloned().unwrap_or_default())));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: [&str; 8] = ["step", "name", "kind", "status", "attempt", "started", "finished", "output"];

    fn steps() -> Vec<Vec<String>> {
        let time = "2026-11-20T09:45:27Z";
        let output = format!("{{\"text\":\"{}\"}}", "x ".repeat(18));
        let row = ["1", "validate_input", "task", "completed", "1", time, time, &output];
        vec![row.map(str::to_owned).to_vec()]
    }

    #[test]
    fn columns_without_room_are_left_out() {
        for (width, left_out) in [
            (60, ["started", "finished", "output"].as_slice()),
            (80, ["started", "finished"].as_slice()),
            (120, [].as_slice()),
        ] {
            let (lines, without) = lines(&HEADINGS, &steps(), &["finished", "started"], Some(width));
            assert_eq!(without, left_out, "{width}");
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:#?}");
            assert!(lines.len() <= 5, "{lines:#?}");
        }
        let (lines, without) = lines(&HEADINGS, &steps(), &[], Some(80));
        assert_eq!((lines.len(), without.as_slice()), (2, ["finished", "output"].as_slice()));
    }

    #[test]
    fn without_a_terminal_a_row_is_a_line() {
        let (lines, without) = lines(&HEADINGS, &steps(), &["output"], None);
        assert_eq!((lines.len(), without.len()), (2, 0));
    }

    #[test]
    fn one_column_is_wrapped_rather_than_left_out() {
        let (lines, without) = lines(&["id"], &[vec!["x".repeat(30)]], &[], Some(20));
        assert_eq!(without.len(), 0);
        assert!(lines.iter().all(|line| line.chars().count() <= 20), "{lines:#?}");
    }
}
