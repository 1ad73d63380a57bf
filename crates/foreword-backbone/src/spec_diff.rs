//! Comparison of canonical specs, up to rounding to single precision.

use serde_json::Value;

/// Relative tolerance for two numbers of a Spec: a few roundings to single precision. A GGUF file stores 1e-6 as the f32 next to it, which other programs then write out as 9.999999974752427e-7,
/// and a root or a quotient of such a number is rounded again.
const SAME_NUMBER: f64 = 1.0 / (1 << 22) as f64;

/// Whether two numbers are the same in single precision, in which everything is computed.
pub(crate) fn same_number(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= SAME_NUMBER * a.abs().max(b.abs())
}

/// Whether two canonical specs, or parts of them, are equal. Whole numbers are compared exactly.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => same_number(a, b),
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The fields in which two specs differ, as `hidden 64 instead of 192`.
pub(crate) fn differences(here: &Value, recorded: &Value) -> String {
    let (Some(here), Some(recorded)) = (here.as_object(), recorded.as_object()) else {
        return "unreadable".into();
    };
    let null = Value::Null;
    let keys = here.keys().chain(recorded.keys().filter(|key| !here.contains_key(*key)));
    let differing = keys.filter_map(|key| {
        let (a, b) = (here.get(key).unwrap_or(&null), recorded.get(key).unwrap_or(&null));
        (!same(a, b)).then(|| format!("{key} {a} instead of {b}"))
    });
    differing.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A number as JSON that went through single precision has it.
    fn rounded(value: &Value) -> Value {
        match value {
            Value::Number(number) if number.is_f64() => {
                json!(f64::from(number.as_f64().unwrap() as f32))
            }
            Value::Array(items) => items.iter().map(rounded).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| (key.clone(), rounded(value))).collect()
            }
            other => other.clone(),
        }
    }

    #[test]
    fn numbers_that_went_through_single_precision_are_the_same() {
        let spec = json!({
            "hidden": 640, "norm_eps": 1e-6, "embedding_scale": 25.298_221_281_347_036,
            "logit_scale": 1.0 / 0.3, "attention_soft_cap": 50.0, "logit_soft_cap": 30.1,
            "positions": { "kind": "rotary", "theta": 1e6, "factors": [1.08, 1.11], "low_frequency_factor": 0.1 },
        });
        let rounded = rounded(&spec);
        assert_ne!(rounded, spec);
        assert_eq!(rounded["norm_eps"].to_string(), "9.999999974752427e-7");
        assert!(same(&rounded, &spec) && same(&spec, &rounded));
        assert_eq!(differences(&rounded, &spec), "");
    }

    #[test]
    fn other_numbers_are_others() {
        let base = json!({ "hidden": 640, "norm_eps": 1e-6, "theta": 1e6, "windows": [null, 512] });
        for (key, other) in [
            ("hidden", json!(641)),
            ("norm_eps", json!(1e-5)),
            ("norm_eps", json!(1.000_001e-6)),
            ("theta", json!(1_000_001.0)),
            ("windows", json!([null, 511])),
            ("windows", json!([null])),
            ("theta", json!(null)),
        ] {
            let mut changed = base.clone();
            changed[key] = other;
            assert!(!same(&base, &changed), "{changed}");
            assert!(differences(&changed, &base).starts_with(key), "{changed}");
        }
        // Written without its point a number is the same one; whole ones are exact.
        assert!(same(&json!(10_000), &json!(10_000.0)));
        assert!(!same(&json!(2_000_000_001), &json!(2_000_000_000)));
    }
}
