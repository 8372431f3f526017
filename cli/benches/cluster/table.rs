//! The table that a run ends with.

use std::time::Duration;

/// A line of the table.
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figure, with what it was made of.
    pub measured: String,
    /// The goal, from the table.
    pub reach: String,
    /// Whether the goal was reached.
    pub reached: bool,
}

/// Prints the table and says whether every goal was reached.
pub fn print(rows: &[Row]) -> bool {
    println!("\n| what | measured | reach | |\n|---|---|---|---|");
    for row in rows {
        println!(
            "| {} | {} | {} | {} |",
            row.what,
            row.measured,
            row.reach,
            if row.reached { "reached" } else { "MISSED" }
        );
    }
    rows.iter().all(|row| row.reached)
}

/// The value below which this share of the values lies.
pub fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort();
    let last = values.len().saturating_sub(1);
    // Both conversions are exact for some tens of values.
    values
        .get((last as f64 * share).ceil() as usize)
        .copied()
        .unwrap_or_default()
}
