//! What `lasthit top` draws: a function of what was seen and of what the user has chosen. It fits into any size.

use std::cmp::Ordering;
use std::collections::VecDeque;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};

use super::super::ask::Process;
use super::super::client::{age, mib};
use super::snapshot::{Latency, Line, Snapshot};

/// What the lines are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    Cpu,
    Memory,
    Sessions,
    Actions,
    Hold,
    Verdict,
    Crashes,
}

/// What the user has chosen, and what else is to be told.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) sort: Sort,
    /// The other way round: names from the last, figures from the smallest.
    pub(super) is_reversed: bool,
    /// Lines that are scrolled away above.
    pub(super) above: usize,
    pub(super) has_colour: bool,
    /// What is wrong.
    pub(super) trouble: Option<String>,
}

/// Keys that sort, as the last line shows them.
const KEYS: [(char, &str, Sort); 8] = [
    ('n', "[n]ame", Sort::Name),
    ('c', "[c]pu", Sort::Cpu),
    ('m', "[m]em", Sort::Memory),
    ('s', "[s]essions", Sort::Sessions),
    ('a', "[a]ctions", Sort::Actions),
    ('h', "[h]old", Sort::Hold),
    ('v', "[v]erdict", Sort::Verdict),
    ('r', "c[r]ashes", Sort::Crashes),
];

impl View {
    pub(super) fn new(has_colour: bool) -> Self {
        Self { sort: Sort::Name, is_reversed: false, above: 0, has_colour, trouble: None }
    }

    /// A key that sorts: the same one again sorts the other way round. Other keys do nothing.
    pub(super) fn pressed(&mut self, key: char) {
        let Some((_, _, sort)) = KEYS.iter().find(|(named, ..)| *named == key.to_ascii_lowercase()) else { return };
        self.is_reversed = *sort == self.sort && !self.is_reversed;
        self.sort = *sort;
    }

    /// Scrolls by so many lines.
    pub(super) fn scroll(&mut self, lines: isize) {
        self.above = self.above.saturating_add_signed(lines);
    }

    fn order(&self, a: &Line, b: &Line) -> Ordering {
        let p99 = |latency: Option<Latency>| latency.map_or(-1.0, |latency| latency.p99_ms);
        // The largest first.
        let by = match self.sort {
            Sort::Name => Ordering::Equal,
            Sort::Cpu => b.process.cpu.total_cmp(&a.process.cpu),
            Sort::Memory => b.process.memory_bytes.cmp(&a.process.memory_bytes),
            Sort::Sessions => b.process.sessions.cmp(&a.process.sessions),
            Sort::Actions => b.process.actions_per_s.total_cmp(&a.process.actions_per_s),
            Sort::Hold => p99(b.hold).total_cmp(&p99(a.hold)),
            Sort::Verdict => p99(b.verdict).total_cmp(&p99(a.verdict)),
            Sort::Crashes => b.process.crashes.cmp(&a.process.crashes),
        };
        let by = by.then_with(|| natural(&a.process.name).cmp(&natural(&b.process.name)));
        if self.is_reversed { by.reverse() } else { by }
    }

