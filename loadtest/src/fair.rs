//! The fairness harness: two rivals claim the same key a known time apart, and the first sender should get it.
//!
//! `rival` sends and reads, with real-time priority if `priority` can get it. `background` keeps the gateways busy, `score`
//! counts, `hold` reads the workers' metrics, `picture` draws.

mod background;
mod hold;
mod picture;
pub(crate) mod priority;
pub(crate) mod rival;
mod score;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use lasthit::types::Incarnation;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::environment::load_average;
use crate::limits::{
    BURST_MAX, GAP_US_MAX, GAPS_MAX, RATE_MAX, REPEATED_PER_TRIAL_MAX, SPLIT_US_MAX, TRIALS_MAX, UNANSWERED_MAX,
};
use crate::load::record::{Quantiles, Times};
use crate::speak::dialect::{Audience, Dialect};
use crate::speak::socket::frame;
use background::Background;
use hold::Hold;
pub(crate) use picture::draw;
use rival::{Gap, Hit, Rival, Sent, race};
use score::Answer;
pub(crate) use score::GapScore;
use score::{HEAD, Tally};

/// What to measure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FairConfig {
    /// Between the rivals' sends, in microseconds.
    pub(crate) gaps_us: Vec<u64>,
    /// Races for each gap; those that are dropped are raced again.
    pub(crate) trials: u32,
    /// Claims a second of others meanwhile.
    pub(crate) background: u32,
    /// Messages right behind each rival's hit.
    pub(crate) burst: u32,
    /// Each hit is sent in two pieces, up to this many microseconds apart; 0: in one.
    pub(crate) split_us: u64,
    /// Both rivals on one gateway.
    pub(crate) same: bool,
    /// Of all that is drawn.
    pub(crate) seed: u64,
    /// After this long it ends with the races that it had.
    #[serde(skip)]
    pub(crate) time_max: Option<Duration>,
    /// One address leads to all gateways: who connects gets the emptiest.
    #[serde(skip)]
    pub(crate) shares_address: bool,
    /// Where the workers' metrics are, `host:port` each.
    #[serde(skip)]
    pub(crate) metrics: Vec<String>,
}

/// What was measured; its serialized form is what `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fairness {
    pub(crate) dialect: &'static str,
    #[serde(skip)]
    pub(crate) is_lasthit: bool,
    pub(crate) setting: FairConfig,
    /// The machine's load average (1 min) before and after.
    pub(crate) load_average: [f64; 2],
    /// Claims a second that the background really sent.
    pub(crate) background_per_s: f64,
    /// Whether the thread that sends ran before all usual ones.
    pub(crate) realtime: bool,
    pub(crate) gaps: Vec<GapScore>,
    /// How long the workers held events, the background's too, until all gateways had passed their stamps.
    pub(crate) hold_us: Hold,
    /// From the second rival's send to its verdict.
    pub(crate) latency_us: Quantiles,
    #[serde(skip)]
    pub(crate) latency: Times,
}

impl FairConfig {
    fn check(&self, urls: &[String]) -> Result<()> {
        ensure!(self.same || urls.len() > 1, "rivals on two gateways need two urls: give both, or --same");
        ensure!((1..=GAPS_MAX).contains(&self.gaps_us.len()), "{} gaps: use 1 to {GAPS_MAX}", self.gaps_us.len());
        for gap in &self.gaps_us {
            ensure!(*gap <= GAP_US_MAX, "gap {gap} µs: use 0 to {GAP_US_MAX}");
        }
        ensure!((1..=TRIALS_MAX).contains(&self.trials), "trials {}: use 1 to {TRIALS_MAX}", self.trials);
        ensure!(self.burst <= BURST_MAX, "burst {}: use 0 to {BURST_MAX}", self.burst);
        ensure!(self.split_us <= SPLIT_US_MAX, "split {} µs: use 0 to {SPLIT_US_MAX}", self.split_us);
        ensure!(self.background <= RATE_MAX, "background {}: use 0 to {RATE_MAX}", self.background);
        Ok(())
    }
}

/// A line that shows how far a measurement is.
pub(crate) fn progress(config: &FairConfig, what: impl Into<String>) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::from(config.trials)).with_style(style).with_message(what.into())
}

