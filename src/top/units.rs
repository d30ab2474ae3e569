//! Numbers as a person reads them: at most six cells wide.

/// A count or a rate.
pub fn count(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T", "P"])
}

pub fn bytes(number: f64) -> String {
    scaled(number, 1024.0, &["", "Ki", "Mi", "Gi", "Ti", "Pi"])
}

/// None: there was nothing to measure.
pub fn duration(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "-".to_owned();
    };
    match seconds {
        s if s < 0.999_5e-3 => format!("{}us", three_digits(s * 1e6)),
        s if s < 0.999_5 => format!("{}ms", three_digits(s * 1e3)),
        s => format!("{}s", three_digits(s)),
    }
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let mut number = number.max(0.0);
    let mut unit = 0;
    while number >= 999.5 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    if unit == 0 && number.fract() == 0.0 {
        return format!("{number:.0}");
    }
    format!("{}{}", three_digits(number), units[unit])
}

fn three_digits(number: f64) -> String {
    match number {
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let counts = [0.0, 7.0, 0.5, 999.0, 999.9, 12_345.0, 4.2e9].map(count);
        assert_eq!(counts, ["0", "7", "0.50", "999", "1.00k", "12.3k", "4.20G"]);
        let sizes = [0.0, 1023.0, 1536.0, 3.0 * 1024.0 * 1024.0].map(bytes);
        assert_eq!(sizes, ["0", "1.00Ki", "1.50Ki", "3.00Mi"]);
        let times = [
            Some(0.000_001_5),
            Some(0.000_999_9),
            Some(0.0123),
            Some(61.0),
            None,
        ];
        assert_eq!(
            times.map(duration),
            ["1.50us", "1.00ms", "12.3ms", "61.0s", "-"]
        );
    }
}
