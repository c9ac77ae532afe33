//! What is wrong with the declared inputs now: told in the log when it begins, in status and hello while it lasts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::health::{Problem, ProblemKind};

/// Longest text that is told of one input, in characters.
const MAX_CHARS: usize = 400;

/// One sentence for each input that is not well. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Troubles {
    /// Says what is wrong with `input` now, or that nothing is.
    pub(super) fn set(&self, input: &'static str, problem: Option<String>) {
        let problem = problem.map(|text| text.chars().take(MAX_CHARS).collect::<String>());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(input) == problem.as_ref() {
            return;
        }
        if let Some(problem) = problem {
            tracing::warn!(input, problem, "an input is not well");
            all.insert(input, problem);
        } else {
            tracing::info!(input, "the input is well again");
            all.remove(input);
        }
    }

    /// What is wrong now.
    pub fn problems(&self) -> Vec<Problem> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = |(input, text): (&&str, &String)| {
            Problem::new(ProblemKind::InputFailing, format!("the {input}: {text}"))
        };
        all.iter().map(problem).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_while_it_lasts() {
        let troubles = Troubles::default();
        troubles.set("watched folder", Some("no such file".into()));
        let told = troubles.clone().problems();
        assert_eq!(told, [Problem::new(ProblemKind::InputFailing, "the watched folder: no such file")]);
        troubles.set("watched folder", None);
        assert!(troubles.problems().is_empty());
    }
}
