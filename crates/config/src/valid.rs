//! What a value may be, beyond its type: the `valid` column of the tables.

use crate::key::split_list;

/// A rule on a value that already has the right type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Valid {
    /// No rule.
    Any,
    /// `min..max`, both included, or one more value.
    Range {
        min: f64,
        max: Option<f64>,
        or: Option<f64>,
    },
    /// One of these, or of these in any case.
    OneOf {
        items: Vec<&'static str>,
        any_case: bool,
    },
    /// A list of some of these.
    SomeOf(Vec<&'static str>),
    /// Not the empty text.
    NotEmpty,
    /// `partition:broker` pairs, or `*`.
    ThrottledReplicas,
}

impl Valid {
    /// Reads the column: `1..17`, `1..9 or -1`, `one of: a|b`, `some of: a|b`, `not empty`.
    pub(crate) fn parse(text: &'static str) -> Option<Valid> {
        if text.is_empty() {
            return Some(Valid::Any);
        }
        if text == "not empty" {
            return Some(Valid::NotEmpty);
        }
        if text == "throttled replicas" {
            return Some(Valid::ThrottledReplicas);
        }
        if let Some(items) = text.strip_prefix("one of: ") {
            return Some(Valid::OneOf {
                items: items.split('|').collect(),
                any_case: false,
            });
        }
        if let Some(items) = text.strip_prefix("any case: ") {
            return Some(Valid::OneOf {
                items: items.split('|').collect(),
                any_case: true,
            });
        }
        if let Some(items) = text.strip_prefix("some of: ") {
            return Some(Valid::SomeOf(items.split('|').collect()));
        }
        let (range, or) = match text.split_once(" or ") {
            Some((range, or)) => (range, Some(or.parse().ok()?)),
            None => (text, None),
        };
        let (min, max) = range.split_once("..")?;
        let max = if max.is_empty() {
            None
        } else {
            Some(max.parse().ok()?)
        };
        Some(Valid::Range {
            min: min.parse().ok()?,
            max,
            or,
        })
    }

    /// Checks a value; the error says what is wrong with it.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        match self {
            Valid::Any => Ok(()),
            Valid::Range { min, max, or } => {
                // Every bound in the tables is small enough to be exact as a float, and rounding
                // a value near 2^63 keeps it on its side of them.
                let number: f64 = value.parse().map_err(|_| "not a number".to_owned())?;
                if *or == Some(number) {
                    Ok(())
                } else if number < *min {
                    Err(format!("less than {min}"))
                } else if max.is_some_and(|max| number > max) {
                    Err(format!("more than {}", max.unwrap_or_default()))
                } else {
                    Ok(())
                }
            }
            Valid::OneOf { items, any_case } => {
                let found = items
                    .iter()
                    .any(|item| *item == value || (*any_case && item.eq_ignore_ascii_case(value)));
                if found {
                    Ok(())
                } else {
                    Err("not a known value".to_owned())
                }
            }
            Valid::SomeOf(items) => match split_list(value).find(|item| !items.contains(item)) {
                Some(item) => Err(format!("{item:?} is not a known value")),
                None => Ok(()),
            },
            Valid::NotEmpty if value.is_empty() => Err("empty".to_owned()),
            Valid::NotEmpty => Ok(()),
            Valid::ThrottledReplicas => {
                let number = |text: &str| text.parse::<u32>().is_ok();
                let pair = |item: &str| {
                    item.split_once(':')
                        .is_some_and(|(p, b)| number(p) && number(b))
                };
                if value == "*" || split_list(value).all(pair) {
                    Ok(())
                } else {
                    Err("not a list of partition:broker, nor *".to_owned())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_their_bounds_and_the_odd_one_out() {
        let valid = Valid::parse("1..9 or -1").unwrap();
        for good in ["1", "9", "-1"] {
            assert_eq!(valid.check(good), Ok(()), "{good}");
        }
        for bad in ["0", "10", "-2"] {
            assert!(valid.check(bad).is_err(), "{bad}");
        }
        let open = Valid::parse("-2..").unwrap();
        assert_eq!(open.check("9223372036854775807"), Ok(()));
        assert!(open.check("-3").is_err());
    }

    #[test]
    fn lists_name_the_element_that_is_wrong() {
        let valid = Valid::parse("some of: compact|delete").unwrap();
        assert_eq!(valid.check("compact, delete"), Ok(()));
        assert!(valid.check("compact,purge").unwrap_err().contains("purge"));
    }

    #[test]
    fn throttled_replicas_are_pairs_or_all() {
        let valid = Valid::ThrottledReplicas;
        for good in ["", "*", "0:1,1:2"] {
            assert_eq!(valid.check(good), Ok(()), "{good}");
        }
        assert!(valid.check("0-1").is_err());
    }
}
