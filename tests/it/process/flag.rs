//! The flag of `examples/rules`, in Rust, and what is compared of its verdicts.

use std::time::Duration;

use lasthit::rules::{Decision, Due, Happening, Rules, What, When};
use lasthit::types::{Audience, PlayerId, Role};
use serde_json::{Value, json};

/// The rules of `examples/rules/flag.py`, in Rust.
#[derive(Default)]
pub(super) struct Flag {
    holder: Option<String>,
    grabs: u64,
}

#[derive(serde::Deserialize)]
struct Grab {
    ms: u64,
}

#[derive(serde::Deserialize)]
struct Tell {
    to: Vec<String>,
    text: String,
}

impl Rules for Flag {
    fn name(&self) -> &'static str {
        "flag"
    }

    fn version(&self) -> u32 {
        1
    }

    fn resolve(&mut self, event: &Happening<'_>) -> Decision {
        let act = match event.what {
            What::Open => return Decision::granted().body(&json!({"holder": self.holder, "grabs": self.grabs})),
            What::Data(act) => act,
            _ => return Decision::granted(),
        };
        let about = |decision: Decision| act.contest.map_or(decision.clone(), |contest| decision.about(contest));
        match act.op {
            "grab" if self.holder.is_some() => Decision::late("flag"),
            "grab" => {
                self.holder = Some(event.player.to_string());
                self.grabs += 1;
                let ms = act.args::<Option<Grab>>().ok().flatten().map_or(30_000, |grab| grab.ms);
                let free = When::After(Duration::from_millis(ms));
                let decision = Decision::won("flag").body(&json!({"grabs": self.grabs}));
                decision.timer("free", free, &json!({"from": event.player.to_string()}))
            }
            "drop" if self.holder.as_deref() != Some(event.player.as_str()) => {
                about(Decision::denied("not_yours")).to(Audience::Session)
            }
            "drop" => {
                self.holder = None;
                Decision::granted().about("flag").next_round().cancel("free")
            }
            "tell" => {
                let Tell { to, text } = act.args().expect("arguments");
                let players = to.iter().map(|name| PlayerId::new(name).expect("a name")).collect();
                about(Decision::granted()).to(Audience::Players(players)).body(&json!({ "text": text }))
            }
            "who" => {
                let role = if event.role == Role::Server { "server" } else { "player" };
                let sessions = event.sessions_of(event.player);
                let body = json!({"player": event.player.to_string(), "role": role, "sessions": sessions});
                about(Decision::granted()).to(Audience::Session).body(&body)
            }
            "roll" => about(Decision::granted()).body(&json!({"roll": event.facts.random(0) % 6 + 1})),
            _ => about(Decision::denied("unknown_op")).to(Audience::Session),
        }
    }

    fn fire(&mut self, timer: &Due<'_>) -> Decision {
        self.holder = None;
        let from: Value = rmp_serde::from_slice(timer.data).expect("data");
        Decision::granted().about("flag").next_round().body(&json!({"free": true, "from": from["from"]}))
    }

    fn snapshot(&self) -> Vec<u8> {
        json!([self.holder, self.grabs]).to_string().into_bytes()
    }

    fn restore(&mut self, _: u32, bytes: &[u8]) -> Result<(), String> {
        (self.holder, self.grabs) = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// What the suite looks at in a verdict. A roll differs, because each room has its own seed.
pub(super) fn shown(verdict: &Value) -> Value {
    let mut body = verdict["body"].clone();
    if let Some(roll) = body.get_mut("roll") {
        assert!((1..=6).contains(&roll.as_u64().expect("a roll")), "{verdict}");
        *roll = json!("rolled");
    }
    let late = verdict["reason"] == "late";
    assert_eq!(late, verdict.get("behind_ns").is_some(), "{verdict}");
    json!([
        verdict["event"],
        verdict["player"],
        verdict["outcome"],
        verdict["reason"],
        verdict["contest"],
        verdict["round"],
        body
    ])
}
