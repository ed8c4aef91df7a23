//! Text for HTML and SVG: escaping, and numbers as people read them.

use std::fmt::Write as _;

/// Text for element content and quoted attributes. What would end either is replaced, and so are
/// control characters and marks that reverse the direction of what follows.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The beginning of a text, at most `n` characters, the last of them "…" if something is cut off.
pub(super) fn cut(text: &str, n: usize) -> String {
    if text.chars().count() <= n {
        return text.to_owned();
    }
    text.chars().take(n.saturating_sub(1)).chain(['…']).collect()
}

/// The text with its first letter as a capital.
pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().collect::<String>() + chars.as_str())
}

/// A number with about `digits` significant digits: `0.7841`, `12,345`, `3.2e-5`.
pub(super) fn number(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "∞"
        } else {
            "−∞"
        }
        .to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = digits.max(1);
    // The exponent after rounding: 9.9996 has that of 10.
    let rounded: f64 = format!("{value:.*e}", digits - 1).parse().unwrap_or(value);
    let exponent = rounded.abs().log10().floor() as i32;
    let text = if !(-4..9).contains(&exponent) {
        let text = format!("{value:.*e}", digits - 1);
        match text.split_once('e') {
            Some((mantissa, e)) => format!("{}e{e}", without_zeroes(mantissa)),
            None => text,
        }
    } else {
        let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
        thousands(&without_zeroes(&format!("{value:.decimals$}")))
    };
    text.replace('-', "−").replace("e−", "e-")
}

fn without_zeroes(text: &str) -> String {
    if !text.contains('.') {
        return text.to_owned();
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Commas between groups of three digits, from 10,000 on.
fn thousands(text: &str) -> String {
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    if digits.len() < 5 {
        return text.to_owned();
    }
    let mut out = sign.to_owned();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out + rest
}

/// A whole number with commas.
pub(super) fn count(value: usize) -> String {
    thousands(&value.to_string())
}

/// Seconds as `42 s`, `6 min 30 s`, `3 h 5 min`.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{} s", number(seconds, 3)),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A coordinate with one decimal, without a useless zero.
pub(super) fn coordinate(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// An HTML table: a caption, the heads of its columns, and rows whose first cell is their head.
/// Cells are escaped; numbers are aligned to the right.
pub(super) fn table(caption: &str, heads: &[String], rows: &[Vec<String>]) -> String {
    let mut out = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table>\
         <caption>{0}</caption><thead><tr>",
        escape(caption)
    );
    for head in heads {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(head));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            let _ = match i {
                0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                _ => write!(out, "<td>{cell}</td>"),
            };
        }
        out.push_str("</tr>\n");
    }
    out + "</tbody></table></div>\n"
}

/// Something that opens on demand; `html` is taken as it is.
pub(super) fn details(summary: &str, html: &str) -> String {
    format!("<details><summary>{}</summary>\n{html}</details>\n", escape(summary))
}

/// A paragraph of plain text.
pub(super) fn paragraph(class: &str, text: &str) -> String {
    format!("<p class=\"{class}\">{}</p>\n", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_a_file_becomes_markup() {
        let bad = "<script>\"'&\u{0}\u{202e}\u{1b}</script>";
        let good = "&lt;script&gt;&quot;&#39;&amp;\u{fffd}\u{fffd}\u{fffd}&lt;/script&gt;";
        assert_eq!(escape(bad), good);
        let text = table(bad, &[bad.into()], &[vec![bad.into(), bad.into()]]);
        assert!(!text.contains("<script") && text.matches(good).count() == 5, "{text}");
        assert!(!details(bad, "").contains("<script") && !paragraph("", bad).contains("<script"));
    }

    #[test]
    fn numbers_are_short() {
        let check = |value: f64, text: &str| assert_eq!(number(value, 4), text);
        check(0.0, "0");
        check(0.784_13, "0.7841");
        check(-0.5, "−0.5");
        check(0.000_5, "0.0005");
        check(1234.5, "1234");
        check(12_345.6, "12,346");
        check(9999.96, "10,000");
        check(3.2e-5, "3.2e-5");
        check(-1.5e12, "−1.5e12");
        check(f64::NAN, "NaN");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(duration(3.25), "3.25 s");
        assert_eq!(duration(390.2), "6 min 30 s");
        assert_eq!(duration(11_100.0), "3 h 5 min");
        assert_eq!(coordinate(12.04), "12");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
