//! `tidegate sim`.
