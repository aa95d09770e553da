// The panels beside the slide: facts, results, workers, events and histograms.

import { css, staleColor } from "./colors.js";
import { byId, make, setText } from "./dom.js";
import { drawHistogram } from "./histogram.js";
import { predictedStaleness } from "./predict.js";
import { bytes, hasText, num, percent, sentenceText, t } from "./texts.js";

const MOST_HISTOGRAMS = 16;
const COLUMNS = ["worker", "state", "updates", "share", "mean_staleness", "largest", "dropped", "loss"];

/** A list of names and values; only the values change after it is built. */
class FactList {
  constructor(root) {
    this.root = root;
    this.values = new Map();
  }

  /** Show facts `[key, text, raw]`; `raw` is stored in the element for programs that read the page. */
  show(facts) {
    if (facts.map(([key]) => key).join() !== [...this.values.keys()].join()) this.build(facts);
    for (const [key, text, raw] of facts) {
      const cell = this.values.get(key);
      setText(cell, text);
      cell.dataset.value = raw ?? "";
    }
  }

  build(facts) {
    this.root.replaceChildren();
    this.values = new Map(facts.map(([key]) => {
      const cell = make("dd", "", { "data-fact": key });
      this.root.append(make("dt", t(`fact_${key}`)), cell);
      return [key, cell];
    }));
  }
}

export class Panels {
  /** Build the panels of a run; `seek` is called with the position of the event that the user selects. */
  constructor(run, seek) {
    Object.assign(this, { run, seek });
    this.facts = new FactList(byId("facts"));
    this.results = new FactList(byId("results"));
    this.shownWorkers = run.workers.slice(0, MOST_HISTOGRAMS);
  }

  /** Show a newer state of a running job; the table of workers is rebuilt only if the workers have changed. */
  setRun(run) {
    const same = run.workers.join() === this.run.workers.join() && run.mode === this.run.mode;
    this.run = run;
    this.shownWorkers = run.workers.slice(0, MOST_HISTOGRAMS);
    if (!same) this.translate();
    else {
      this.showResults();
      if (newest(run.events) !== this.newest) this.buildEvents();
      else run.events.forEach(({ before }, index) => { this.events[index].before = before; }); // older records were removed
    }
    if (this.legendEnd !== run.staleEnd) this.legend = null;
  }

  translate() {
    this.facts.values = new Map();
    this.results.values = new Map();
    byId("worker-columns").replaceChildren(...COLUMNS.map((name) => make("th", t(`column_${name}`), { scope: "col" })));
    byId("worker-rows").replaceChildren();
    this.rows = this.run.workers.map((number) => {
      const row = make("tr", "", { "data-worker": number });
      row.append(...COLUMNS.map((name) => make("td", "", { "data-column": name })));
      byId("worker-rows").append(row);
      return [...row.children];
    });
    this.buildHistograms();
    this.buildEvents();
    this.showResults();
    this.legend = null;
  }

  buildHistograms() {
    const root = byId("histograms");
    root.replaceChildren();
    this.histograms = this.shownWorkers.map((number) => {
      const figure = make("div", "", { "data-histogram": number });
      const title = make("h3", t("worker_number", { number }));
      const text = make("p");
      const canvas = make("canvas", "", { role: "img" });
      figure.append(title, canvas, text);
      root.append(figure);
      return { canvas, text };
    });
    byId("staleness-key").textContent = t(this.predictionText());
  }

  /** Return the key of the text that explains the predicted distribution of the mode. */
  predictionText() {
    if (this.run.modes.length > 1) return "predicted_changed";
    const some = this.prediction({ updates: 1 }, 1, this.run.workers.length);
    if (!some) return "predicted_none";
    return `predicted_${this.run.slack === null ? this.run.facts.law : "slack"}`;
  }

  prediction(worker, applied, live) {
    if (this.run.modes.length > 1) return null; // the histogram contains pushes of several modes
    const { facts, settings, mostStaleness } = this.run;
    const share = applied ? worker.updates / applied : 0;
    return predictedStaleness({ facts, workers: live, share, settings }, mostStaleness);
  }

  buildEvents() {
    const root = byId("events");
    root.replaceChildren();
    this.newest = newest(this.run.events);
    this.events = this.run.events.map((event) => {
      const shown = { item: make("li"), before: event.before };
      const { item } = shown;
      const when = make("button", `${num(event.seconds ?? this.run.timeAt(event.before), 2)} s`);
      when.addEventListener("click", () => this.seek(shown.before));
      item.append(when, make("span", this.eventText(event)));
      root.append(item);
      return shown;
    });
  }

  eventText(event) {
    if (event.kind === "epoch") {
      return t("event_epoch", {
        epoch: num(event.epoch + 1), loss: num(event.train_loss, 4), accuracy: percent(event.train_accuracy, 2),
        val: percent(event.val_accuracy, 2),
      });
    }
    if (event.kind === "validation") return t("event_validation", { accuracy: percent(event.val_accuracy, 2), loss: num(event.val_loss, 4) });
    const again = event.kind === "join" && event.incarnation > 1 ? "event_rejoin" : event.working ? "event_lost" : `event_${event.kind}`;
    const text = ["end", "phase"].includes(event.kind) ? statusText(event.text) : sentenceText(event.text);
    return t(again, { worker: event.worker, incarnation: event.incarnation, text, number: num(event.number), version: num(event.version) });
  }

