//! `tidegate check`.
