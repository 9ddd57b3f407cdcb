//! Callers: clients that ask again with the same command id until they hear an answer, and one that works through a queue
//! in order.

use std::sync::Arc;
use std::time::Duration;

use checker::{Asked, Outcome, Queued};
use kernel::{CommandId, PrincipalId, Problem, StreamName};
use runtime::{Answer, Commands, Request};
use serde_json::json;

use crate::domain::{Body, TENANT, rule};
use crate::faults::Fault;
use crate::instance::{Instance, Living};
use crate::world::World;

/// What somebody wants.
#[derive(Clone)]
struct Wish {
    stream: StreamName,
    command: &'static str,
    body: Body,
    id: String,
}

impl Wish {
    fn request(&self) -> Request {
        let body = serde_json::to_vec(&self.body).unwrap();
        let request = Request::new(self.stream.clone(), self.command, body, PrincipalId::new("ann").unwrap());
        request.with_id(CommandId::new(&self.id).unwrap())
    }

    fn asked(&self, outcome: Outcome) -> Asked {
        let (stream, command, command_id) = (self.stream.to_string(), self.command.to_owned(), self.id.clone());
        Asked { stream, command, command_id, outcome }
    }
}

fn wish(world: &World, id: String) -> Wish {
    let body = Body { key: world.below(16), other: world.below(16), limit: 2 + world.below(5), ..Body::default() };
    let command = ["open", "open", "force", "force", "close", "close", "swap", "look", "set"][world.below(9) as usize];
    let stream = if command == "set" { rule() } else { world.door() };
    Wish { stream, command, body, id }
}

fn somebody(world: &World, living: &Living) -> Arc<Instance> {
    let all = living.all();
    let n = world.below(all.len() as u64) as usize;
    Arc::clone(&all[n])
}

/// What an answer means to a caller.
fn heard(world: &World, wish: &Wish, answer: Result<Answer, Problem>) -> Outcome {
    match answer {
        Ok(answer) if answer.events.is_empty() => Outcome::NothingToDo,
        Ok(answer) => Outcome::Accepted {
            position: answer.position.sequence(),
            version: answer.version,
            events: answer.events.into_iter().map(|event| event.type_name).collect(),
        },
        Err(problem) if problem.code == "outcome_unknown" => Outcome::Unknown,
        Err(problem) if problem.is_transient() || problem.code == "contended" => {
            Outcome::NotNow { code: problem.code.into_owned() }
        }
        Err(problem) => {
            // Every wish makes sense: nobody may be told of a defect, or that an id of his was used for something else.
            if !["not_open", "too_many"].contains(&problem.code.as_ref()) {
                world.complain(format!("`{}` on `{}` was answered {problem}", wish.id, wish.stream));
            }
            Outcome::Refused { code: problem.code.into_owned() }
        }
    }
}

/// Asks until there is a final answer (or is turned away); says whether it was a yes that is in the log.
async fn ask(world: &Arc<World>, living: &Living, wish: &Wish) -> bool {
    loop {
        if world.strikes(Fault::DeliveredTwice) {
            let instance = somebody(world, living);
            // Nobody hears what becomes of it.
            world.state().asked.push(wish.asked(Outcome::Unknown));
            let request = wish.request();
            tokio::spawn(async move { instance.commands.execute(request).await });
        }
        let instance = somebody(world, living);
        let patience = world.between_ms(500, 5_000);
        let outcome = match tokio::time::timeout(patience, instance.commands.execute(wish.request())).await {
            Ok(answer) => heard(world, wish, answer),
            Err(_) => Outcome::Unknown,
        };
        world.note(format_args!("{} hears {outcome:?}", wish.id));
        world.state().asked.push(wish.asked(outcome.clone()));
        match outcome {
            // Some take a "nothing was written" for what it says, and go away.
            Outcome::NotNow { .. } if world.below(6) == 0 => return false,
            Outcome::NotNow { .. } | Outcome::Unknown => tokio::time::sleep(world.between_ms(20, 400)).await,
            outcome => return matches!(outcome, Outcome::Accepted { .. }),
        }
    }
}

/// One client after the other's example: asks, waits, and now and then asks for something once more that it was granted.
pub(crate) async fn client(world: Arc<World>, living: Living, name: u64) {
    let mut granted: Vec<Wish> = Vec::new();
    let pause = world.faults.trouble_ms / world.faults.commands_per_client;
    for n in 0..world.faults.commands_per_client {
        let wish = wish(&world, format!("c{name}-{n}"));
        if ask(&world, &living, &wish).await {
            granted.push(wish);
        }
        tokio::time::sleep(world.between_ms(0, pause)).await;
        if !granted.is_empty() && world.below(3) == 0 {
            let again = granted[world.below(granted.len() as u64) as usize].clone();
            ask(&world, &living, &again).await;
        }
    }
}

/// The queue's one reader: works through its commands one after the other, as the queue door does for each stream. It lives
/// in an instance; when that dies, another one begins with the command that was in hand.
pub(crate) async fn queue(world: Arc<World>, living: Living) {
    for place in 0..world.faults.queued {
        // Neither command depends on another stream: what a dead reader may still have on its way says the same.
        let command = if world.below(2) == 0 { "force" } else { "close" };
        let body = Body { key: world.below(4), ..Body::default() };
        let wish = Wish { stream: world.door(), command, body, id: format!("q{place}") };
        let (stream, leaves_a_trace) = (wish.stream.to_string(), command == "close");
        let queued = Queued { stream, command_id: wish.id.clone(), place, leaves_a_trace };
        world.state().queued.push(queued);
        if let Outcome::Refused { code } = until_decided(&world, &living, &wish, false).await {
            let (category, id) = (wish.stream.category.as_str(), wish.stream.id.as_str());
            let rejected = json!({ "command_id": wish.id, "category": category, "id": id, "code": code });
            let stream = StreamName::new(TENANT, "inbox", &wish.id).unwrap();
            let told =
                Wish { stream, command: "reject", body: Body { rejected, ..Body::default() }, id: wish.id.clone() };
            until_decided(&world, &living, &told, true).await;
        }
        tokio::time::sleep(world.between_ms(0, 500)).await;
    }
}

async fn until_decided(world: &World, living: &Living, wish: &Wish, internal: bool) -> Outcome {
    let mut reader = somebody(world, living);
    loop {
        let request = Request { internal, ..wish.request() };
        let answer = tokio::select! {
            biased;
            () = reader.gate.died() => None,
            answer = reader.commands.execute(request) => Some(answer),
        };
        let outcome = answer.map_or(Outcome::Unknown, |answer| heard(world, wish, answer));
        world.note(format_args!("{} in the queue: {outcome:?}", wish.id));
        match outcome {
            Outcome::NotNow { .. } | Outcome::Unknown => {}
            outcome => return outcome,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        if reader.gate.is_dead() {
            reader = somebody(world, living);
        }
    }
}