/// What a claim carries, as in a load run.
const ARGS: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// A claim as the bytes of one WebSocket frame, ready to be sent: encoding it takes no part in what is timed.
fn hit_frame(dialect: Dialect, id: &str, contest: &str) -> Result<Vec<u8>> {
    let (mut payload, mut out) = (Vec::new(), Vec::new());
    dialect.claim(&mut payload, id, contest, ARGS)?;
    frame(&mut out, OpCode::Data(if dialect.is_text() { Data::Text } else { Data::Binary }), &payload);
    Ok(out)
}

/// Races until every gap had its trials or the time is over; None when `stop` was set before. Blocks.
pub(crate) fn measure(
    dialect: Dialect,
    urls: &[String],
    config: &FairConfig,
    bar: &ProgressBar,
    stop: &AtomicBool,
) -> Result<Option<Fairness>> {
    config.check(urls)?;
    let load_before = load_average();
    let tag = Incarnation::random().to_string();
    let second = if config.same { &urls[0] } else { &urls[1] };
    let room = dialect.room(Audience::Sender, &tag, 0)?;
    let mut rivals = [Rival::join(dialect, &urls[0], &room, "p-ann")?, Rival::join(dialect, second, &room, "p-bob")?];
    // A supervisor chooses the gateway, and gives the next session to another one.
    ensure!(
        config.same || !config.shares_address || !rivals[0].is_beside(&rivals[1]),
        "both rivals were given to one gateway: use a supervisor with two, as in --spawn up:gateways=2,workers=1, or --same"
    );
    let background = (config.background > 0)
        .then(|| Background::start(dialect, urls.to_vec(), tag.clone(), config.background))
        .transpose()
        .context("the background cannot start")?;
    let before = hold::read(&config.metrics)?;
    // On a thread of its own: its priority is not for those that the background or the caller start.
    let (realtime, raced) = std::thread::scope(|scope| {
        let racing = std::thread::Builder::new().name("race".into()).spawn_scoped(scope, || {
            let raised = priority::raise();
            let raced = race_all(dialect, config, raised.is_ok(), &tag, &mut rivals, bar, stop);
            (raised, raced)
        })?;
        racing.join().map_err(|_| anyhow!("the racing thread panicked"))
    })?;
    if let Err(note) = &realtime {
        eprintln!("note: {note}");
    }
    let held = hold::read(&config.metrics)?.since(&before);
    // A background that broke is why the rivals got no answer.
    let background_per_s = background.map_or(Ok(0.0), Background::end).context("the background broke")?;
    let Some((mut tallies, latency)) = raced? else { return Ok(None) };
    Ok(Some(Fairness {
        dialect: dialect.name(),
        is_lasthit: dialect.is_lasthit(),
        setting: config.clone(),
        load_average: [load_before, load_average()],
        background_per_s: background_per_s.round(),
        gaps: tallies.iter_mut().zip(&config.gaps_us).map(|(tally, gap)| tally.score(*gap)).collect(),
        realtime: realtime.is_ok(),
        hold_us: if config.metrics.is_empty() { Hold::at_most(&latency) } else { Hold::of(&held) },
        latency_us: latency.quantiles(),
        latency,
    }))
}

type Raced = Option<(Vec<Tally>, Times)>;

