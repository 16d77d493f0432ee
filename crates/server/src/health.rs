//! Whether a node may be sent traffic, and if not, why (M-21).

use std::fmt::Write as _;

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// What is missing, role by role; empty when ready.
    pub(crate) missing: Vec<String>,
}

impl Readiness {
    pub(crate) fn is_ready(&self) -> bool {
        self.missing.is_empty()
    }

    /// `{"ready":true}`, or with the reason.
    pub(crate) fn json(&self) -> String {
        if self.is_ready() {
            return "{\"ready\":true}\n".to_owned();
        }
        format!(
            "{{\"ready\":false,\"reason\":\"{}\"}}\n",
            escape(&self.missing.join("; "))
        )
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_valid_json() {
        assert_eq!(
            Readiness {
                missing: Vec::new()
            }
            .json(),
            "{\"ready\":true}\n"
        );
        let readiness = Readiness {
            missing: vec!["a \"b\"\n".to_owned(), "c".to_owned()],
        };
        assert_eq!(
            readiness.json(),
            "{\"ready\":false,\"reason\":\"a \\\"b\\\"\\u000a; c\"}\n"
        );
    }
}
