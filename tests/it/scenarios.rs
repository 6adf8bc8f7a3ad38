//! Load stories, judged at the provider.

mod hours;