fn race_all(
    dialect: Dialect,
    config: &FairConfig,
    realtime: bool,
    tag: &str,
    rivals: &mut [Rival; 2],
    bar: &ProgressBar,
    stop: &AtomicBool,
) -> Result<Raced> {
    let mut rng = StdRng::seed_from_u64(config.seed);
    let (mut tallies, mut latency) = (vec![Tally::default(); config.gaps_us.len()], Times::new());
    let began = tokio::time::Instant::now();
    let mut unanswered = 0;
    // The gaps take turns, so that what the machine does meanwhile falls on all of them alike.
    let mut order: Vec<usize> = (0..config.gaps_us.len()).collect();
    for trial in 0..config.trials {
        if trial > 0 && config.time_max.is_some_and(|max| began.elapsed() >= max) {
            break;
        }
        order.shuffle(&mut rng);
        for &gap in &order {
            // One that is dropped is raced again.
            for again in 0..=REPEATED_PER_TRIAL_MAX {
                if stop.load(Relaxed) {
                    return Ok(None);
                }
                let wanted = Gap { ns: config.gaps_us[gap] * 1000, sleeps: realtime };
                let race = race_once(dialect, config, &mut rng, &format!("{tag}-{gap}-{trial}-{again}"), wanted, rivals)?;
                let vouched = race.sent.is_vouched_for(wanted.ns);
                if let Some((_, read_ns)) = &race.second {
                    latency.record(Duration::from_nanos(read_ns.saturating_sub(race.sent.second.0)));
                }
                unanswered = if race.first.is_none() && race.second.is_none() { unanswered + 1 } else { 0 };
                let [first, second] = [race.first, race.second].map(|answer| answer.map(|(answer, _)| answer));
                tallies[gap].race(vouched, race.sent.gap_ns(), first.as_ref(), second.as_ref());
                ensure!(
                    unanswered < UNANSWERED_MAX,
                    "{UNANSWERED_MAX} races in a row were not decided within the time: the target is overloaded, or broken"
                );
                std::thread::sleep(Duration::from_micros(rng.random_range(1_000..4_000)));
                if vouched {
                    break;
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Some((tallies, latency)))
}

/// One race; each answer with the moment at which it had been read.
struct Race {
    sent: Sent,
    first: Option<(Answer, u64)>,
    second: Option<(Answer, u64)>,
}

fn race_once(
    dialect: Dialect,
    config: &FairConfig,
    rng: &mut StdRng,
    contest: &str,
    gap: Gap,
    [ann, bob]: &mut [Rival; 2],
) -> Result<Race> {
    let [first, second] = if rng.random::<bool>() { [ann, bob] } else { [bob, ann] };
    let claims = |who: &str| -> Result<(Vec<String>, Vec<Vec<u8>>)> {
        let ids: Vec<String> = (0..=config.burst).map(|n| format!("{contest}-{who}{n}")).collect();
        let frames = ids.iter().enumerate().map(|(n, id)| {
            let about = if n == 0 { contest } else { id };
            hit_frame(dialect, id, about)
        });
        let frames = frames.collect::<Result<_>>()?;
        Ok((ids, frames))
    };
    let [(ids, frames), (rival_ids, rival_frames)] = [claims("f")?, claims("s")?];
    let mut hit = |frame| match config.split_us {
        0 => Hit::whole(frame),
        most => Hit::split(frame, rng.random_range(0..=most * 1000)),
    };
    let hits = [hit(&frames[0]), hit(&rival_frames[0])];
    let sent = race([first, second], hits, [&frames[1..], &rival_frames[1..]], gap).context("a rival's claim cannot be sent")?;
    // The second's first: its verdict is timed.
    let theirs = second.answer(&rival_ids)?;
    Ok(Race { sent, first: first.answer(&ids)?, second: theirs })
}

/// All that was measured as JSON: the first as the object itself, a peer behind it as its `peer`.
pub(crate) fn json(measured: &[Fairness]) -> Result<String> {
    #[derive(Serialize)]
    struct Compared<'a> {
        #[serde(flatten)]
        first: &'a Fairness,
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<&'a Fairness>,
    }
    let first = measured.first().context("nothing was measured")?;
    Ok(serde_json::to_string_pretty(&Compared { first, peer: measured.get(1) })?)
}

impl Fairness {
    /// What was wrong; None if the first sender always won, or the verdict was flagged as too close.
    pub(crate) fn failure(&self) -> Option<String> {
        let wronged: u64 = self.gaps.iter().map(|gap| gap.wrong_unflagged).sum();
        (wronged > 0).then(|| format!("unfair: {wronged} races went to the second sender, or to nobody, without a flag"))
    }
}

impl fmt::Display for Fairness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (setting, where_) = (&self.setting, if self.setting.same { "one gateway" } else { "two gateways" });
        writeln!(
            f,
            "{}: rivals on {where_}, {} of {} background claims/s, burst {}, seed {}, load average {} to {}",
            self.dialect,
            self.background_per_s,
            setting.background,
            setting.burst,
            setting.seed,
            self.load_average[0],
            self.load_average[1]
        )?;
        writeln!(f, "{HEAD}")?;
        for gap in &self.gaps {
            writeln!(f, "{gap}")?;
        }
        let latency = &self.latency_us;
        let (p50, p99, p999, max) = (latency.p50, latency.p99, latency.p999, latency.max);
        writeln!(f, "send to verdict µs: p50 {p50}  p99 {p99}  p99.9 {p999}  max {max}")?;
        write!(f, "{}", self.hold_us)
    }
}
