//! What a run leaves behind: samples as a table, a chart of them, and the lines that ARCHITECTURE.md prints.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use plotters::prelude::*;

use crate::judging::{Outcome, Verdict};
use crate::options::Options;
use crate::sampling::{Sample, rate};

/// So many lines a gateway, whatever the length of the run.
const LINES: f64 = 200.0;

/// Of a run: its length, its seed, and how often it was disturbed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) length: Duration,
    pub(crate) seed: u64,
    pub(crate) disturbances: u64,
}

/// Writes `soak.tsv`, `soak.svg` and `soak-summary.tsv`.
pub(crate) fn write(
    options: &Options,
    folder: &Path,
    run: Run,
    outcomes: &[Outcome],
    verdicts: &[Verdict],
) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("soak.tsv"), samples(run, outcomes))?;
    fs::write(folder.join("soak-summary.tsv"), summary(run, &options.conditions, outcomes, verdicts))?;
    chart(&folder.join("soak.svg"), run, outcomes)
}

/// Every so many seconds a sample, with the rate since the one before.
fn thinned(run: Run, samples: &[Sample]) -> Vec<(Sample, f64)> {
    let every = (run.length.as_secs_f64() / LINES).max(1.0);
    let mut thin: Vec<(Sample, f64)> = Vec::new();
    for sample in samples {
        let Some((before, _)) = thin.last() else {
            thin.push((*sample, 0.0));
            continue;
        };
        if sample.at - before.at >= every * 0.99 {
            thin.push((*sample, rate(before, sample)));
        }
    }
    thin
}

fn samples(run: Run, outcomes: &[Outcome]) -> String {
    let mut text =
        "gateway\tseconds\tresident_kib\tdescriptors\tthreads\tin_flight\trequests_per_second\twrong\n".to_owned();
    for outcome in outcomes {
        for (sample, rate) in thinned(run, &outcome.samples) {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{}\t{:.1}\t{}\t{}\t{}\t{}\t{rate:.1}\t{}",
                outcome.name,
                sample.at,
                sample.resident,
                sample.descriptors,
                sample.threads,
                sample.in_flight,
                sample.found,
            );
        }
    }
    text
}

/// A line of the summary: what it says, of each gateway.
type Line = (&'static str, fn(Run, &Outcome) -> String);

const SUMMARY: [Line; 14] = [
    ("requests sent", |_, outcome| (outcome.totals.sent + outcome.totals.unnamed).to_string()),
    ("answered right, each with its own answer", |_, outcome| outcome.totals.right.to_string()),
    ("legitimate, and failed with an upstream that was out", |_, outcome| outcome.totals.excused.to_string()),
    ("refused as they must be, each with its own status", |_, outcome| outcome.totals.refused.to_string()),
    ("the rest of them: left in the middle, or asked while a token or a rule changed", |_, outcome| {
        let totals = outcome.totals;
        let sent = totals.sent + totals.unnamed;
        sent.saturating_sub(totals.right + totals.excused + totals.refused + totals.found).to_string()
    }),
    ("answered wrong", |_, outcome| outcome.totals.found.to_string()),
    ("events of decisions, each of one request", |_, outcome| outcome.record.count("decision").to_string()),
    ("no event: silence, half a head, or no handshake", |_, outcome| {
        outcome.totals.unnamed.saturating_sub(outcome.record.unnamed).to_string()
    }),
    ("no event: its connection or stream was over before the gateway had read it", |_, outcome| {
        outcome.totals.unseen.to_string()
    }),
    ("events a second", |run, outcome| {
        format!("{:.0}", outcome.record.count("decision") as f64 / run.length.as_secs_f64())
    }),
    ("tokens revoked", |_, outcome| outcome.revoked.to_string()),
    ("memory, third fifth → last fifth", |_, outcome| {
        let memory = outcome.memory();
        format!("{:.1} → {:.1} MiB", memory.before / 1024.0, memory.after / 1024.0)
    }),
    ("memory, slope over the last three fifths", |_, outcome| format!("{:+.1} MiB an hour", outcome.slope())),
    ("descriptors, third fifth → last fifth", |_, outcome| {
        let descriptors = outcome.descriptors();
        format!("{:.0} → {:.0}", descriptors.before, descriptors.after)
    }),
];

fn summary(run: Run, conditions: &str, outcomes: &[Outcome], verdicts: &[Verdict]) -> String {
    let (minutes, Run { seed, disturbances, .. }) = (run.length.as_secs_f64() / 60.0, run);
    let row = |name: &str, cells: Vec<String>| format!("{name}\t{}\n", cells.join("\t"));
    let each = |figure: &dyn Fn(&Outcome) -> String| outcomes.iter().map(figure).collect();
    let mut text = format!("# {conditions}; {minutes:.0} minutes, {disturbances} disturbances, seed {seed}\n");
    text += &row("gateway", each(&|outcome| outcome.name.to_owned()));
    for (name, figure) in SUMMARY {
        text += &row(name, each(&|outcome| figure(run, outcome)));
    }
    text + &row("judgements that failed", each(&|outcome| failed(outcome, verdicts)))
}

fn failed(outcome: &Outcome, verdicts: &[Verdict]) -> String {
    let own = verdicts.iter().filter(|verdict| verdict.gateway == outcome.name);
    let failed: Vec<&str> = own.filter(|verdict| !verdict.holds).map(|verdict| verdict.what).collect();
    if failed.is_empty() { "none".to_owned() } else { failed.join("; ") }
}

/// A figure of a sample and of the rate at it.
type Figure = fn(&Sample, f64) -> f64;

const PANELS: [(&str, Figure); 3] = [
    ("Resident memory, MiB", |sample, _| sample.resident as f64 / 1024.0),
    ("File descriptors", |sample, _| sample.descriptors as f64),
    ("Requests per second", |_, rate| rate),
];

fn chart(path: &Path, run: Run, outcomes: &[Outcome]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (900, 780)).into_drawing_area();
    root.fill(&WHITE)?;
    let width = run.length.as_secs_f64() / 60.0;
    for (panel, (title, figure)) in root.split_evenly((PANELS.len(), 1)).iter().zip(PANELS) {
        let lines: Vec<Vec<(f64, f64)>> = outcomes.iter().map(|outcome| line(run, outcome, figure)).collect();
        let highest = lines.iter().flatten().map(|(_, value)| *value).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(panel)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..width, 0.0..highest * 1.1)?;
        chart.configure_mesh().max_light_lines(0).x_desc("minutes").draw()?;
        for ((outcome, line), colour) in outcomes.iter().zip(lines).zip([BLUE, RED]) {
            let drawn = chart.draw_series(LineSeries::new(line, colour))?;
            drawn.label(outcome.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::LowerRight).background_style(WHITE).border_style(BLACK).draw()?;
    }
    root.present()?;
    Ok(())
}

fn line(run: Run, outcome: &Outcome, figure: Figure) -> Vec<(f64, f64)> {
    let samples = thinned(run, &outcome.samples);
    // The first one has no rate yet.
    samples.iter().skip(1).map(|(sample, rate)| (sample.at / 60.0, figure(sample, *rate))).collect()
}
