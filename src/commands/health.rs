//! `tidegate health`.
