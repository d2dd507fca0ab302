//! Parents that lie, and sites that fork.
