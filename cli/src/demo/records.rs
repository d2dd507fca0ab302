//! What the demo writes: real airports, and made-up flights between them.

use anyhow::Context as _;
use serde_json::{Map, Value, json};

/// 28,298 airports; origin and licence are told in `data/airports/README.md`.
const AIRPORTS_CSV: &[u8] = include_bytes!("../../../data/airports/airports.csv");
/// The column that is the key.
const KEY_COLUMN: &str = "icao";

/// A key and its value.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// The airports: ICAO code, and all columns as a JSON object.
///
/// # Errors
/// None with the data set that the binary carries.
pub(crate) fn airports() -> anyhow::Result<Vec<Record>> {
    let mut reader = csv::Reader::from_reader(AIRPORTS_CSV);
    let header = reader.headers()?.clone();
    let key = header.iter().position(|name| name == KEY_COLUMN).context("no key column")?;
    let object = |row: csv::StringRecord| {
        let value: Map<String, Value> =
            header.iter().map(str::to_owned).zip(row.iter().map(Value::from)).collect();
        (row[key].as_bytes().to_vec(), Value::Object(value).to_string().into_bytes())
    };
    reader.records().map(|row| Ok(object(row?))).collect()
}

/// The flight `number` of one client: every number another key, every key written again after some time, so that
/// histories grow.
pub(crate) fn flight(client: usize, number: u64, airports: &[Record]) -> Record {
    const FLIGHTS: u64 = 5_000;
    const STATES: [&str; 4] = ["scheduled", "boarding", "departed", "landed"];
    let flight = number % FLIGHTS;
    let state = STATES[(number / FLIGHTS) as usize % STATES.len()];
    // Fixed odd strides, so that the pairs look mixed and are the same in each run.
    let airport = |stride: u64| {
        let index = (flight + 1).wrapping_mul(stride) % airports.len() as u64;
        String::from_utf8_lossy(&airports[index as usize].0)
    };
    let value = json!({
        "from": airport(7_919), "to": airport(104_729), "state": state, "gate": flight % 60 + 1,
    });
    (format!("TW{client}-{flight:04}").into_bytes(), value.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn airports_are_many_and_their_keys_differ() {
        let airports = airports().unwrap();
        let keys: BTreeSet<_> = airports.iter().map(|(key, _)| key).collect();
        assert_eq!((airports.len(), keys.len()), (28_298, 28_298));
        let (_, schiphol) = airports.iter().find(|(key, _)| key == b"EHAM").unwrap();
        let schiphol: Value = serde_json::from_slice(schiphol).unwrap();
        assert_eq!(schiphol["iata"], "AMS");
    }

    #[test]
    fn a_flight_is_written_again_with_its_next_state() {
        let airports = airports().unwrap();
        let (first, scheduled) = flight(1, 3, &airports);
        let (again, boarding) = flight(1, 5_003, &airports);
        assert_eq!(first, again);
        assert_ne!(scheduled, boarding);
    }
}
