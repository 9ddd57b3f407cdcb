//! The commands: what the n-th one is follows from the seed and n alone.

use serde_json::{Value, json};

use crate::dice::Dice;

/// Workflows that many define and retire at once.
const HOT: u64 = 8;
/// Workflows that are defined through the queue only, so that their order can be told.
pub(crate) const LANES: u64 = 6;
/// What a repetition repeats is at least this much older.
const OLD: u64 = 200;

/// By which door a command goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Nats,
    Http,
    /// Published; nobody waits for the answer.
    Queue,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) id: String,
    pub(crate) door: Door,
    pub(crate) category: &'static str,
    /// The stream within its category.
    pub(crate) stream: String,
    pub(crate) name: &'static str,
    pub(crate) body: Value,
    /// Whether the caller says which version it expects: the one it saw last, so somebody else may be faster.
    pub(crate) conditional: bool,
    /// Whether it changes something or is refused, whatever the state: then a queued one must leave a trace.
    pub(crate) leaves_a_trace: bool,
}

impl Command {
    pub(crate) fn new(id: String, category: &'static str, stream: String, name: &'static str, body: Value) -> Self {
        let door = Door::Nats;
        Self { id, door, category, stream, name, body, conditional: false, leaves_a_trace: false }
    }

    pub(crate) fn full_stream(&self) -> String {
        format!("dev/{}/{}", self.category, self.stream)
    }
}

/// One thing that a client does.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// A command of its own.
    Ask(Command),
    /// The command of that number once more, exactly as it was.
    Repeat(u64),
    /// Another body under the id of that number's command: to be refused.
    Misuse(u64),
}

/// The workflows that runs follow, defined before anything is broken.
pub(crate) fn definitions(hook: &str) -> Vec<Command> {
    let retry = json!({ "max": 50, "delay": 0.1, "factor": 1 });
    let call = |path: &str| {
        let http = json!({ "method": "POST", "url": format!("{hook}/{path}") });
        json!({ "id": "call", "http": http, "timeout": 5, "retry": retry })
    };
    let task = |name: &str| json!({ "id": format!("do-{name}"), "name": name, "timeout": 2, "retry": retry });
    let (nap, pass) = (|time: f64| json!({ "id": "nap", "wait": time }), json!({ "id": "end", "kind": "pass" }));
    let never = json!({ "id": "never", "name": "never", "timeout": 60 });
    [
        ("quick", json!([pass])),
        ("nap", json!([nap(0.3), pass])),
        ("call", json!([call("fine"), pass])),
        ("task", json!([task("a")])),
        ("chain", json!([call("shaky"), nap(0.1), task("a"), task("b"), pass])),
        ("doomed", json!([nap(0.1), call("wrong")])),
        ("never", json!([never])),
    ]
    .into_iter()
    .map(|(name, steps)| {
        let body = json!({ "steps": steps });
        Command::new(format!("define-{name}"), "workflow", name.to_owned(), "define", body)
    })
    .collect()
}

/// The n-th act, from 0.
pub(crate) fn act(seed: u64, n: u64) -> Act {
    let mut dice = Dice::new(seed, "command", n);
    let kind = dice.between(0, 100);
    let earlier = |dice: &mut Dice| (n >= OLD).then(|| dice.between(0, n - OLD + 1));
    match kind {
        90..96 => earlier(&mut dice).map_or_else(|| Act::Ask(command(seed, n)), Act::Repeat),
        96..100 => earlier(&mut dice).map_or_else(|| Act::Ask(command(seed, n)), Act::Misuse),
        _ => Act::Ask(command(seed, n)),
    }
}

/// The n-th command. Numbers whose act is another have one, too: it is asked when there is nothing to repeat.
pub(crate) fn command(seed: u64, n: u64) -> Command {
    let mut dice = Dice::new(seed, "command", n);
    let kind = dice.between(0, 100);
    let mut details = Dice::new(seed, "details", n);
    let dice = &mut details;
    let id = format!("c{n}");
    let hot = format!("hot-{}", dice.between(0, HOT));
    let define = |stream: String| {
        let steps = json!([{ "id": "end", "kind": "pass", "output": n }]);
        Command::new(
            id.clone(),
            "workflow",
            stream,
            "define",
            json!({ "steps": steps, "labels": { "n": n.to_string() } }),
        )
    };
    let start = |workflow: &str| {
        let body = json!({ "workflow": workflow, "input": { "run": format!("r{n}") } });
        Command::new(id.clone(), "run", format!("r{n}"), "start", body)
    };
    let mut command = match kind {
        0..14 => {
            let workflows = ["quick", "nap", "nap", "call", "call", "task", "task", "chain", "doomed", "never"];
            start(workflows[dice.between(0, 10) as usize])
        }
        14..18 => start(&hot),
        18..20 => start("nowhere"),
        20..28 => {
            // Perhaps one that is running, perhaps one that is over, perhaps one that never was.
            let run = format!("r{}", dice.between(n.saturating_sub(400), n.max(1)));
            Command::new(id.clone(), "run", run, "cancel", json!({ "reason": format!("because of {n}") }))
        }
        28..31 => Command::new(id.clone(), "workflow", hot, "retire", json!({})),
        31..36 => Command { conditional: true, ..define(hot) },
        36..40 => match dice.between(0, 4) {
            0 => Command::new(id.clone(), "workflow", hot, "define", json!({ "steps": n })),
            1 => {
                Command::new(id.clone(), "run", format!("r{n}"), "finish-wait", json!({ "step": "nap", "attempt": 1 }))
            }
            2 => Command::new(id.clone(), "inbox", format!("i{n}"), "dismiss", json!({})),
            _ => Command::new(id.clone(), "workflow", hot, "paint", json!({})),
        },
        40..60 => {
            let lane = format!("lane-{}", dice.between(0, LANES));
            let wrong = dice.chance(10);
            let body = json!({ "steps": n });
            let lane = if wrong { Command::new(id.clone(), "workflow", lane, "define", body) } else { define(lane) };
            Command { door: Door::Queue, leaves_a_trace: true, ..lane }
        }
        60..64 => Command { door: Door::Queue, leaves_a_trace: true, ..start("quick") },
        64..66 => {
            let nobody = Command::new(id.clone(), "run", format!("ghost-{n}"), "cancel", json!({}));
            Command { door: Door::Queue, leaves_a_trace: true, ..nobody }
        }
        _ => define(hot),
    };
    if command.door == Door::Nats && dice.chance(15) {
        command.door = Door::Http;
    }
    command
}

/// Another command under the same id.
pub(crate) fn misused(command: &Command) -> Command {
    let mut other = command.clone();
    other.body = json!({ "another": "body" });
    other
}

#[test]
fn the_mix_follows_from_the_seed_and_has_everything_in_it() {
    let acts = |seed| (0..2_000).map(|n| format!("{:?}", act(seed, n))).collect::<Vec<_>>();
    assert_eq!(acts(1), acts(1));
    assert_ne!(acts(1), acts(2));
    let all = acts(3).join("\n");
    for word in ["Repeat", "Misuse", "Queue", "Http", "cancel", "retire", "chain", "ghost", "conditional: true"] {
        assert!(all.contains(word), "no {word} in the mix");
    }
}
