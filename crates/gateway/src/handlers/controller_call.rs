//! What the APIs that change the cluster have in common: many items in one request, one command for
//! those that may be tried, one answer for each.

use std::collections::BTreeSet;

use tokio::time::Instant;

use ottla_metadata::{Command, CommandError, Outcome};
use ottla_wire::ErrorCode;

use crate::{context::RequestContext, error_code};

/// Why one item was refused.
pub(super) type Refusal = (ErrorCode, String);

/// Refuses an item.
pub(super) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err((code, message.into()))
}

/// What occurs more than once.
pub(super) fn named_twice<K: Ord + Clone>(keys: impl Iterator<Item = K>) -> BTreeSet<K> {
    let mut seen = BTreeSet::new();
    keys.filter(|key| !seen.insert(key.clone())).collect()
}

/// A command about so many items, and until when to try.
pub(super) struct Call {
    pub(super) command: Command,
    pub(super) items: usize,
    pub(super) deadline: Instant,
    /// It only asks what would happen.
    pub(super) validate_only: bool,
}

/// Takes a command to the controller; one answer for each of its items, in order. What is done can
/// be seen by whoever asks this broker next.
pub(super) async fn execute<T: Clone>(
    cx: &RequestContext,
    call: Call,
    results: impl FnOnce(Outcome) -> Result<Vec<Result<T, CommandError>>, Outcome>,
) -> Vec<Result<T, Refusal>> {
    if call.items == 0 {
        return Vec::new();
    }
    let all = |code: ErrorCode, message: String| vec![Err((code, message)); call.items];
    match cx.broker().execute(call.command, call.deadline).await {
        Ok((_, Outcome::Refused(error))) => all(error_code::command(&error), error.to_string()),
        Ok((index, outcome)) => match results(outcome) {
            Ok(results) => {
                if !call.validate_only {
                    cx.broker().wait_for_image(index, call.deadline).await;
                }
                let refused = |error| (error_code::command(&error), error.to_string());
                results
                    .into_iter()
                    .map(|result| result.map_err(refused))
                    .collect()
            }
            Err(other) => {
                tracing::error!(?other, "outcome of another command");
                all(ErrorCode::UnknownServerError, String::new())
            }
        },
        Err(error) => all(error_code::controller(&error), error.to_string()),
    }
}

/// The answer of each item of the request: the controller's for those that were tried.
pub(super) fn answers<T, U>(
    checked: Vec<Result<T, Refusal>>,
    tried: Vec<Result<U, Refusal>>,
) -> impl Iterator<Item = Result<(T, U), Refusal>> {
    let mut tried = tried.into_iter();
    checked.into_iter().map(move |checked| {
        let item = checked?;
        let answer = tried
            .next()
            .unwrap_or_else(|| refuse(ErrorCode::UnknownServerError, "no answer"));
        answer.map(|answer| (item, answer))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_to_those_that_were_tried_in_order() {
        let refused = || refuse(ErrorCode::InvalidRequest, "no");
        let checked = vec![Ok("a"), refused(), Ok("b"), Ok("c")];
        let tried = vec![Ok(1), refuse(ErrorCode::PolicyViolation, "policy")];
        let codes = answers(checked, tried).map(|answer| answer.map_err(|(code, _)| code));
        assert_eq!(
            codes.collect::<Vec<_>>(),
            [
                Ok(("a", 1)),
                Err(ErrorCode::InvalidRequest),
                Err(ErrorCode::PolicyViolation),
                Err(ErrorCode::UnknownServerError),
            ]
        );
        let twice = named_twice(["a", "b", "a", "a"].into_iter());
        assert_eq!(twice.into_iter().collect::<Vec<_>>(), ["a"]);
    }
}