    fn style(&self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn of_phase(&self, phase: &str) -> Style {
        match phase {
            "ready" => self.style(Color::Green),
            "failed" | "waiting" => self.style(Color::Red).add_modifier(Modifier::BOLD),
            "stopped" => Style::new().add_modifier(Modifier::DIM),
            _ => self.style(Color::Magenta),
        }
    }
}

/// `gateway-2` before `gateway-10`.
fn natural(name: &str) -> (&str, u64) {
    name.rsplit_once('-').and_then(|(group, number)| Some((group, number.parse().ok()?))).unwrap_or((name, 0))
}

/// A column: its title, what stands above it, its width, and from which width of the screen on it is there.
struct Column {
    group: &'static str,
    title: &'static str,
    width: u16,
    from: u16,
    sort: Option<Sort>,
    cell: fn(&Line) -> String,
}

const fn column(title: &'static str, width: u16, sort: Option<Sort>, cell: fn(&Line) -> String) -> Column {
    Column { group: "", title, width, from: 0, sort, cell }
}

/// All columns behind the name and the phase.
const COLUMNS: [Column; 11] = [
    Column { from: 100, ..column("PID", 7, None, |line| line.process.pid.map_or_else(String::new, |pid| pid.to_string())) },
    Column { from: 100, ..column("AGE", 6, None, |line| line.process.pid.map_or_else(String::new, |_| age(line.process.age_s))) },
    column("CPU", 5, Some(Sort::Cpu), |line| format!("{:.0} %", line.process.cpu * 100.0)),
    column("MEMORY", 8, Some(Sort::Memory), |line| mib(line.process.memory_bytes)),
    column("SESS", 6, Some(Sort::Sessions), |line| line.process.sessions.to_string()),
    column("ACT/S", 6, Some(Sort::Actions), |line| format!("{:.0}", line.process.actions_per_s)),
    Column { group: "HOLD ms", ..column("p50", 5, None, |line| ms(line.hold.map(|latency| latency.p50_ms))) },
    column("p99", 5, Some(Sort::Hold), |line| ms(line.hold.map(|latency| latency.p99_ms))),
    Column { group: "VERDICT ms", ..column("p50", 5, None, |line| ms(line.verdict.map(|latency| latency.p50_ms))) },
    column("p99", 5, Some(Sort::Verdict), |line| ms(line.verdict.map(|latency| latency.p99_ms))),
    column("CRASH", 5, Some(Sort::Crashes), |line| line.process.crashes.to_string()),
];

/// Width of a phase.
const PHASE_WIDTH: u16 = 8;
/// Width of a name, unless there is a longer one.
const NAME_WIDTH: usize = 10;
/// The longest name that is shown whole.
const NAME_WIDTH_MAX: usize = 24;

/// Three digits of a figure in milliseconds.
fn ms(figure: Option<f64>) -> String {
    match figure {
        None => String::new(),
        Some(ms) if ms < 9.995 => format!("{ms:.2}"),
        Some(ms) if ms < 99.95 => format!("{ms:.1}"),
        Some(ms) => format!("{ms:.0}"),
    }
}

/// A whole figure with its thousands apart.
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Draws everything.
pub(super) fn draw(buffer: &mut Buffer, snapshot: &Snapshot, history: &VecDeque<(f64, Option<f64>)>, view: &View) {
    let area = buffer.area;
    let mut canvas = Canvas { buffer, width: area.width, height: area.height };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    canvas.put(0, 0, "lasthit top", bold);
    match &view.trouble {
        Some(trouble) => canvas.put(13, 0, trouble, view.style(Color::Red).add_modifier(Modifier::BOLD)),
        None => canvas.put(13, 0, &snapshot.status, Style::new()),
    }
    let charts = match area.height {
        0..=15 => 0,
        16..=29 => 3,
        _ => 5,
    };
    let mut y = 2;
    if charts > 0 {
        let half = area.width.saturating_sub(2) / 2;
        let actions: Vec<f64> = history.iter().map(|(actions, _)| *actions).collect();
        let verdicts: Vec<f64> = history.iter().map(|(_, p99)| p99.unwrap_or(0.0)).collect();
        let most = |all: &[f64]| all.iter().rev().take(half.into()).copied().fold(0.0, f64::max);
        let title = format!("actions a second, most {}", thousands(most(&actions)));
        canvas.chart(Rect::new(0, y, half, charts), &title, &actions, view.style(Color::Green));
        let most = Some(most(&verdicts)).filter(|most| *most > 0.0);
        let title =
            most.map_or_else(|| "p99 of verdicts".to_owned(), |most| format!("p99 of verdicts, most {} ms", ms(Some(most))));
        canvas.chart(Rect::new(half + 2, y, half, charts), &title, &verdicts, view.style(Color::Magenta));
        y += charts + 2;
    }
    table(&mut canvas, y, snapshot, view);
    let last = area.height.saturating_sub(1);
    let keys: Vec<&str> = KEYS.iter().map(|(_, shown, _)| *shown).collect();
    canvas.put(0, last, &format!("sort {}  [q]uit", keys.join(" ")), Style::new().add_modifier(Modifier::DIM));
}

fn table(canvas: &mut Canvas<'_>, y: u16, snapshot: &Snapshot, view: &View) {
    // Titles and the totals above, keys below.
    let Some(room) = canvas.height.checked_sub(y + 4).map(usize::from).filter(|room| *room > 0) else { return };
    let mut lines: Vec<&Line> = snapshot.processes.iter().collect();
    lines.sort_by(|a, b| view.order(a, b));
    let longest = lines.iter().map(|line| line.process.name.chars().count()).max().unwrap_or(0);
    let name_width = u16::try_from(longest.clamp(NAME_WIDTH, NAME_WIDTH_MAX)).unwrap_or(0);
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| column.from <= canvas.width).collect();
    let head = Style::new().add_modifier(Modifier::REVERSED);
    let marked = head.add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    let marked_if = |is: bool| if is { marked } else { head };
    canvas.fill(y + 1, head);
    canvas.put(0, y + 1, "NAME", marked_if(view.sort == Sort::Name));
    canvas.put(name_width + 1, y + 1, "STATE", head);
    let first = name_width + 1 + PHASE_WIDTH;
    let mut x = first;
    for column in &columns {
        x += 1 + column.width;
        if !column.group.is_empty() {
            // Above this column and the next.
            canvas.put_right(x + 1 + column.width, y, column.group, Style::new());
        }
        canvas.put_right(x, y + 1, column.title, marked_if(column.sort == Some(view.sort)));
    }
    let bold = Style::new().add_modifier(Modifier::BOLD);
    canvas.put(0, y + 2, "all", bold);
    let totals = totals(snapshot);
    cells(canvas, first, y + 2, &columns, &totals, |_| bold);
    let above = view.above.min(lines.len().saturating_sub(room));
    for (row, line) in lines.iter().skip(above).take(room).enumerate() {
        let (y, process) = (y + 3 + u16::try_from(row).unwrap_or(0), &line.process);
        let is_last = row + 1 == room && above + room < lines.len();
        if is_last {
            canvas.put(
                0,
                y,
                &format!("{} more: arrow keys", lines.len() - above - row),
                Style::new().add_modifier(Modifier::DIM),
            );
            break;
        }
        canvas.put_within(0, y, &process.name, name_width, Style::new());
        canvas.put_within(name_width + 1, y, &process.phase, PHASE_WIDTH, view.of_phase(&process.phase));
        if process.pid.is_none() {
            let rest = process.starts_in_s.map(|rest| format!("starts in {rest:.1} s"));
            let why: Vec<&str> = rest.iter().chain(&process.last_end).map(String::as_str).collect();
            canvas.put(first + 1, y, &why.join("; "), Style::new());
            continue;
        }
        let x = cells(canvas, first, y, &columns, line, |column| {
            let is_bad = column.sort == Some(Sort::Crashes) && process.crashes > 0;
            if is_bad { view.of_phase("failed") } else { Style::new() }
        });
        if let Some(why) = &process.last_end {
            canvas.put(x + 2, y, why, Style::new().add_modifier(Modifier::DIM));
        }
    }
}

