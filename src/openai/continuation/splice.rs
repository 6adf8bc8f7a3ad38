//! The events of a continuation, made to go on where the broken stream ended.

use std::{iter, option, vec};

use super::Misfit;
use crate::openai::{Frame, Route};

/// The frames to pass on for one of the continuation: often itself, rewritten; none for what was passed on before;
/// several when some were held back until it was clear that they are no echo.
pub type Events = iter::Chain<vec::IntoIter<Frame>, option::IntoIter<Frame>>;

/// Rewrites the events of one continuation.
#[derive(Debug, Clone)]
pub struct Splice {
    route: Route,
}

impl Splice {
    pub(super) const fn new(route: Route) -> Self {
        Self { route }
    }

    /// What to pass on for the next `frame` of the continuation, in order. The caller shows each to
    /// [`Partial::observe`](super::Partial::observe), as it does with those of the first stream.
    ///
    /// # Errors
    /// What comes does not fit to what was passed on: the stream has to end with an error.
    pub fn rewrite(&mut self, frame: Frame) -> Result<Events, Misfit> {
        match self.route {
            Route::ChatCompletions | Route::Completions => Ok(Vec::new().into_iter().chain(Some(frame))),
            Route::Embeddings | Route::Responses | Route::Messages | Route::Other => Err(Misfit::Unreadable),
        }
    }
}
