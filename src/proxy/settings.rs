//! The settings of this room.
