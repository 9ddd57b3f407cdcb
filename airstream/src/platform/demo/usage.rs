//! Usage records: `customer,meter,quantity,price_nanos_per_unit`, one a line, with that header.

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub(super) const COLUMNS: [&str; 4] = ["customer", "meter", "quantity", "price_nanos_per_unit"];

#[derive(Debug, PartialEq, serde::Deserialize)]
pub(super) struct Record {
    customer: String,
    meter: String,
    quantity: u64,
    price_nanos_per_unit: i64,
}

/// Reads and checks every record; the error names the first line that is wrong.
pub(super) fn read(text: &str) -> Result<Vec<Record>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| format!("the first line cannot be read: {error}"))?;
    if header.iter().ne(COLUMNS) {
        return Err(format!("the first line must be `{}`", COLUMNS.join(",")));
    }
    let mut records = Vec::new();
    for (index, record) in reader.deserialize::<Record>().enumerate() {
        let record = record.map_err(|error| format!("record {}: {error}", index + 1))?;
        if record.customer.is_empty() || record.meter.is_empty() {
            return Err(format!("record {} has no customer or no meter", index + 1));
        }
        if record.price_nanos_per_unit < 0 {
            return Err(format!("record {} has a negative price", index + 1));
        }
        records.push(record);
    }
    if records.is_empty() {
        return Err("there is no record".to_owned());
    }
    Ok(records)
}

/// Sums per customer and meter. Money is nano-USD, as text: JSON readers lose digits of large numbers.
pub(super) fn aggregate(records: &[Record]) -> Value {
    let mut sums: BTreeMap<(&str, &str), (u128, i128)> = BTreeMap::new();
    for record in records {
        let (quantity, cost) = sums.entry((&record.customer, &record.meter)).or_default();
        *quantity += u128::from(record.quantity);
        *cost += i128::from(record.quantity) * i128::from(record.price_nanos_per_unit);
    }
    let total: i128 = sums.values().map(|(_, cost)| cost).sum();
    let lines: Vec<Value> = sums
        .iter()
        .map(|((customer, meter), (quantity, cost))| {
            json!({ "customer": customer, "meter": meter, "quantity": quantity.to_string(), "usd": usd(*cost) })
        })
        .collect();
    json!({ "lines": lines, "total_usd": usd(total) })
}

fn usd(nanos: i128) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "customer,meter,quantity,price_nanos_per_unit\nacme,tokens,50000,5000\nacme,calls,1000,1000000\nacme,tokens,1,5000\n";

    #[test]
    fn records_add_up_exactly() {
        let records = read(TEXT).expect("a good file");
        let sums = aggregate(&records);
        assert_eq!(sums["total_usd"], "1.250005000");
        assert_eq!(
            sums["lines"][1],
            json!({"customer":"acme","meter":"tokens","quantity":"50001","usd":"0.250005000"})
        );
    }

    #[test]
    fn the_wrong_line_is_named() {
        assert!(read("a,b\n").is_err_and(|error| error.contains("first line")));
        let bad = TEXT.replace("1000,1000000", "many,1000000");
        assert!(read(&bad).is_err_and(|error| error.starts_with("record 2")));
    }
}
