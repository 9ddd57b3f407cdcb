//! The report and the message of the demo.

use std::fmt::Write as _;

use serde_json::Value;

/// A report in Markdown from what `process_data` returned.
pub(super) fn render(run: &str, sums: &Value) -> Result<String, String> {
    let lines = sums.get("lines").and_then(Value::as_array).ok_or("the step before returned no `lines`")?;
    let mut text =
        format!("# Usage report\n\nRun `{run}`\n\n| customer | meter | quantity | USD |\n|---|---|---:|---:|\n");
    for line in lines {
        let cell = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
        let _ = writeln!(text, "| {} | {} | {} | {} |", cell("customer"), cell("meter"), cell("quantity"), cell("usd"));
    }
    let _ = writeln!(text, "\nTotal: **{} USD**", total(sums));
    Ok(text)
}

/// One sentence about the report.
pub(super) fn summary(sums: &Value) -> String {
    let lines = sums.get("lines").and_then(Value::as_array).map_or(0, Vec::len);
    format!("{lines} lines, {} USD in total", total(sums))
}

fn total(sums: &Value) -> &str {
    sums.get("total_usd").and_then(Value::as_str).unwrap_or("?")
}

/// The notification as an e-mail message.
pub(super) fn message(run: &str, to: &str, report: &Value) -> String {
    let text = |key: &str| report.get(key).and_then(Value::as_str).unwrap_or("?");
    // A line break in an address would begin a header of the sender's choice.
    let to: String = to.chars().filter(|c| !c.is_control()).collect();
    format!(
        "From: airstream@localhost\r\nTo: {to}\r\nSubject: Your usage report is ready\r\nX-Airstream-Run: {run}\r\n\r\n{}\r\nFile: {}\r\n",
        text("summary"),
        text("file")
    )
}