  /** Show the results of the summary, which do not depend on the playhead. */
  showResults() {
    const { summary, window, train_samples: samples } = this.run.header;
    const shown = [
      ["status", statusText(summary.status), summary.status],
      ["test_accuracy", percent(summary.test_accuracy, 2), summary.test_accuracy],
      ["val_accuracy", percent(summary.val_accuracy, 2), summary.val_accuracy],
      ["train_loss", num(summary.train_loss, 4), summary.train_loss],
      ["summary_updates", num(summary.updates), summary.updates],
      ["samples_per_s", num(summary.samples_per_s), summary.samples_per_s],
      ["wall_s", `${num(summary.wall_s, 2)} s`, summary.wall_s],
      ["communication", percent(summary.communication_share), summary.communication_share],
      ["bytes_pushed", bytes(summary.bytes_pushed), summary.bytes_pushed],
      ["bytes_pulled", bytes(summary.bytes_pulled), summary.bytes_pulled],
      ["checkpoints", num(summary.checkpoints), summary.checkpoints],
      ["train_samples", num(samples), samples],
    ];
    if (window.records < window.of) {
      shown.push(["window", t("window", { first: num(window.first), last: num(window.first + window.records), of: num(window.of) }), ""]);
    }
    const { live } = this.run;
    if (live) {
      shown.push(["progress", percent(live.total_samples ? live.samples / live.total_samples : 0), live.samples]);
      if (live.eta_s > 0 && !["ended", "failed"].includes(live.phase)) shown.push(["eta", `${num(live.eta_s)} s`, live.eta_s]);
    }
    this.results.show(shown.filter(([, , raw]) => raw !== undefined && raw !== null));
  }

  /** Show the facts and the workers at the playhead. */
  update(state, activities, seconds) {
    this.showFacts(state, seconds);
    const { run } = this;
    state.workers.forEach((worker, index) => {
      const loss = worker.row >= 0 ? run.push.loss[worker.row] : null;
      const values = [
        num(worker.number), t(`state_${activities[index]}`), num(worker.updates),
        percent(state.applied ? worker.updates / state.applied : null), num(state.meanStaleness([worker]), 2),
        num(worker.stalest), num(worker.dropped), num(loss, 4),
      ];
      values.forEach((text, column) => setText(this.rows[index][column], text));
    });
    for (const { item, before } of this.events) item.classList.toggle("later", before > state.position);
  }

  showFacts(state, seconds) {
    const { run } = this;
    const row = state.position - 1;
    this.facts.show([
      ["version", num(run.versionAt(state.position)), run.versionAt(state.position)],
      ["updates", num(state.applied), state.applied],
      ["dropped", num(state.dropped), state.dropped],
      ["samples", num(state.samples), state.samples],
      ["epoch", num(state.epoch() + 1), state.epoch() + 1],
      ["time", `${num(seconds, 3)} s`, seconds],
      ["pace", seconds > 0 ? t("per_second", { count: num(state.samples / seconds) }) : "–", seconds > 0 ? state.samples / seconds : ""],
      ["loss", row >= 0 ? num(run.push.loss[row], 4) : "–", row >= 0 ? run.push.loss[row] : ""],
      ["smoothed_loss", row >= 0 ? num(run.smooth[row], 4) : "–", row >= 0 ? run.smooth[row] : ""],
      ["mean_staleness", num(state.meanStaleness(), 3), state.meanStaleness()],
      ["learning_rate", num(state.learningRate(), 6), state.learningRate()],
      ["speedup", num(state.speedup(), 2), state.speedup()],
      ["efficiency", percent(state.efficiency()), state.efficiency()],
    ]);
  }

  drawHistograms(state, theme) {
    const { run } = this;
    const live = state.workers.filter((worker) => worker.updates > 0).length;
    this.shownWorkers.forEach((_, index) => {
      const worker = state.workers[index];
      const predicted = this.prediction(worker, state.applied, live);
      const { canvas, text } = this.histograms[index];
      const most = Math.max(run.staleEnd, Math.min(run.mostStaleness, Math.ceil(run.staleEnd * 1.3)));
      drawHistogram(canvas, { counts: worker.staleness, most, staleEnd: run.staleEnd, ...predicted }, theme);
      const words = t(predicted ? "histogram_text" : "histogram_text_alone", {
        mean: num(state.meanStaleness([worker]), 2), largest: num(worker.stalest), count: num(worker.updates),
        predicted: num(predicted?.mean, 2),
      });
      if (text.textContent !== words) {
        text.textContent = words;
        canvas.setAttribute("aria-label", words);
      }
    });
  }

  /** Draw the legend: the colour scale and the shapes of the marks. */
  drawLegend(theme, end) {
    if (this.legend === theme) return;
    this.legend = theme;
    this.legendEnd = end;
    const root = byId("legend");
    const canvas = make("canvas", "", { "aria-hidden": "true" });
    canvas.width = 130;
    canvas.height = 14;
    const context = canvas.getContext("2d");
    for (let x = 0; x < 130; x += 1) {
      context.fillStyle = css(staleColor((x / 129) * end, end));
      context.fillRect(x, 0, 1, 14);
    }
    const scale = make("span", "", { class: "scale" });
    scale.append(make("span", t("legend_scale")), make("b", "0"), canvas, make("b", `${num(end)}+`));
    root.replaceChildren(scale, ...["push", "pull", "drop", "states"].map((name) => make("span", t(`legend_${name}`))));
  }
}

/** Return a text that differs whenever an event has been added to a list, from which the oldest may be removed. */
function newest(events) {
  const last = events.at(-1);
  return last ? [events.length, last.kind, last.seconds, last.worker, JSON.stringify(last.text)].join(" ") : "";
}

function statusText(status) {
  return hasText(`status_${status}`) ? t(`status_${status}`) : String(status);
}
