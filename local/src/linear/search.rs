//! The search for an order.

use std::collections::HashSet;

use super::history::{Call, Op};
use super::register::Register;

/// Configurations after which the search gives up.
const CONFIGURATIONS_MAX: usize = 2_000_000;

/// What the search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// An order of the calls, those of unknown outcome that had no effect left out.
    Order(Vec<usize>),
    /// None; the longest order of some of the calls.
    None { longest: Vec<usize> },
    /// It would take too long.
    Undecided,
}

/// Some calls that took effect, in an order that allows them.
struct Frame {
    done: Vec<u64>,
    /// What may be next, the best guess last, and what the key is then.
    next: Vec<(usize, Register)>,
}

/// Looks for an order of `calls`, which are sorted by their beginning.
pub(super) fn search(calls: &[Call]) -> Found {
    assert!(calls.is_sorted_by_key(|call| call.began), "sorted by their beginning");
    let wanted = calls.iter().filter(|call| call.ended.is_some()).count();
    let done = vec![0; calls.len().div_ceil(64)];
    let next = candidates(calls, &done, Register::new());
    let mut stack = vec![Frame { done, next }];
    let (mut order, mut longest, mut known) = (Vec::new(), Vec::new(), 0);
    let mut seen = HashSet::new();
    while known < wanted {
        let Some(frame) = stack.last_mut() else { return Found::None { longest } };
        let Some((call, register)) = frame.next.pop() else {
            stack.pop();
            if let Some(undone) = order.pop() {
                let undone: &Call = &calls[undone];
                known -= usize::from(undone.ended.is_some());
            }
            continue;
        };
        let mut done = frame.done.clone();
        done[call / 64] |= 1 << (call % 64);
        if !seen.insert((done.clone(), register)) {
            continue;
        }
        if seen.len() > CONFIGURATIONS_MAX {
            return Found::Undecided;
        }
        order.push(call);
        known += usize::from(calls[call].ended.is_some());
        if order.len() > longest.len() {
            longest.clone_from(&order);
        }
        let next = candidates(calls, &done, register);
        stack.push(Frame { done, next });
    }
    Found::Order(order)
}

/// The calls that may take effect next: those not done that began before any call not done has ended, as far as the
/// register allows them. Those of unknown outcome are tried last, of the others that which ended first is tried first.
fn candidates(calls: &[Call], done: &[u64], register: Register) -> Vec<(usize, Register)> {
    let mut first_end = u64::MAX;
    let mut open = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        if call.began > first_end {
            break;
        }
        if done[index / 64] & 1 << (index % 64) == 0 {
            first_end = first_end.min(end(call));
            open.push(index);
        }
    }
    open.retain(|&index| calls[index].began <= first_end);
    open.sort_by_key(|&index| std::cmp::Reverse(end(&calls[index])));
    let allowed = |index: usize| Some((index, register.after(calls, index)?));
    open.into_iter().filter_map(allowed).collect()
}

fn end(call: &Call) -> u64 {
    call.ended.as_ref().map_or(u64::MAX, |(at, _)| *at)
}

/// Sorts, and drops what tells nothing: reads without an answer.
pub(super) fn prepared(calls: &[Call]) -> Vec<Call> {
    let tells = |call: &&Call| call.ended.is_some() || call.op != Op::Get;
    let mut calls: Vec<Call> = calls.iter().filter(tells).cloned().collect();
    calls.sort_by_key(|call| call.began);
    calls
}
