//! Columns by tabs: cells end with a tab, and neighbouring lines that both have a cell share its width.

/// Lays out text whose cells end with tabs. `minimum` is the least width of a column, `padding` the spaces
/// after the widest cell.
pub(crate) fn align(text: &str, minimum: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut out = String::with_capacity(text.len() * 2);
    let mut widths = Vec::new();
    block(&lines, 0, lines.len(), &mut widths, minimum, padding, &mut out);
    // The text after the last newline is no line of its own.
    out.pop();
    out
}

/// Formats lines `from..to`, whose columns before `widths.len()` have their widths already.
fn block(
    lines: &[Vec<&str>],
    from: usize,
    to: usize,
    widths: &mut Vec<usize>,
    minimum: usize,
    padding: usize,
    out: &mut String,
) {
    let column = widths.len();
    let mut at = from;
    let mut written = from;
    while at < to {
        // The last cell of a line is not part of a column.
        if column + 1 >= lines[at].len() {
            at += 1;
            continue;
        }
        write(lines, written, at, widths, out);
        let start = at;
        let mut width = minimum;
        while at < to && column + 1 < lines[at].len() {
            let cell = lines[at][column].chars().count();
            width = width.max(cell + padding);
            at += 1;
        }
        widths.push(width);
        block(lines, start, at, widths, minimum, padding, out);
        widths.pop();
        written = at;
    }
    write(lines, written, to, widths, out);
}

fn write(lines: &[Vec<&str>], from: usize, to: usize, widths: &[usize], out: &mut String) {
    for line in &lines[from..to] {
        for (index, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if index + 1 < line.len()
                && let Some(width) = widths.get(index)
            {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
}

/// The layout of tables: at least six wide, three apart.
pub(crate) fn table(text: &str) -> String {
    align(text, 6, 3)
}

/// The layout of descriptions: two apart.
pub(crate) fn description(text: &str) -> String {
    align(text, 0, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three_spaces() {
        assert_eq!(table("NAME\tAGE\nkubia-v1\t3s\n"), "NAME       AGE\nkubia-v1   3s\n");
        assert_eq!(table("A\tB\n"), "A     B\n");
    }

    #[test]
    fn a_line_with_fewer_cells_ends_the_column() {
        assert_eq!(description("Name:\tx\nA:\n  Long name:\ty\n"), "Name:  x\nA:\n  Long name:  y\n");
    }
}
