//! Java's properties format: comments, three separators, escapes, continued lines.

/// One `key=value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The line it starts on, from 1.
    pub line: usize,
    /// The key, unescaped.
    pub key: String,
    /// The value, unescaped; leading blanks are not part of it.
    pub value: String,
}

/// The text is not a properties file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct PropertiesError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// Reads a properties file; a key that occurs twice is returned twice.
pub fn parse_properties(text: &str) -> Result<Vec<Property>, PropertiesError> {
    let mut properties = Vec::new();
    // A byte order mark is what Windows editors leave before the first key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut line_number = 0;
    while let Some(line) = lines.next() {
        line_number += 1;
        let started_at = line_number;
        let line = line.trim_start_matches(is_blank);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while ends_in_continuation(&logical) {
            logical.pop();
            let Some(next) = lines.next() else { break };
            line_number += 1;
            logical.push_str(next.trim_start_matches(is_blank));
        }
        let at = |reason| PropertiesError {
            line: started_at,
            reason,
        };
        let (key, value) = split(&logical);
        properties.push(Property {
            line: started_at,
            key: unescape(key).map_err(at)?,
            value: unescape(value).map_err(at)?,
        });
    }
    Ok(properties)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// An odd number of backslashes at the end: the last one escapes the line's end.
fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The key ends at the first unescaped `=`, `:` or blank; blanks around the separator are dropped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let mut end = line.len();
    for (position, c) in line.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == '=' || c == ':' || is_blank(c) {
            end = position;
            break;
        }
    }
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => out.push(unicode(&mut chars)?),
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

/// A `\u` and four hexadecimal digits, two of these for a character beyond 16 bits.
fn unicode(chars: &mut std::str::Chars<'_>) -> Result<char, &'static str> {
    const MALFORMED: &str = "a \\u escape needs four hexadecimal digits of a character";
    let first = code_unit(chars).ok_or(MALFORMED)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first).ok_or(MALFORMED);
    }
    if chars.next() != Some('\\') || chars.next() != Some('u') {
        return Err(MALFORMED);
    }
    let second = code_unit(chars).filter(|unit| (0xdc00..0xe000).contains(unit));
    let second = second.ok_or(MALFORMED)?;
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(MALFORMED)
}

fn code_unit(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |unit, _| Some(unit * 16 + chars.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let parsed = parse_properties(text).unwrap();
        parsed
            .into_iter()
            .map(|property| (property.key, property.value))
            .collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn separators_comments_and_blanks_are_as_in_java() {
        let text = "# comment\n! another\n\n a = b \nc:d\ne f\n  g\nh==i\nj =\r\n";
        let expected = vec![
            pair("a", "b "),
            pair("c", "d"),
            pair("e", "f"),
            pair("g", ""),
            pair("h", "=i"),
            pair("j", ""),
        ];
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn lines_continue_after_an_odd_backslash_only() {
        assert_eq!(
            pairs("a=b,\\\n   c,\\\n\td\ne=f"),
            vec![pair("a", "b,c,d"), pair("e", "f")]
        );
        assert_eq!(
            pairs("a=b\\\\\nc=d"),
            vec![pair("a", "b\\"), pair("c", "d")]
        );
        assert_eq!(pairs("a=b\\"), vec![pair("a", "b")]);
    }

    #[test]
    fn escapes_are_undone_in_keys_and_values() {
        assert_eq!(
            pairs("a\\ b\\=c=d\\te\\u00e9\\:"),
            vec![pair("a b=c", "d\te\u{e9}:")]
        );
        assert_eq!(pairs("a=\\ud83d\\ude00"), vec![pair("a", "\u{1f600}")]);
        let error = parse_properties("ok=1\nbad=\\u12").unwrap_err();
        assert_eq!(error.line, 2);
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_without_a_panic(text in "[\\\\ \t\na-d=:#!u0-9]{0,60}") {
            let _ = parse_properties(&text);
        }

        #[test]
        fn an_escaped_pair_comes_back(key in "[ -~]{1,20}", value in "[ -~]{0,20}") {
            let escape = |text: &str| -> String {
                text.chars().flat_map(|c| ['\\', c]).collect::<String>()
            };
            // Escaping these letters would turn them into control characters.
            prop_assume!(!key.contains(['t', 'n', 'r', 'f', 'u']));
            prop_assume!(!value.contains(['t', 'n', 'r', 'f', 'u']));
            let parsed = pairs(&format!("{}={}", escape(&key), escape(&value)));
            prop_assert_eq!(parsed, vec![pair(&key, &value)]);
        }
    }
}
