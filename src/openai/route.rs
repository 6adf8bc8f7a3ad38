//! Which endpoint a request is for, and where it goes at the provider.

use http::Method;

/// The endpoints we know by name. Whatever is not named here passes through as [`Route::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/messages`
    Messages,
    /// Everything else, known to the provider or not.
    Other,
}

impl Route {
    /// Every route. `Route as usize` indexes into it.
    pub const ALL: [Self; 6] =
        [Self::ChatCompletions, Self::Completions, Self::Embeddings, Self::Responses, Self::Messages, Self::Other];

    /// The route of a request; `path` may carry a query.
    #[must_use]
    pub fn of(method: &Method, path: &str) -> Self {
        let (path, _) = split_query(path);
        match api_path(path) {
            Some(path) if method == Method::POST => match path {
                "/chat/completions" => Self::ChatCompletions,
                "/completions" => Self::Completions,
                "/embeddings" => Self::Embeddings,
                "/responses" => Self::Responses,
                "/messages" => Self::Messages,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// The route whose requests and answers those of an unknown one look like, by how its path ends: paths without `/v1`,
    /// of Azure's deployments, of other versions. Good for counting tokens, and for nothing else.
    #[must_use]
    pub fn resembling(method: &Method, path: &str) -> Self {
        let (path, _) = split_query(path);
        let ends = [
            ("/chat/completions", Self::ChatCompletions),
            ("/completions", Self::Completions),
            ("/embeddings", Self::Embeddings),
            ("/responses", Self::Responses),
            // Threads have messages, too.
            ("/v1/messages", Self::Messages),
        ];
        let known = ends.into_iter().find(|(end, _)| path.ends_with(end));
        known.filter(|_| method == Method::POST).map_or(Self::Other, |(_, route)| route)
    }

    /// A model answers here: such requests are buffered, retried and, where the rules allow it, cached.
    #[must_use]
    pub const fn is_generation(self) -> bool {
        !matches!(self, Self::Other)
    }

    /// The name in metric labels and log lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Other => "other",
        }
    }
}

/// Where a client's request target goes at the provider. `/v1/x` maps to `base_path` + `/x`, and so does `/v1/v1/x`,
/// which tools send that cannot be told a base URL with a path. Any other target goes to the provider's origin as it
/// is. The query is kept byte for byte.
#[must_use]
pub fn upstream_path(client_path_and_query: &str, base_path: &str) -> String {
    let (path, query) = split_query(client_path_and_query);
    let Some(path) = api_path(path) else {
        return client_path_and_query.to_owned();
    };
    let base = base_path.trim_end_matches('/');
    let root = if base.is_empty() && path.is_empty() { "/" } else { "" };
    [root, base, path, query].concat()
}

/// What stands after `/v1` or `/v1/v1`: empty, or beginning with a slash. `None` for paths outside.
fn api_path(path: &str) -> Option<&str> {
    let strip = |path: &'_ str| -> Option<usize> {
        let rest = path.strip_prefix("/v1")?;
        (rest.is_empty() || rest.starts_with('/')).then_some(path.len() - rest.len())
    };
    let once = &path[strip(path)?..];
    Some(strip(once).map_or(once, |twice| &once[twice..]))
}

/// The path, and the query with its question mark.
fn split_query(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_routes_are_known_with_query_and_doubled_prefix() {
        let post = |path| Route::of(&Method::POST, path);
        assert_eq!(post("/v1/chat/completions"), Route::ChatCompletions);
        assert_eq!(post("/v1/v1/chat/completions?api-version=1"), Route::ChatCompletions);
        assert_eq!(post("/v1/completions"), Route::Completions);
        assert_eq!(post("/v1/embeddings"), Route::Embeddings);
        assert_eq!(post("/v1/responses"), Route::Responses);
        assert_eq!(post("/v1/messages"), Route::Messages);
        for other in ["/v1/responses/resp_1", "/chat/completions", "/v1x/completions", "/v1/", "/", "*"] {
            assert_eq!(post(other), Route::Other, "{other}");
        }
        assert_eq!(Route::of(&Method::GET, "/v1/responses"), Route::Other);
    }

    #[test]
    fn unknown_routes_resemble_known_ones_by_how_they_end() {
        let post = |path| Route::resembling(&Method::POST, path);
        assert_eq!(post("/chat/completions"), Route::ChatCompletions);
        assert_eq!(post("/openai/deployments/x/chat/completions?api-version=1"), Route::ChatCompletions);
        assert_eq!(post("/v1beta/openai/embeddings"), Route::Embeddings);
        assert_eq!(post("/anthropic/v1/messages"), Route::Messages);
        assert_eq!(post("/v1/responses"), Route::Responses);
        for other in ["/v1/threads/t/messages", "/v1/responses/r/cancel", "/", "/v1/models"] {
            assert_eq!(post(other), Route::Other, "{other}");
        }
        assert_eq!(Route::resembling(&Method::GET, "/chat/completions"), Route::Other);
    }

    #[test]
    fn labels_and_indices_agree() {
        for (index, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, index);
            assert_eq!(route.is_generation(), route.as_str() != "other");
        }
    }

    #[test]
    fn the_api_path_moves_to_the_base_url_and_the_rest_stays() {
        for (client, base, upstream) in [
            ("/v1/models", "/v1", "/v1/models"),
            ("/v1/models", "/openai/v1/", "/openai/v1/models"),
            ("/v1/v1/models", "/v1", "/v1/models"),
            ("/v1/v1/v1/models", "/v1", "/v1/v1/models"),
            ("/v1/x?b=%20&a=/v1/&a", "/api", "/api/x?b=%20&a=/v1/&a"),
            ("/v1/models", "", "/models"),
            ("/v1", "", "/"),
            ("/v1?x=1", "/", "/?x=1"),
            ("/v1/", "/v1", "/v1/"),
            ("/v1beta/models?k=v", "/v1", "/v1beta/models?k=v"),
            ("/health", "/v1", "/health"),
            ("*", "/v1", "*"),
        ] {
            assert_eq!(upstream_path(client, base), upstream, "{client} on {base}");
        }
    }
}
