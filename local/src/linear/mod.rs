//! Is a history of concurrent calls linearizable? That is: can each call be given a moment between its beginning and
//! its end so that, one after another in the order of these moments, all replies are right?
//!
//! Linearizability is local: a history is linearizable if and only if that of each key is (Herlihy and Wing, 1990). So
//! each key is checked by itself, with the search of Wing and Gong (1993) and the memory of Lowe (2017): from a set of
//! calls that took effect and the state they lead to, nothing is tried twice.
//!
//! A call whose outcome is not known (its client gave up, or it never ended) may have taken effect at any moment after
//! its beginning, or never.
//!
//! | module | holds |
//! |---|---|
//! | `history` | [`History`], [`Call`]: who asked what, when, and was told what |
//! | `register` | one key as it should be: values, versions, numbers of changes, conditions |
//! | `search` | the search for an order |
//! | `report` | a broken history, cut down to what is needed to see it |

mod history;
mod register;
mod report;
mod search;

pub use history::{Call, History, Op, Outcome, Seen};
pub use report::Violation;
