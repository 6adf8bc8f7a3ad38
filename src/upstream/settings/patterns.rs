//! What a setting matches calls against: models by glob, exempt calls by method and path.

use std::fmt;
use std::str::FromStr;

use http::Method;

/// A pattern of model names: `*` stands for any run of characters, `?` for one, all else for itself, case included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelGlob(String);

impl ModelGlob {
    /// Reads a pattern; every text is one.
    #[must_use]
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// The pattern of every model.
    #[must_use]
    pub fn any() -> Self {
        Self::new("*")
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `model` fits, in time proportional to pattern × model at worst and without allocating.
    #[must_use]
    pub fn matches(&self, model: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.chars(), model.chars());
        // Where to resume when the present guess for the last `*` fails: behind it, one more character swallowed.
        let mut retry = None;
        loop {
            match (pattern.next(), rest.clone().next()) {
                (Some('*'), _) => retry = Some((pattern.clone(), rest.clone())),
                (None, None) => return true,
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                    rest.next();
                }
                _ => {
                    let Some((after_star, swallowed)) = &mut retry else { return false };
                    if swallowed.next().is_none() {
                        return false;
                    }
                    (pattern, rest) = (after_star.clone(), swallowed.clone());
                }
            }
        }
    }
}

/// A call the provider does not count, written as `"GET /v1/models"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Exempt {
    /// Its method.
    pub method: Method,
    /// Its path on the client port, exactly, without a query.
    pub path: String,
}

impl FromStr for Exempt {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (method, path) = text.trim().split_once(' ').ok_or(())?;
        let path = path.trim_start();
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains(['?', '#']) {
            return Err(());
        }
        let method = method.to_ascii_uppercase().parse().map_err(|_| ())?;
        Ok(Self { method, path: path.to_owned() })
    }
}

impl fmt::Display for Exempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_shells_do() {
        for (pattern, model, fits) in [
            ("*", "", true),
            ("*", "anything", true),
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "GPT-4o", false),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-?o*", "gpt-4o-mini", true),
            ("*/llama-*-instruct", "meta/llama-3.1-70b-instruct", true),
            ("*/llama-*-instruct", "meta/llama-3.1-70b-instruct-x", false),
            ("?", "", false),
            ("?", "ü", true),
            ("a*b*c", "aXbYbZc", true),
            ("", "", true),
            ("", "x", false),
            ("**a", "bba", true),
        ] {
            assert_eq!(ModelGlob::new(pattern).matches(model), fits, "{pattern:?} {model:?}");
        }
    }

    #[test]
    fn exempt_calls_are_a_method_and_a_path() {
        let exempt: Exempt = "get  /v1/models".parse().unwrap();
        assert_eq!(exempt.to_string(), "GET /v1/models");
        for wrong in ["/v1/models", "GET", "GET v1/models", "GET /v1/models?x=1", "G@T /v1"] {
            assert!(wrong.parse::<Exempt>().is_err(), "{wrong:?}");
        }
    }
}
