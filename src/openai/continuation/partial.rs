//! What was passed on of a stream, as far as another one can go on from it.

use super::{Continuation, Splice, Style, Unfit};
use crate::openai::{Frame, Route};

/// What has been passed on of a stream so far.
#[derive(Debug)]
pub struct Partial {
    route: Route,
    unfit: Option<Unfit>,
    text: String,
}

impl Partial {
    /// Nothing yet, of a stream on `route` with so many `choices` (the `n` of the request).
    #[must_use]
    pub fn new(route: Route, choices: u64) -> Self {
        let unfit = match route {
            Route::ChatCompletions | Route::Completions => (choices > 1).then_some(Unfit::ManyChoices),
            Route::Embeddings | Route::Responses | Route::Messages | Route::Other => Some(Unfit::Route),
        };
        Self { route, unfit, text: String::new() }
    }

    /// Takes note of a frame that was passed on to the client.
    pub fn observe(&mut self, _frame: &Frame) {}

    /// Bytes it holds, to be accounted for. Beyond 4 MiB it lets go of everything and cannot be continued.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.capacity()
    }

    /// Nothing that a reader would miss has been passed on: no text, no reasoning, no tool call, no ending. The same
    /// request can be asked again, of any provider.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.unfit.is_none() && self.text.is_empty()
    }

    /// The request that asks for the rest, made of the `body` of the first one, the one that the client sent; and what
    /// makes the answer to it fit. A blank partial is asked for again as it was, whatever the `style`.
    ///
    /// # Errors
    /// Why it cannot be asked for. The stream has to end with an error, or by what it lacks if it is only
    /// [`Unfit::Finished`].
    pub fn request(&self, body: &[u8], style: Option<Style>) -> Result<Continuation, Unfit> {
        match (self.unfit, self.is_blank(), style) {
            (Some(unfit), ..) => Err(unfit),
            (None, true, _) => {
                Ok(Continuation { body: bytes::Bytes::copy_from_slice(body), splice: Splice::new(self.route) })
            }
            (None, false, _) => Err(Unfit::NotSupported),
        }
    }
}
