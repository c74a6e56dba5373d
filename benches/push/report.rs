//! The table: what was measured, against what is to be reached.

/// How a number is to compare to its target.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Told, not judged.
    None,
}

struct Row {
    what: String,
    number: f64,
    unit: &'static str,
    target: Target,
    note: String,
}

/// What has been measured so far.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a line to the table, and shows it at once.
    pub fn add(&mut self, what: impl Into<String>, number: f64, unit: &'static str, target: Target, note: impl Into<String>) {
        let row = Row { what: what.into(), number, unit, target, note: note.into() };
        println!("  {}", row.cells().join("  "));
        self.rows.push(row);
    }

    /// Prints the table, in Markdown.
    pub fn print(&self) {
        println!("\n| what | measured | reach | | how |\n|---|---|---|---|---|");
        for row in &self.rows {
            println!("| {} |", row.cells().join(" | "));
        }
    }
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let (reach, verdict) = match self.target {
            Target::AtMost(limit) => (format!("≤ {} {}", digits(limit), self.unit), self.number <= limit),
            Target::AtLeast(limit) => (format!("≥ {} {}", digits(limit), self.unit), self.number >= limit),
            Target::None => (String::new(), true),
        };
        let verdict = match self.target {
            Target::None => "",
            _ if verdict => "ok",
            _ => "short",
        };
        let measured = format!("{} {}", digits(self.number), self.unit);
        [self.what.clone(), measured, reach, verdict.to_owned(), self.note.clone()]
    }
}

/// Three significant digits, and thousands apart.
fn digits(number: f64) -> String {
    if number.abs() < 100.0 {
        return format!("{}", (number * 100.0).round() / 100.0);
    }
    let whole = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The value at a share (0 to 1) of a list.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}
