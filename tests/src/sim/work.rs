//! Clients at work: submissions, answers, repetition.

use tradewind_site_protocol::{Answer, Durability, NodeCore, NodeId, Submission, Ticket};
use tradewind_store::Command;

use super::Violation;
use super::check::{Acknowledged, Check};
use super::client::{Request, entry_of, written};
use super::coverage::Seen;
use super::plan::{BULK_ABOVE, MS};
use super::world::{Event, Input, Node, Submitted, World, members_disks};

impl World<'_> {
    pub(super) fn client(&mut self, client: usize) {
        let plan = self.plan;
        let state = &mut self.clients[client];
        if state.current.is_none() {
            if state.done == plan.requests_per_client {
                return;
            }
            state.current = Some(state.next_request(plan, &mut self.rng, self.now));
        }
        let request = state.current.as_mut().expect("made above");
        request.attempts += 1;
        self.coverage.seen.add(Seen::Repeated, u64::from(request.attempts > 1));
        let request: Request = request.clone();
        let node = *self.rng.pick(&plan.ever(request.shard));
        self.serial += 1;
        let ticket = Ticket(self.serial);
        let incarnation = self.nodes[node.index()].incarnation;
        let submitted = Submitted {
            client,
            attempt: request.attempts,
            shard: request.shard,
            request: request.id,
            node,
            incarnation,
        };
        self.tickets.insert(ticket, submitted);
        let submission = Submission {
            ticket,
            request: request.id,
            durability: request.durability,
            command: request.submitted(),
            bodies: Vec::new(),
        };
        let submission = submission.lighten(BULK_ABOVE);
        let at = self.now + self.rng.range(20..500);
        self.at(at, Event::Input(node, incarnation, Input::Submit(request.shard, submission)));
        // Patience ends sometimes before the answer could come: that makes repeated requests.
        // Growing, so that repetition does not feed on itself.
        let patience = (self.rng.range(20..250) * MS) << request.attempts.min(4);
        self.at(self.now + patience, Event::Client(client));
    }

    pub(super) fn answer(&mut self, node: NodeId, answer: Answer) -> Check {
        let Some(submitted) = self.tickets.remove(&answer.ticket) else {
            let detail = format!("{node} answers {:?} twice", answer.ticket);
            return Err(Violation { invariant: "invariant_answered_once", detail });
        };
        let Submitted { client, attempt, shard, request, .. } = submitted;
        if let Some(version) = entry_of(&answer.reply) {
            let durability = match &self.clients[client].current {
                Some(current) if current.id == request => current.durability,
                // Answered before: it was told then.
                _ => return Ok(()),
            };
            let Node { core, disks, .. } = &self.nodes[node.index()];
            let view = core.as_ref().map(NodeCore::view).unwrap_or_default();
            let own = &disks[&shard];
            let disks = &members_disks(self.plan, &self.nodes, shard, self.roster(node))[..];
            let told = Acknowledged { shard, request, version, durability, view, own, disks };
            self.checker.invariant_acknowledged_is_durable(&told)?;
        }
        let at = self.now + self.rng.range(20..500);
        // The reply names its request by the ticket's serial, which only this submission had.
        let reply = Answer { ticket: Ticket(request.number.0), reply: answer.reply };
        self.at(at, Event::Reply(client, attempt, reply));
        Ok(())
    }

    pub(super) fn answered(&mut self, client: usize, attempt: u64, answer: &Answer) {
        let state = &mut self.clients[client];
        let Some(current) = &state.current else { return };
        // That the first attempt had no effect tells nothing of a later one that is under way.
        let overtaken = attempt == 1 && current.attempts > 1 && entry_of(&answer.reply).is_none();
        if current.id.number.0 != answer.ticket.0 || overtaken {
            return;
        }
        let command = Command::decode(&current.command).expect("made by this client");
        if current.durability == Durability::Disk {
            let ended = Some((self.now, &answer.reply));
            self.histories[current.shard].record(client, &command, current.began, ended);
            state.seen = written(current.shard, &command, &answer.reply).or(state.seen.take());
        }
        state.current = None;
        state.done += 1;
        self.coverage.seen.hit(Seen::Answered);
        let at = self.now + self.rng.range(10..self.plan.think_us);
        self.at(at, Event::Client(client));
    }
}