/// All processes as if they were one.
fn totals(snapshot: &Snapshot) -> Line {
    let totals = &snapshot.totals;
    let process = Process {
        cpu: totals.cpu,
        memory_bytes: totals.memory_bytes,
        sessions: totals.sessions,
        actions_per_s: totals.actions_per_s,
        crashes: totals.crashes,
        ..Process::default()
    };
    Line { process, hold: totals.hold, verdict: totals.verdict }
}

/// Writes a line's figures from column `x` on. Returns where they end.
fn cells(canvas: &mut Canvas<'_>, mut x: u16, y: u16, columns: &[&Column], line: &Line, style: impl Fn(&Column) -> Style) -> u16 {
    for column in columns {
        x += 1 + column.width;
        canvas.put_right(x, y, &(column.cell)(line), style(column));
    }
    x
}

/// What is drawn on. What does not fit is cut.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    width: u16,
    height: u16,
}

impl Canvas<'_> {
    fn put(&mut self, x: u16, y: u16, text: &str, style: Style) {
        self.put_within(x, y, text, self.width, style);
    }

    fn put_within(&mut self, x: u16, y: u16, text: &str, width: u16, style: Style) {
        if x < self.width && y < self.height {
            self.buffer.set_stringn(x, y, text, usize::from(width.min(self.width - x)), style);
        }
    }

    /// Ends before column `x`.
    fn put_right(&mut self, x: u16, y: u16, text: &str, style: Style) {
        let width = u16::try_from(text.chars().count()).unwrap_or(0);
        self.put(x.saturating_sub(width), y, text, style);
    }

    fn fill(&mut self, y: u16, style: Style) {
        if y < self.height {
            self.buffer.set_style(Rect::new(0, y, self.width, 1), style);
        }
    }

    /// A title, and bars below it that end at the right with the newest.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a height of a bar, in eighths of a line")]
    fn chart(&mut self, area: Rect, title: &str, figures: &[f64], style: Style) {
        const BARS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
        self.put_within(area.x, area.y, title, area.width, Style::new());
        let shown = &figures[figures.len().saturating_sub(area.width.into())..];
        let most = shown.iter().copied().fold(0.0, f64::max);
        let left = area.x + area.width - u16::try_from(shown.len()).unwrap_or(0);
        for (x, figure) in (left..).zip(shown) {
            let eighths = if most > 0.0 { (figure / most * f64::from(area.height) * 8.0).ceil() as usize } else { 0 };
            for line in 0..area.height {
                let part = eighths.saturating_sub(usize::from(area.height - 1 - line) * 8).min(8);
                self.put(x, area.y + 1 + line, BARS[part], style);
            }
        }
    }
}

#[cfg(test)]
mod tests;
